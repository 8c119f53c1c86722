//! What goes between this process, the one that starts pagers, and the pagers, over sockets that
//! keep messages apart. Neither side waits for the other to take one, but the pager for us.
//!
//! A pager is taken for hostile, since the front-end may have made it its own.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::protocol::{MAX_FDS, MAX_TABLE_REGIONS};

/// Numbers in the longest message.
const MAX_WORDS: usize = 1 + 3 * MAX_TABLE_REGIONS;
const WORD: usize = 8;
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// Numbers, as a message has them.
pub(super) type Words = ArrayVec<u64, MAX_WORDS>;

/// To the one who starts pagers, with a socket: start one that serves it.
pub(super) const START: u64 = 1;
/// To a pager, with files: map them instead of those before. Three numbers for each: address,
/// offset in the file, length.
pub(super) const MAP: u64 = 2;
/// To a pager, with an address: touch it.
pub(super) const TOUCH: u64 = 3;
/// From a pager, with its userfaultfd and a handle of the process: it is ready.
pub(super) const READY: u64 = 4;
/// From a pager: the files are mapped.
pub(super) const MAPPED: u64 = 5;
/// From a pager, with an address: the page is there.
pub(super) const TOUCHED: u64 = 6;

/// Sends a message, waiting for nobody unless `wait`.
pub(super) fn send(
    socket: impl AsFd,
    words: &[u64],
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> Result<(), Errno> {
    let bytes: ArrayVec<u8, { WORD * MAX_WORDS }> =
        words.iter().take(MAX_WORDS).flat_map(|word| word.to_ne_bytes()).collect();
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MFILE);
    }
    let flags = if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
    let (socket, parts) = (socket.as_fd(), [IoSlice::new(&bytes)]);
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &parts, &mut control, flags | SendFlags::NOSIGNAL)
    })
    .map(drop)
}

/// A message and its files.
pub(super) type Received = (Words, ArrayVec<OwnedFd, MAX_FDS>);

/// The next message: without a word where the other side is gone. Waits for it if `wait`.
pub(super) fn receive(socket: impl AsFd, wait: bool) -> Result<Received, Errno> {
    let mut bytes = [0; WORD * MAX_WORDS];
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let socket = socket.as_fd();
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = ArrayVec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights {
                // There is room for no more, so it always fits.
                let _ = fds.try_push(fd);
            }
        }
    }
    let whole = bytes.get(..received.bytes).unwrap_or_default();
    let (words, _) = whole.as_chunks::<WORD>();
    Ok((words.iter().map(|word| u64::from_ne_bytes(*word)).collect(), fds))
}
