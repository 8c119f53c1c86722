//! The system calls of a TAP port that have no safe form elsewhere: ioctls on the TAP device
//! and on its network interface, and gathering writes of frames.
//!
//! Facts: Linux `Documentation/networking/tuntap.rst`, netdevice(7), tun(4).

use std::ffi::{c_int, c_short, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use packet::{Capabilities, Frame, MacAddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Longest name of an interface, in bytes (IFNAMSIZ without the final NUL).
pub(crate) const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// The device keeps existing without a process that has it open.
const IFF_PERSIST: c_int = 0x0800;

/// From `linux/ethtool.h`: whether the interface has a carrier.
const ETHTOOL_GLINK: u32 = 0x0000_000A;

/// A request for interface `name`; a longer name than fits is cut.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain bytes, pointers among them; all zero is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(MAX_NAME)) {
        *to = from.cast_signed();
    }
    request
}

/// The name in a request that the kernel has answered.
fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let bytes: Vec<u8> = bytes.map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// # Safety
/// `code` must be an ioctl that takes an `ifreq`, and what the request points to, if that ioctl
/// follows a pointer in it, must be valid.
unsafe fn ioctl(fd: BorrowedFd<'_>, code: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the caller vouches for the rest.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code as _, &raw mut *request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `fd`, an open `/dev/net/tun`, a queue of the TAP interface `name`, which is made if it
/// does not exist. With `net_header` every frame has a virtio-net header of
/// [`NET_HEADER_LEN`] bytes in front.
pub(crate) fn attach(
    fd: BorrowedFd<'_>,
    name: &str,
    multi_queue: bool,
    net_header: bool,
) -> io::Result<()> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if net_header {
        flags |= libc::IFF_VNET_HDR;
    }
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = low_16(flags);
    // SAFETY: TUNSETIFF takes an ifreq and follows no pointer in it.
    unsafe { ioctl(fd, libc::TUNSETIFF as c_ulong, &mut request) }
}

/// Bytes of the header that a TAP device has in front of frames: the legacy one.
pub(crate) const NET_HEADER_LEN: usize = 10;

/// Tells the TAP device whether it may leave checksums and segmentation to us, and returns what
/// it leaves, and takes, then. Without `on` that is nothing, whatever a former user had said.
pub(crate) fn set_offloads(fd: BorrowedFd<'_>, on: bool) -> io::Result<Capabilities> {
    if !on {
        set_offload_flags(fd, 0)?;
        return Ok(Capabilities::empty());
    }
    little_endian_headers(fd)?;
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if set_offload_flags(fd, tcp | udp).is_ok() {
        return Ok(Capabilities::all());
    }
    // Before Linux 6.2.
    set_offload_flags(fd, tcp)?;
    Ok(Capabilities::all() - Capabilities::USO4 - Capabilities::USO6)
}

