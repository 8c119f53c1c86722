//! Builds bursts of test frames and sends them.

use std::ops::Range;

use arrayvec::ArrayVec;
use ethdev::TxQueue;
use packet::{BURST, Frame};

use crate::order::Order;
use crate::size::SizeMix;
use crate::template::Builder;

/// One thread's source of test frames: flows in turn, sizes in turn, sequence numbers per flow.
#[derive(Debug)]
pub struct Sender {
    builder: Builder,
    sizes: Vec<u16>,
    next_size: usize,
    order: Order,
    /// The places in the order that it sends, one after the other, round after round.
    places: Range<u32>,
    next_place: u32,
    /// Sequence number of all flows of the present round.
    round: u32,
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
    /// A sender of the flows that have one of `places` in `order`.
    pub fn new(builder: Builder, sizes: &SizeMix, order: Order, places: Range<u32>) -> Self {
        let mut sender = Self {
            builder,
            sizes: Vec::new(),
            next_size: 0,
            order,
            next_place: places.start,
            places,
            round: 0,
            buffer: Vec::new(),
            stride: 0,
            lengths: ArrayVec::new(),
            done: 0,
            built: 0,
            given: 0,
        };
        sender.set_sizes(sizes);
        sender
    }

    /// Other frame sizes from the next burst on.
    pub fn set_sizes(&mut self, sizes: &SizeMix) {
        self.sizes = sizes.sizes().to_vec();
        self.next_size = 0;
        let stride = sizes.largest().max(self.builder.least()).next_multiple_of(64);
        if stride <= self.stride {
            return;
        }
        // All zero but for the headers: the builder relies on it.
        self.stride = stride;
        self.buffer.clear();
        self.buffer.resize(stride.saturating_mul(BURST), 0);
        self.buffer.chunks_exact_mut(stride).for_each(|slot| self.builder.begin(slot));
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
            let flow = self.order.flow(self.next_place);
            self.builder.write(frame, flow, self.round, time);
            self.next_place = self.next_place.wrapping_add(1);
            if self.next_place >= self.places.end {
                self.next_place = self.places.start;
                self.round = self.round.wrapping_add(1);
            }
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
