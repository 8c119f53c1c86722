//! The receive side: frames are used where the kernel has put them, and their chunks go back to
//! it when the burst ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::Epoll;
use ethdev::{DropReason, QueueStats, RxDriver};
use packet::frame::HEAD_CAPACITY;
use packet::{BURST, Capabilities, ETHERNET_HEADER_LEN, FrameBatch, MAX_FRAME_LEN, RawSegment};
use rustix::net::{RecvFlags, recv};

use super::begun;
use super::ring::{BrokenRing, Chunk, Consumer, Descriptor, Producer};
use super::umem::{Piece, Umem};
use crate::kernel::link::LinkState;
use crate::kernel::wait::Waiter;

/// The most pieces of a frame: with headroom, 18 chunks hold 64 KiB.
pub(super) const MAX_PIECES: usize = 18;

/// `XDP_PKT_CONTD`: the frame goes on in the next descriptor.
pub(super) const CONTINUED: u32 = libc::XDP_PKT_CONTD;

/// The receive side of a queue pair.
#[derive(Debug)]
pub(super) struct XdpRx {
    /// Dropped first: its frames point into `umem`.
    batch: FrameBatch,
    fd: Arc<OwnedFd>,
    umem: Arc<Umem>,
    state: Arc<LinkState>,
    rx: Consumer<Descriptor>,
    fill: Producer<Chunk>,
    /// Chunks of the frames of the burst.
    held: Vec<u32>,
    /// Which chunks the kernel has. So none is ours twice, whatever the kernel says.
    lent: Vec<bool>,
    /// A frame of too many pieces is being left out.
    skipping: bool,
    waiter: Waiter,
    options: Options,
}

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Checksums may be only begun.
    pub(super) begun: bool,
    /// Every look at an empty ring has the kernel poll the device.
    pub(super) busy_poll: bool,
}

impl XdpRx {
    /// Takes over a socket's receive rings. The kernel has all chunks.
    pub(super) fn new(
        fd: Arc<OwnedFd>,
        umem: Arc<Umem>,
        state: Arc<LinkState>,
        (rx, fill): (Consumer<Descriptor>, Producer<Chunk>),
        options: Options,
        wait: Arc<Epoll>,
    ) -> Self {
        let count = umem.count() as usize;
        Self {
            waiter: Waiter::new(wait, &*fd),
            batch: FrameBatch::with_segments(BURST * MAX_PIECES),
            fd,
            umem,
            state,
            rx,
            fill,
            held: Vec::with_capacity(count),
            lent: vec![true; count],
            skipping: false,
            options,
        }
    }

    fn take(&mut self, max: usize, stats: &QueueStats) -> Result<(), BrokenRing> {
        let wanted = u32::try_from(max).unwrap_or(u32::MAX);
        let mut there = self.rx.available(wanted)?;
        if there == 0 && self.options.busy_poll {
            self.wake();
            there = self.rx.available(wanted)?;
        }
        let mut done = 0;
        while done < there && self.batch.frames().len() < max {
            let descriptor = self.rx.read(done);
            if descriptor.options & CONTINUED == 0 && !self.skipping {
                self.take_one(&descriptor, stats);
                done += 1;
                continue;
            }
            let count = self.take_pieces(done, there - done, stats);
            if count == 0 {
                break;
            }
            done += count;
        }
        if done > 0 {
            self.rx.release(done);
        }
        Ok(())
    }

    /// A frame of one piece, as nearly all are.
    #[inline]
    fn take_one(&mut self, descriptor: &Descriptor, stats: &QueueStats) {
        let Some(piece) = self.hold(descriptor) else {
            return stats.count_drops(DropReason::BadDescriptor, 1);
        };
        if (piece.len as usize) < ETHERNET_HEADER_LEN {
            return stats.count_drops(DropReason::TooShort, 1);
        }
        let len = u16::try_from(piece.len).unwrap_or(u16::MAX);
        // SAFETY: the piece lies in one chunk of the UMEM, which `self` keeps mapped. The kernel
        // had this chunk and has given it to us (`hold` has checked that it was not ours
        // already), and gets it back in `release`, which clears the batch first.
        unsafe { self.batch.push_private(piece.first, len) };
        if self.options.begun {
            self.find_begun_checksum(stats);
        }
    }

