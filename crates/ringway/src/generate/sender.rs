//! Builds bursts of test frames and sends them.

use arrayvec::ArrayVec;
use ethdev::TxQueue;
use packet::{BURST, Frame};

use super::frame::Builder;
use super::size::SizeMix;

/// One thread's source of test frames: flows in turn, sizes in turn, sequence numbers per flow.
#[derive(Debug)]
pub struct Sender {
    builder: Builder,
    sizes: Vec<u16>,
    next_size: usize,
    /// Number of the first flow; the others follow.
    first_flow: u16,
    /// Next sequence number of each flow.
    flows: Vec<u32>,
    next_flow: usize,
    /// A burst of frames, `stride` bytes apart.
    buffer: Vec<u8>,
    stride: usize,
    lengths: ArrayVec<u16, BURST>,
    /// Frames of the burst that are sent already.
    done: usize,
    /// Frames built, and given to the device, since the start.
    built: u64,
    given: u64,
}

impl Sender {
    /// A sender of the flows `first_flow` and up, `flows` of them.
    pub fn new(builder: Builder, sizes: &SizeMix, first_flow: u16, flows: usize) -> Self {
        let stride = sizes.largest().next_multiple_of(64);
        Self {
            builder,
            sizes: sizes.sizes().to_vec(),
            next_size: 0,
            first_flow,
            flows: vec![0; flows.max(1)],
            next_flow: 0,
            buffer: vec![0; stride.saturating_mul(BURST)],
            stride,
            lengths: ArrayVec::new(),
            done: 0,
            built: 0,
            given: 0,
        }
    }

    /// Other frame sizes from the next burst on.
    pub fn set_sizes(&mut self, sizes: &SizeMix) {
        self.sizes = sizes.sizes().to_vec();
        self.next_size = 0;
        self.stride = self.stride.max(sizes.largest().next_multiple_of(64));
        self.buffer.resize(self.stride.saturating_mul(BURST), 0);
    }

    /// Whether all frames that were built have been given to the device.
    pub const fn is_idle(&self) -> bool {
        self.built == self.given
    }

    /// Frames built since the start.
    pub const fn built(&self) -> u64 {
        self.built
    }

    /// Frames that the device has taken since the start, or dropped for a counted reason.
    pub const fn given(&self) -> u64 {
        self.given
    }

    /// Builds up to `max` frames, one for each time that `due` yields: its time stamp. Does
    /// nothing while frames of the burst before wait for room.
    pub fn build(&mut self, max: u64, mut due: impl FnMut() -> Option<u64>) {
        if !self.is_idle() {
            return;
        }
        self.lengths.clear();
        self.done = 0;
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(BURST);
        for slot in self.buffer.chunks_exact_mut(self.stride).take(max) {
            let Some(time) = due() else { break };
            let length = self.sizes.get(self.next_size).copied().unwrap_or(64);
            let Some(frame) = slot.get_mut(..usize::from(length)) else { break };
            let Some(sequence) = self.flows.get_mut(self.next_flow) else { break };
            // At most MAX_FLOWS flows, so that the index fits into 16 bits.
            let index = u16::try_from(self.next_flow).unwrap_or_default();
            let flow = self.first_flow.wrapping_add(index);
            self.builder.write(frame, flow, *sequence, time);
            *sequence = sequence.wrapping_add(1);
            self.next_flow =
                if self.next_flow + 1 < self.flows.len() { self.next_flow + 1 } else { 0 };
            self.next_size =
                if self.next_size + 1 < self.sizes.len() { self.next_size + 1 } else { 0 };
            self.lengths.push(length);
            self.built += 1;
        }
    }

    /// Gives the frames that are built to the device, as many as it takes, and returns how many
    /// that were; the others wait for the next call.
    pub fn send(&mut self, queue: &mut TxQueue) -> usize {
        let slots = self.buffer.chunks_exact(self.stride).zip(&self.lengths).skip(self.done);
        let frames: ArrayVec<Frame<'_>, BURST> = slots
            .filter_map(|(slot, length)| slot.get(..usize::from(*length)))
            .map(Frame::from_bytes)
            .collect();
        if frames.is_empty() {
            return 0;
        }
        let taken = queue.tx_burst(&frames);
        self.done = self.done.saturating_add(taken);
        self.given += taken as u64;
        taken
    }
}
