//! One pager, as this process sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Signal;

use super::wire::{self, MAP, MAPPED, TOUCH, TOUCHED, Words};
use crate::backend::RegionFile;
use crate::protocol::MAX_TABLE_REGIONS;

/// Where the first region lies in a pager. Linux places programs, their heaps, libraries and stacks
/// far above the part of the address space that begins here.
const FIRST: u64 = 0x1000_0000_0000;
/// Regions end below this.
const END: u64 = 0x5000_0000_0000;
/// Regions lie at such a distance from multiples of this as in their files: it is that of the
/// largest huge pages.
const STEP: u64 = 1 << 30;

/// What a pager has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The memory is mapped.
    Mapped,
    /// The page with this address is there.
    Touched(u64),
    /// It is gone.
    Gone,
}

/// The way to a pager, for any thread.
#[derive(Debug)]
pub struct PagerLink {
    socket: OwnedFd,
}

impl PagerLink {
    /// Has the page at address `at` of the pager touched; gives whether that can be asked for now.
    /// It never waits: the socket is the pager's, too, but not its will.
    #[must_use]
    pub fn touch(&self, at: u64) -> bool {
        wire::send(&self.socket, &[TOUCH, at], &[], false).is_ok()
    }

    /// What the pager has to say next, if anything.
    pub fn next_report(&self) -> Option<Report> {
        let (words, _) = match wire::receive(&self.socket, false) {
            Err(Errno::AGAIN) => return None,
            Err(_) => return Some(Report::Gone),
            Ok(message) => message,
        };
        match words.as_slice() {
            [MAPPED] => Some(Report::Mapped),
            &[TOUCHED, at] => Some(Report::Touched(at)),
            // The end of its messages, or nothing that a pager says.
            _ => Some(Report::Gone),
        }
    }
}

impl AsFd for PagerLink {
    /// Readable when there is a report.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A process that touches a guest's memory for us, and may have to wait for it. Dropping this
/// ends it.
#[derive(Debug)]
pub struct Pager {
    link: Arc<PagerLink>,
    /// For the front-end.
    userfault: Option<OwnedFd>,
    process: OwnedFd,
    /// Nothing was ever placed from here on.
    free: u64,
}

impl Pager {
    pub(super) fn new(socket: OwnedFd, userfault: OwnedFd, process: OwnedFd) -> Self {
        let link = Arc::new(PagerLink { socket });
        Self { link, userfault: Some(userfault), process, free: FIRST }
    }

    /// The way to it.
    #[must_use]
    pub const fn link(&self) -> &Arc<PagerLink> {
        &self.link
    }

    /// The file over which its faults are served, once.
    pub fn take_userfault(&mut self) -> Option<OwnedFd> {
        self.userfault.take()
    }

    /// The process.
    #[cfg(test)]
    pub(super) fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Has it map `regions` instead of what it has; gives the address at which each will lie. It
    /// [reports](Report::Mapped) when they do.
    ///
    /// # Errors
    /// When there is no place for them, or the pager takes no message.
    pub fn map(
        &mut self,
        regions: &[RegionFile<'_>],
    ) -> io::Result<arrayvec::ArrayVec<u64, MAX_TABLE_REGIONS>> {
        let mut words = Words::new();
        words.push(MAP);
        let mut places = arrayvec::ArrayVec::new();
        let mut free = self.free;
        for region in regions.iter().take(MAX_TABLE_REGIONS) {
            let at = free.checked_add(region.offset % STEP).ok_or(Errno::NOMEM)?;
            let end = at.checked_add(region.len).filter(|end| *end <= END).ok_or(Errno::NOMEM)?;
            free = end.next_multiple_of(STEP) + STEP;
            places.push(at);
            words.extend([at, region.offset, region.len]);
        }
        let fds: arrayvec::ArrayVec<_, MAX_TABLE_REGIONS> =
            regions.iter().take(MAX_TABLE_REGIONS).map(|region| region.fd).collect();
        wire::send(&self.link.socket, &words, &fds, false)?;
        self.free = free;
        Ok(places)
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // It may wait for a page for as long as the front-end likes.
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }
}