    /// A frame of several pieces, which starts `at`, with `there` descriptors in the ring from
    /// there on. Returns how many of them are dealt with: none if the frame's end is not there.
    #[cold]
    fn take_pieces(&mut self, at: u32, there: u32, stats: &QueueStats) -> u32 {
        let mut pieces = ArrayVec::<RawSegment, MAX_PIECES>::new();
        let ends = |offset: &u32| self.rx.read(at + offset).options & CONTINUED == 0;
        let most = u32::try_from(MAX_PIECES).unwrap_or(u32::MAX);
        let Some(last) = (0..there.min(most)).find(ends) else {
            if there < most && !self.skipping {
                return 0;
            }
            // Too long to be a frame: it is left out piece by piece.
            let count = there.min(most);
            for offset in 0..count {
                let _ = self.hold(&self.rx.read(at + offset));
            }
            stats.count_drops(DropReason::TooLong, usize::from(!self.skipping));
            self.skipping = true;
            return count;
        };
        let (mut len, mut good) = (0, true);
        for offset in 0..=last {
            match self.hold(&self.rx.read(at + offset)) {
                Some(piece) => {
                    len += piece.len as usize;
                    pieces.push(RawSegment::new(piece.first, piece.len));
                }
                None => good = false,
            }
        }
        if !std::mem::take(&mut self.skipping) {
            self.push_pieces(&pieces, len, good, stats);
        }
        last + 1
    }

    fn push_pieces(&mut self, pieces: &[RawSegment], len: usize, good: bool, stats: &QueueStats) {
        if !good {
            return stats.count_drops(DropReason::BadDescriptor, 1);
        }
        // SAFETY: as in `take_one`.
        let pushed = len <= MAX_FRAME_LEN
            && unsafe {
                let pieces = RawSegment::get_all(pieces);
                self.batch.push_shared_with_head(pieces, HEAD_CAPACITY)
            };
        if !pushed {
            stats.count_drops(DropReason::TooLong, 1);
        } else if self.options.begun {
            self.find_begun_checksum(stats);
        }
    }

    /// Makes the chunk that a descriptor is about ours, until `release`; `None` when there is no
    /// such chunk, or it is ours already.
    #[inline]
    fn hold(&mut self, descriptor: &Descriptor) -> Option<Piece> {
        let piece = self.umem.received(descriptor)?;
        let lent = self.lent.get_mut(piece.chunk as usize)?;
        if !std::mem::take(lent) {
            return None;
        }
        // There is room for every chunk, so this does not allocate.
        self.held.push(piece.chunk);
        Some(piece)
    }

    /// Gives the last frame the offload that it needs, should its checksum be begun only.
    fn find_begun_checksum(&mut self, stats: &QueueStats) {
        let Some(frame) = self.batch.frames().last() else { return };
        if let Some(request) = begun::request(frame.head(), frame.len())
            && let Err(error) = self.batch.set_offload(&request, Capabilities::CSUM)
        {
            tracing::debug!(%error, "a frame with a begun checksum is dropped");
            stats.count_drops(DropReason::BadHeader, 1);
        }
    }

    /// Gives all chunks of the burst back to the kernel.
    fn give_back(&mut self) -> Result<(), BrokenRing> {
        let count = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(());
        }
        self.fill.require(count)?;
        for (offset, chunk) in (0..count).zip(self.held.drain(..)) {
            self.fill.write(offset, Umem::receive_address(chunk));
            if let Some(lent) = self.lent.get_mut(chunk as usize) {
                *lent = true;
            }
        }
        self.fill.submit(count);
        if self.fill.needs_wakeup() {
            self.wake();
        }
        Ok(())
    }

    /// Has the kernel look at the fill ring, and poll the device where it polls at all.
    #[cold]
    fn wake(&self) {
        // There is never anything to read, which is what the error says.
        let _ = recv(&self.fd, &mut [0_u8; 0], RecvFlags::DONTWAIT);
    }
}

impl RxDriver for XdpRx {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.release();
        if !self.state.is_alive() {
            return;
        }
        if let Err(error) = self.take(max.min(BURST), stats) {
            self.state.end(&error.to_string());
        }
        if self.batch.frames().is_empty() {
            // Frames that were left out.
            self.release();
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
        if let Err(error) = self.give_back() {
            self.state.end(&error.to_string());
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.waiter.as_fd())
    }

    fn arm(&mut self) -> bool {
        if !self.state.is_alive() {
            return true;
        }
        let armed = self.waiter.arm(&*self.fd) && self.rx.available(1) == Ok(0);
        if !armed {
            self.disarm();
        }
        armed
    }

    fn disarm(&mut self) {
        self.waiter.disarm(&*self.fd);
    }
}

impl Drop for XdpRx {
    fn drop(&mut self) {
        self.disarm();
    }
}