fn set_offload_flags(fd: BorrowedFd<'_>, flags: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes flags, and no pointer.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, c_ulong::from(flags)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the device write headers as virtio 1.0 does, on any host.
fn little_endian_headers(fd: BorrowedFd<'_>) -> io::Result<()> {
    let yes: c_int = 1;
    // SAFETY: TUNSETVNETLE reads one number.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETLE as _, &raw const yes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The low 16 bits of interface flags, which is all that an ifreq has room for.
fn low_16(flags: c_int) -> c_short {
    let [low, high, ..] = flags.to_le_bytes();
    c_short::from_le_bytes([low, high])
}

/// What an attached queue is part of: the interface's name, which may change, and whether it
/// exists without us.
pub(crate) fn attached_to(fd: BorrowedFd<'_>) -> io::Result<(String, bool)> {
    let mut request = request("");
    // SAFETY: TUNGETIFF fills in an ifreq.
    unsafe { ioctl(fd, libc::TUNGETIFF as c_ulong, &mut request)? };
    // SAFETY: TUNGETIFF has filled in the flags.
    let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    Ok((name_of(&request), flags & IFF_PERSIST != 0))
}

/// A socket for asking about interfaces, in the network namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Interfaces(OwnedFd);

impl Interfaces {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?))
    }

    /// # Safety
    /// As for [`ioctl`].
    unsafe fn ask(&self, code: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { ioctl(self.0.as_fd(), code, request) }
    }

    /// Whether there is an interface of this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        // SAFETY: SIOCGIFINDEX fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFINDEX as c_ulong, &mut request(name)) }.is_ok()
    }

    /// The interface's flags, `IFF_UP` and so on.
    pub(crate) fn flags(&self, name: &str) -> io::Result<c_int> {
        let mut request = request(name);
        // SAFETY: SIOCGIFFLAGS fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFFLAGS as c_ulong, &mut request)? };
        // SAFETY: SIOCGIFFLAGS has filled in the flags.
        Ok(c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Switches the interface on.
    pub(crate) fn set_up(&self, name: &str) -> io::Result<()> {
        let flags = self.flags(name)? | libc::IFF_UP;
        self.set_flags(name, flags)
    }

    fn set_flags(&self, name: &str, flags: c_int) -> io::Result<()> {
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = low_16(flags);
        // SAFETY: SIOCSIFFLAGS takes an ifreq and follows no pointer in it.
        unsafe { self.ask(libc::SIOCSIFFLAGS as c_ulong, &mut request) }
    }

    /// The interface's MTU in bytes.
    pub(crate) fn mtu(&self, name: &str) -> io::Result<u16> {
        let mut request = request(name);
        // SAFETY: SIOCGIFMTU fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFMTU as c_ulong, &mut request)? };
        // SAFETY: SIOCGIFMTU has filled in the MTU.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Changes the MTU.
    pub(crate) fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut request = request(name);
        request.ifr_ifru.ifru_mtu = c_int::from(mtu);
        // SAFETY: SIOCSIFMTU takes an ifreq and follows no pointer in it.
        unsafe { self.ask(libc::SIOCSIFMTU as c_ulong, &mut request) }
    }

    /// The interface's MAC address.
    pub(crate) fn mac(&self, name: &str) -> io::Result<MacAddr> {
        let mut request = request(name);
        // SAFETY: SIOCGIFHWADDR fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFHWADDR as c_ulong, &mut request)? };
        // SAFETY: SIOCGIFHWADDR has filled in the address.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        let mut mac = MacAddr::default();
        for (to, from) in mac.0.iter_mut().zip(data) {
            *to = from.cast_unsigned();
        }
        Ok(mac)
    }

    /// Changes the MAC address.
    pub(crate) fn set_mac(&self, name: &str, mac: MacAddr) -> io::Result<()> {
        let mut request = request(name);
        let mut sa_data = [0; 14];
        for (to, from) in sa_data.iter_mut().zip(mac.0) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data };
        // SAFETY: SIOCSIFHWADDR takes an ifreq and follows no pointer in it.
        unsafe { self.ask(libc::SIOCSIFHWADDR as c_ulong, &mut request) }
    }

    /// Whether the interface has a carrier: for a TAP, whether some process has it open.
    pub(crate) fn has_carrier(&self, name: &str) -> io::Result<bool> {
        /// `struct ethtool_value`.
        #[repr(C)]
        struct Value {
            command: u32,
            data: u32,
        }
        let mut value = Value { command: ETHTOOL_GLINK, data: 0 };
        let mut request = request(name);
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: SIOCETHTOOL follows the pointer to `value`, which is what ETHTOOL_GLINK
        // takes and fills in, and which outlives the call.
        unsafe { self.ask(libc::SIOCETHTOOL, &mut request)? };
        Ok(value.data != 0)
    }
}

/// Largest number of pieces of a frame that [`write_frame`] takes.
pub(crate) const MAX_PIECES: usize = 1 + 16;

/// Writes a frame to the TAP device as one packet, `header` in front, without copying it first;
/// its body may be memory that somebody else is changing. The frame may have [`MAX_PIECES`]
/// pieces, its head being one.
pub(crate) fn write_frame(fd: BorrowedFd<'_>, header: &[u8], frame: &Frame<'_>) -> io::Result<()> {
    let piece = |bytes: &[u8]| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // A piece of no bytes does no harm.
    let mut pieces = [piece(header); 1 + MAX_PIECES];
    let [_, head, rest @ ..] = &mut pieces;
    *head = piece(frame.head());
    if frame.body().len() > rest.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, segment) in rest.iter_mut().zip(frame.body()) {
        *to = libc::iovec { iov_base: segment.as_ptr().as_ptr().cast(), iov_len: segment.len() };
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 18")]
    let count = (2 + frame.body().len()) as c_int;
    // SAFETY: `count` pieces are filled in, each with memory that the caller or the frame vouches
    // for as readable; the kernel only reads it, and answers EFAULT where a peer took it away.
    let written = unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr(), count) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
