//! Counters per queue.
//!
//! Each queue's counters are written by the one worker that owns the queue and read by anybody:
//! an update is a plain load and store, never an atomic read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering};

use packet::Frame;

use crate::queue::Sent;

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// The destination's ring had no free buffer.
    RingFull,
    /// The destination is not there: no peer, link down, or queue disabled.
    LinkDown,
    /// The frame is longer than the destination's MTU allows.
    TooLong,
    /// The frame does not fit into the buffers that the receiver offered for it.
    BufferTooSmall,
    /// The frame is shorter than an Ethernet header.
    TooShort,
    /// A descriptor is invalid: outside the shared memory, of the wrong direction, a chain
    /// without end.
    BadDescriptor,
    /// The virtio-net header asks for something that the frame does not allow.
    BadHeader,
    /// The queue is started but disabled: what it sends is discarded.
    QueueDisabled,
    /// The switch has no port for the frame: its destination is the port it came from.
    Hairpin,
    /// A reserved multicast address, which a bridge does not forward (IEEE 802.1Q table 8-1).
    ReservedMulticast,
    /// The source address is a group address or zero.
    BadSource,
    /// The port's receive filter refuses the frame.
    Filtered,
    /// No packet buffer was free.
    NoBuffer,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 13] = [
        Self::RingFull,
        Self::LinkDown,
        Self::TooLong,
        Self::BufferTooSmall,
        Self::TooShort,
        Self::BadDescriptor,
        Self::BadHeader,
        Self::QueueDisabled,
        Self::Hairpin,
        Self::ReservedMulticast,
        Self::BadSource,
        Self::Filtered,
        Self::NoBuffer,
    ];

    /// The reason's name in statistics: lower case with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::LinkDown => "link_down",
            Self::TooLong => "too_long",
            Self::BufferTooSmall => "buffer_too_small",
            Self::TooShort => "too_short",
            Self::BadDescriptor => "bad_descriptor",
            Self::BadHeader => "bad_header",
            Self::QueueDisabled => "queue_disabled",
            Self::Hairpin => "hairpin",
            Self::ReservedMulticast => "reserved_multicast",
            Self::BadSource => "bad_source",
            Self::Filtered => "filtered",
            Self::NoBuffer => "no_buffer",
        }
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the queue's owner may call it: two writers would lose counts (but
    /// nothing worse).
    #[inline]
    pub fn add(&self, count: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(count);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one queue.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct QueueStats {
    packets: Counter,
    bytes: Counter,
    drops: [Counter; DropReason::ALL.len()],
}

impl QueueStats {
    /// Counts received frames.
    #[inline]
    pub fn count_frames(&self, frames: &[Frame<'_>]) {
        let bytes: usize = frames.iter().map(Frame::len).sum();
        self.packets.add(frames.len() as u64);
        self.bytes.add(bytes as u64);
    }

    /// Counts the outcome of a transmit burst of `_frames`.
    #[inline]
    pub fn count_sent(&self, sent: &Sent, _frames: &[Frame<'_>]) {
        self.packets.add(sent.packets);
        self.bytes.add(sent.bytes);
    }

    /// Counts dropped frames.
    #[inline]
    pub fn count_drops(&self, reason: DropReason, count: usize) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.add(count as u64);
        }
    }

    /// A copy of the counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Stats {
        let mut stats =
            Stats { packets: self.packets.get(), bytes: self.bytes.get(), drops: [0; 13] };
        for (to, from) in stats.drops.iter_mut().zip(&self.drops) {
            *to = from.get();
        }
        stats
    }
}

/// Counters at one moment: of a queue, or summed over queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames, without frame check sequences.
    pub bytes: u64,
    /// Dropped frames, in the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
}

impl Stats {
    /// Frames dropped for all reasons together.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        for (to, from) in self.drops.iter_mut().zip(other.drops) {
            *to += from;
        }
    }
}
