//! Socket options that have no safe form elsewhere.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Room for frames on their way to the device, in bytes of kernel memory.
const SEND_BUFFER: c_int = 8 << 20;

/// Sets a socket option.
///
/// # Safety
/// `value` must be what the option takes, without padding; should it have the address of memory,
/// that memory must stay valid for as long as the kernel uses it.
pub(crate) unsafe fn set_option<T>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value = (&raw const *value).cast();
    // SAFETY: the kernel reads `len` bytes, which is what `value` has; the caller vouches for
    // what they mean.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a socket option that is a number, and no address.
pub(crate) fn set_number(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: a number has no padding, and no option takes an address as an `int`.
    unsafe { set_option(fd, level, name, &value) }
}

/// Asks for a socket option: the kernel fills in `value`, as far as it has something to say.
///
/// # Safety
/// Any bytes that the kernel may write for this option must make a valid `T`.
pub(crate) unsafe fn option<T>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &mut T,
) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value = (&raw mut *value).cast();
    // SAFETY: the kernel writes at most `len` bytes, which is what `value` has room for.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value, &raw mut len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes a pending error of the socket away, so that it does not wake anybody again.
pub(crate) fn clear_error(fd: BorrowedFd<'_>) {
    // What the error was is known by other ways.
    let _ = rustix::net::sockopt::socket_error(fd);
}

/// Gives the socket room for bursts to be sent, past the system's limit where that is allowed.
pub(crate) fn enlarge_send_buffer(fd: BorrowedFd<'_>) {
    if set_number(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER).is_err() {
        // With less room, more frames of a burst are dropped.
        let _ = set_number(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER);
    }
}

/// A packet socket that receives nothing as yet.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

/// Has an interface receive frames for other stations too, until it is dropped or the process
/// ends: the kernel counts such wishes.
#[derive(Debug)]
pub(crate) struct Promiscuous(
    /// Its membership ends when it is closed.
    #[allow(dead_code, reason = "held open")]
    OwnedFd,
);

impl Promiscuous {
    pub(crate) fn new(index: u32) -> io::Result<Self> {
        use std::os::fd::AsFd;
        let fd = packet_socket()?;
        let request = libc::packet_mreq {
            mr_ifindex: c_int::try_from(index).map_err(io::Error::other)?,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: PACKET_ADD_MEMBERSHIP takes a packet_mreq, which has neither padding nor
        // address of memory.
        unsafe {
            set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        }
        Ok(Self(fd))
    }
}
