//! The transmit side: frames are copied into chunks of our own, and the kernel is called once
//! per burst, if it wants to be.

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use ethdev::{DropReason, QueueStats, Sent, TxDriver};
use packet::frame::FrameReader;
use packet::{BURST, ETHERNET_HEADER_LEN, Frame};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::receive::CONTINUED;
use super::ring::{BrokenRing, Chunk, Consumer, Descriptor, Producer};
use super::umem::{CHUNK, Umem};
use crate::kernel::link::LinkState;

/// The most pieces of a frame that the kernel sends (`MAX_SKB_FRAGS`), less one.
const MAX_PIECES: usize = 16;

/// How often the kernel is called for a burst that it does not take at once.
const TRIES: u32 = 8;

/// The transmit side of a queue pair.
#[derive(Debug)]
pub(super) struct XdpTx {
    fd: Arc<OwnedFd>,
    umem: Arc<Umem>,
    state: Arc<LinkState>,
    tx: Producer<Descriptor>,
    completion: Consumer<Chunk>,
    /// Numbers of send chunks that are ours; the one used last is used next.
    free: Vec<u32>,
    /// Which chunks the kernel has. So none is free twice, whatever the kernel says.
    lent: Vec<bool>,
    max_len: usize,
    /// The kernel has not taken all that it was given.
    waiting: bool,
}

impl XdpTx {
    /// Takes over a socket's transmit rings.
    pub(super) fn new(
        fd: Arc<OwnedFd>,
        umem: Arc<Umem>,
        state: Arc<LinkState>,
        (tx, completion): (Producer<Descriptor>, Consumer<Chunk>),
        multi_buffer: bool,
    ) -> Self {
        let count = umem.count();
        Self {
            fd,
            umem,
            state,
            tx,
            completion,
            free: (0..count).rev().collect(),
            lent: vec![false; count as usize],
            max_len: if multi_buffer { MAX_PIECES * CHUNK } else { CHUNK },
            waiting: false,
        }
    }

    fn send_all(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Result<Sent, BrokenRing> {
        self.reclaim()?;
        let most = u32::try_from(BURST.max(MAX_PIECES)).unwrap_or(u32::MAX);
        let room = self.tx.free(most)?;
        let max_len = self.state.max_len().min(self.max_len);
        let (mut sent, mut used) = (Sent::NONE, 0);
        for frame in frames {
            let len = frame.len();
            if len < ETHERNET_HEADER_LEN {
                sent.add_dropped(stats, DropReason::TooShort);
            } else if len > max_len {
                sent.add_dropped(stats, DropReason::TooLong);
            } else if let Some(pieces) = self.put(frame, used, room) {
                used += pieces;
                sent.add_sent();
            } else {
                break;
            }
        }
        if used > 0 {
            self.tx.submit(used);
            self.wake();
        }
        Ok(sent)
    }

    /// Puts a frame into the ring, behind `used` entries of this burst, of which there may be
    /// `room`. Returns the number of its entries, or `None` if it finds no room.
    #[inline]
    fn put(&mut self, frame: &Frame<'_>, used: u32, room: u32) -> Option<u32> {
        let len = frame.len();
        if len > CHUNK {
            return self.put_pieces(frame, used, room);
        }
        if used >= room {
            return None;
        }
        let (address, to) = self.next_chunk()?;
        // SAFETY: the chunk is ours, so neither the kernel nor a frame uses it, and it has room
        // for CHUNK bytes, which the frame's length was just compared with.
        unsafe {
            if !frame.copy_first_to_ptr(to) {
                frame.copy_rest_to_ptr(to);
            }
        }
        let len = u32::try_from(len).unwrap_or(0);
        self.tx.write(used, Descriptor { address, len, options: 0 });
        Some(1)
    }

    #[cold]
    fn put_pieces(&mut self, frame: &Frame<'_>, used: u32, room: u32) -> Option<u32> {
        let count = u32::try_from(frame.len().div_ceil(CHUNK)).ok()?;
        if count > room.saturating_sub(used) || count as usize > self.free.len() {
            return None;
        }
        let (mut reader, mut left) = (FrameReader::new(frame), frame.len());
        for offset in 0..count {
            let (address, to) = self.next_chunk()?;
            let len = left.min(CHUNK);
            left -= len;
            // SAFETY: the chunk is ours and has room for CHUNK bytes.
            let copied = unsafe { reader.copy_next(to, len) };
            let len = u32::try_from(copied).unwrap_or(0);
            let options = if left > 0 { CONTINUED } else { 0 };
            self.tx.write(used + offset, Descriptor { address, len, options });
        }
        Some(count)
    }

    /// A chunk that is free, which the kernel has from now on.
    #[inline]
    fn next_chunk(&mut self) -> Option<(Chunk, NonNull<u8>)> {
        let chunk = self.free.pop()?;
        if let Some(lent) = self.lent.get_mut(chunk as usize) {
            *lent = true;
        }
        self.umem.send(chunk)
    }

    /// Takes back the chunks of frames that were sent.
    #[inline]
    fn reclaim(&mut self) -> Result<(), BrokenRing> {
        let count = self.completion.available(u32::MAX)?;
        if count == 0 {
            return Ok(());
        }
        for offset in 0..count {
            let chunk = self.umem.send_chunk(self.completion.read(offset));
            if let Some(chunk) = chunk
                && let Some(lent) = self.lent.get_mut(chunk as usize)
                && std::mem::take(lent)
            {
                // There is room for every chunk, so this does not allocate.
                self.free.push(chunk);
            }
        }
        self.completion.release(count);
        Ok(())
    }

    /// Has the kernel send what is in the ring, if it does not do so by itself.
    fn wake(&mut self) {
        self.waiting = false;
        if !self.tx.needs_wakeup() {
            return;
        }
        for _ in 0..TRIES {
            match send(&self.fd, &[], SendFlags::DONTWAIT) {
                // It sends so many frames per call, or has no room for them now.
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS) if self.tx.waiting() > 0 => {}
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
        self.waiting = true;
    }
}

impl TxDriver for XdpTx {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        if !self.state.is_alive() {
            return Sent::NONE;
        }
        if !self.state.is_up() {
            return Sent::all_dropped(frames.len(), stats, DropReason::LinkDown);
        }
        self.send_all(frames, stats).unwrap_or_else(|error| {
            self.state.end(&error.to_string());
            Sent::NONE
        })
    }

    fn is_ready(&self) -> bool {
        self.state.is_alive()
    }

    fn flush(&mut self) -> bool {
        if !self.waiting || !self.state.is_up() {
            return false;
        }
        self.wake();
        self.waiting
    }
}
