//! Queues of a TAP port: one file descriptor for both directions, one system call per frame.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use eal::Epoll;
use ethdev::{DropReason, QueueStats, RxDriver, Sent, TxDriver};
use packet::{
    BURST, BadOffload, Capabilities, ETHERNET_HEADER_LEN, Frame, FrameBatch, MAX_FRAME_LEN,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, readv, writev};
use virtio::NetHeader;

use super::sys::NET_HEADER_LEN;
use crate::gather::{MAX_PIECES, write_frame};
use crate::kernel::link::LinkState;
use crate::kernel::wait::Waiter;
use packet::slots::{MAX_SLOT_LEN, SlotBatch};

/// The receive side: what the host sends through the interface.
#[derive(Debug)]
pub(super) struct TapRx {
    fd: Arc<OwnedFd>,
    state: Arc<LinkState>,
    slots: SlotBatch,
    /// What the kernel may leave to us; frames have net headers if that is anything.
    offloads: Capabilities,
    /// A descriptor of its own, so that a deleted interface, whose descriptor is for ever in error,
    /// wakes nobody for ever.
    waiter: Waiter,
}

impl TapRx {
    pub(super) fn new(
        fd: Arc<OwnedFd>,
        state: Arc<LinkState>,
        offloads: Capabilities,
        wait: Arc<Epoll>,
    ) -> Self {
        let waiter = Waiter::new(wait, &*fd);
        Self { fd, state, slots: SlotBatch::new(MAX_SLOT_LEN), offloads, waiter }
    }

    /// Receives one frame; `false` when there is none.
    fn receive_one(&mut self, stats: &QueueStats) -> bool {
        let Some(slot) = self.slots.next_slot() else { return false };
        let mut header = [0; NET_HEADER_LEN];
        match read_frame(&self.fd, header_part(&mut header, self.offloads), slot) {
            Ok(len) if len < ETHERNET_HEADER_LEN => stats.count_drops(DropReason::TooShort, 1),
            // The slot is longer than any frame that fits: a full one was cut.
            Ok(len) if !self.slots.commit(len) => stats.count_drops(DropReason::TooLong, 1),
            Ok(_) => self.take_offload(header, stats),
            Err(Errno::INTR) => {}
            Err(Errno::BADFD | Errno::IO | Errno::NODEV) => {
                self.state.lose();
                return false;
            }
            Err(_) => return false,
        }
        true
    }
}

impl TapRx {
    /// Gives the last frame what its net header says.
    fn take_offload(&mut self, header: [u8; NET_HEADER_LEN], stats: &QueueStats) {
        let [flags, gso_type, ..] = header;
        if flags == 0 && gso_type == 0 {
            return;
        }
        let mut whole = [0; virtio::NET_HEADER_LEN];
        whole.iter_mut().zip(header).for_each(|(to, from)| *to = from);
        let request = NetHeader::decode(whole).request().ok_or(BadOffload::NotNegotiated);
        let set = request.and_then(|request| self.slots.set_offload(&request, self.offloads));
        if let Err(error) = set {
            tracing::debug!(%error, "a frame of the kernel's is dropped");
            stats.count_drops(DropReason::BadHeader, 1);
        }
    }
}

/// Where the kernel's net header goes: nowhere without offloads.
fn header_part(header: &mut [u8; NET_HEADER_LEN], offloads: Capabilities) -> &mut [u8] {
    if offloads.is_empty() { &mut [] } else { header }
}

/// Reads a frame, and returns its length without the header.
fn read_frame(fd: &OwnedFd, header: &mut [u8], slot: &mut [u8]) -> rustix::io::Result<usize> {
    if header.is_empty() {
        return rustix::io::read(fd, slot);
    }
    let header_len = header.len();
    let len = readv(fd, &mut [IoSliceMut::new(header), IoSliceMut::new(slot)])?;
    Ok(len.saturating_sub(header_len))
}

impl RxDriver for TapRx {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.slots.clear();
        if !self.state.is_alive() {
            return;
        }
        // Frames that are left out count too, so that a burst of them ends.
        for _ in 0..max.min(BURST) {
            if !self.receive_one(stats) {
                break;
            }
        }
    }

    fn batch(&self) -> &FrameBatch {
        self.slots.batch()
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        self.slots.batch_mut()
    }

    fn release(&mut self) {
        self.slots.clear();
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.waiter.as_fd())
    }

    fn arm(&mut self) -> bool {
        if !self.state.is_alive() {
            return true;
        }
        if !self.waiter.arm(&*self.fd) {
            return false;
        }
        if is_readable(&self.fd) {
            self.disarm();
            return false;
        }
        true
    }

    fn disarm(&mut self) {
        self.waiter.disarm(&*self.fd);
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

/// The transmit side: what the host receives from the interface.
#[derive(Debug)]
pub(super) struct TapTx {
    fd: Arc<OwnedFd>,
    state: Arc<LinkState>,
    /// What the kernel takes; frames have net headers if that is anything.
    offloads: Capabilities,
    /// For frames of too many pieces; empty until there is one.
    copy: Vec<u8>,
}

impl TapTx {
    pub(super) const fn new(
        fd: Arc<OwnedFd>,
        state: Arc<LinkState>,
        offloads: Capabilities,
    ) -> Self {
        Self { fd, state, offloads, copy: Vec::new() }
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let header = NetHeader::for_offload(frame.offload(), 0).encode();
        let header_len = if self.offloads.is_empty() { 0 } else { NET_HEADER_LEN };
        let header = header.get(..header_len).unwrap_or_default();
        if frame.body().len() < MAX_PIECES {
            return write_frame(self.fd.as_fd(), header, frame);
        }
        self.copy.resize(MAX_FRAME_LEN, 0);
        let len = frame.copy_to(&mut self.copy);
        let bytes = self.copy.get(..len).unwrap_or_default();
        writev(&self.fd, &[IoSlice::new(header), IoSlice::new(bytes)])?;
        Ok(())
    }

    /// Sends a frame; `None` when it found no room, otherwise why it was dropped, if it was.
    fn send(&mut self, frame: &Frame<'_>) -> Option<Result<(), DropReason>> {
        if frame.len() < ETHERNET_HEADER_LEN {
            return Some(Err(DropReason::TooShort));
        }
        loop {
            let Err(error) = self.write(frame) else { return Some(Ok(())) };
            return match Errno::from_io_error(&error) {
                Some(Errno::INTR) => continue,
                Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => None,
                // The interface is switched off.
                Some(Errno::IO) => Some(Err(DropReason::LinkDown)),
                // A peer took the frame's memory away.
                Some(Errno::FAULT) => Some(Err(DropReason::BadDescriptor)),
                Some(Errno::BADFD | Errno::NODEV) => {
                    self.state.lose();
                    Some(Err(DropReason::LinkDown))
                }
                _ => Some(Err(DropReason::DeviceError)),
            };
        }
    }
}

impl TxDriver for TapTx {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        let mut sent = Sent::NONE;
        if !self.state.is_alive() {
            return sent;
        }
        for frame in frames {
            match self.send(frame) {
                Some(Ok(())) => sent.add_sent(),
                Some(Err(reason)) => sent.add_dropped(stats, reason),
                None => break,
            }
        }
        sent
    }

    fn takes(&self) -> Capabilities {
        self.offloads
    }

    fn is_ready(&self) -> bool {
        self.state.is_alive()
    }
}
