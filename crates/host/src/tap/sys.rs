//! The system calls of a TAP port that have no safe form elsewhere: ioctls on the TAP device.
//!
//! Facts: Linux `Documentation/networking/tuntap.rst`, tun(4).

use std::ffi::{c_int, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use packet::{Capabilities, MacAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::interfaces::{hardware_address, ioctl, low_16, name_of, request};

/// The device keeps existing without a process that has it open.
const IFF_PERSIST: c_int = 0x0800;

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
        return Ok(Capabilities::VIRTIO);
    }
    // Before Linux 6.2.
    set_offload_flags(fd, tcp)?;
    Ok(Capabilities::VIRTIO - Capabilities::USO4 - Capabilities::USO6)
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

/// The network namespace that the interface is in now (Linux 5.2 and later).
///
/// # Errors
/// Without `CAP_NET_ADMIN` over that namespace; when the interface is gone.
pub(crate) fn namespace_of(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: TUNGETDEVNETNS takes nothing and returns a descriptor.
    let namespace = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETDEVNETNS as _) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

/// The interface's MAC address, in whatever namespace it is.
pub(crate) fn mac_of(fd: BorrowedFd<'_>) -> io::Result<MacAddr> {
    let mut request = request("");
    // SAFETY: SIOCGIFHWADDR fills in an ifreq.
    unsafe { ioctl(fd, libc::SIOCGIFHWADDR as c_ulong, &mut request)? };
    Ok(hardware_address(&request))
}

/// Whether the interface is switched on, in whatever namespace it is: only then one may write.
pub(crate) fn is_on(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && fds.iter().all(|fd| fd.revents().contains(PollFlags::OUT))
}
