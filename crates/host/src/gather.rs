//! Gathering writes of frames to the kernel.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use packet::Frame;

/// Largest number of pieces of a frame that [`write_frame`] takes.
pub(crate) const MAX_PIECES: usize = 1 + 16;

/// Writes a frame to a TAP device or a packet socket as one packet, `header` in front, without copying it first;
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
