//! One worker's way to send to a port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arrayvec::ArrayVec;
use ethdev::{DropReason, SharedTxQueue, TxQueue};
use packet::{BURST, Burst, EditRoom, Edited, Frame, Packet, PoolCache};

use crate::header;
use crate::marks::{Marks, all_of, bits, neighbours};
use crate::owners::Watch;
use crate::share::Share;

/// What one worker needs to send to one port: its handles of the port's transmit queues.
#[derive(Debug)]
pub struct Output {
    queues: Vec<TxQueue>,
    /// Which of them are in use, of those that were ready when last looked at.
    share: Share,
    /// When that was, and for how long it holds, in clock cycles.
    checked: u64,
    recheck: u64,
    /// Who is told about queues that come and go.
    watch: Watch,
    /// The port's MTU, in bytes.
    mtu: Arc<AtomicU32>,
    /// How often to try again although the port takes nothing.
    retries: u32,
    /// The frames of the burst at hand that go to this port.
    pub(crate) marks: Marks,
    /// Whether something was sent since the last flush, and whether that was noted.
    sent: bool,
    noted: bool,
}

impl Output {
    /// An output of worker `worker`, one of `workers`, which looks for ready queues again after `recheck` cycles.
    pub fn new(
        queues: Vec<TxQueue>,
        (worker, workers): (usize, usize),
        recheck: u64,
        mtu: Arc<AtomicU32>,
        retries: u32,
    ) -> Self {
        Self {
            share: share_of(&queues, (worker, workers)),
            queues,
            checked: 0,
            recheck,
            watch: Watch::Nobody,
            mtu,
            retries,
            marks: Marks::default(),
            sent: false,
            noted: false,
        }
    }

    /// Changes how often to try again although the port takes nothing.
    pub const fn set_retries(&mut self, retries: u32) {
        self.retries = retries;
    }

    /// Uses other queues of the same port from now on, as worker `worker` of `workers` who use
    /// them. The queues so far are dropped.
    pub fn set_queues(
        &mut self,
        queues: Vec<TxQueue>,
        (worker, workers): (usize, usize),
        watch: Watch,
    ) {
        // What was sent on the queues before must not wait.
        let pending = self.flush();
        self.share = share_of(&queues, (worker, workers));
        self.queues = queues;
        self.watch = watch;
        self.choose(0);
        (self.sent, self.noted) = (pending, pending);
    }

    /// Takes the place of an output whose device has not taken all: goes on to flush it.
    pub(crate) const fn take_over(&mut self) {
        (self.sent, self.noted) = (true, true);
    }

    /// Makes the queues that this worker has alone such that others can use them too, and returns
    /// handles of all its queues for them.
    pub fn share_queues(&mut self) -> Vec<SharedTxQueue> {
        let queues = std::mem::take(&mut self.queues);
        let shared: Vec<SharedTxQueue> = queues.into_iter().map(SharedTxQueue::new).collect();
        self.queues = shared.iter().cloned().map(TxQueue::from).collect();
        shared
    }

    /// Takes no lock any more for those queues that nobody else has.
    pub(crate) fn own_queues(&mut self) {
        let queues = std::mem::take(&mut self.queues);
        self.queues = queues.into_iter().map(TxQueue::alone_if_last).collect();
    }

    /// Whether it takes no lock for any of its queues.
    #[cfg(test)]
    pub(crate) fn is_alone(&self) -> bool {
        self.queues.iter().all(TxQueue::is_alone)
    }

    /// Whether the port takes frames, as far as is known at time `now`.
    #[inline]
    pub(crate) fn is_ready(&mut self, now: u64) -> bool {
        if self.share.first().is_none() || now.wrapping_sub(self.checked) >= self.recheck {
            self.choose(now);
        }
        self.share.first().is_some()
    }

    /// Chooses among the queues that are ready.
    #[inline(never)]
    fn choose(&mut self, now: u64) {
        self.checked = now;
        let queues = self.queues.iter().enumerate();
        let ready = || queues.clone().filter(|(_, queue)| queue.is_ready()).map(|(index, _)| index);
        self.watch.tell(ready());
        if !self.share.differs(ready()) {
            return;
        }
        let ready: Vec<usize> = ready().collect();
        // What was sent on the queues before must not wait.
        self.flush();
        self.share.choose(ready.into_iter());
    }

    /// Sends those frames of a burst that are marked, and forgets the marks; otherwise as
    /// [`send`](Self::send).
    #[inline]
    pub(crate) fn send_marked(&mut self, frames: Burst<'_, '_>, room: &mut EditRoom) -> bool {
        let mask = self.marks.frames();
        if self.marks.has_edits() {
            return self.send_edited(frames, mask, room);
        }
        self.marks.clear();
        self.send(frames, mask)
    }

    /// Sends the frames in `mask`, some of which are edited.
    #[inline(never)]
    fn send_edited(&mut self, frames: Burst<'_, '_>, mask: u32, room: &mut EditRoom) -> bool {
        let (mut editing, mut edited) = (room.begin(), Edited::default());
        self.marks.apply(frames, &mut editing, &mut edited);
        self.marks.clear();
        let edited = edited.known();
        let all = all_of(edited.len());
        let lost = mask.count_ones().saturating_sub(all.count_ones());
        if lost != 0 {
            self.drop_count(DropReason::TooLong, lost);
        }
        self.send(edited, all)
    }

    /// Sends those frames of a burst that `mask` tells. What cannot be sent is counted as dropped on the queue. Returns `false` if
    /// there is no queue to count on.
    #[inline]
    pub(crate) fn send(&mut self, frames: Burst<'_, '_>, mask: u32) -> bool {
        let Some(index) = self.share.first() else {
            return self.drop_count(DropReason::LinkDown, mask.count_ones());
        };
        if self.share.is_spread() {
            return self.send_spread(frames, mask);
        }
        self.send_on(index, frames, mask)
    }

    /// The same, each flow on one of the worker's queues.
    #[inline(never)]
    fn send_spread(&mut self, frames: Burst<'_, '_>, mask: u32) -> bool {
        self.share.divide(&frames, mask);
        for place in self.share.places() {
            let part = self.share.part(place);
            if part != 0
                && let Some(index) = self.share.queue(place)
            {
                self.send_on(index, frames, part);
            }
        }
        true
    }

    /// The same on queue `index`.
    #[inline]
    fn send_on(&mut self, index: usize, frames: Burst<'_, '_>, mask: u32) -> bool {
        let Some(queue) = self.queues.get_mut(index) else { return false };
        let mtu = self.mtu.load(Relaxed) as usize;
        let mask = if header::fits_untagged(frames.longest(), mtu) {
            mask
        } else {
            without_too_long(queue, &frames, mask, mtu)
        };
        if mask == 0 {
            return true;
        }
        self.sent = true;
        // Mostly the frames are neighbours, and nothing needs to be copied.
        match neighbours(frames, mask) {
            Some(frames) => transmit(queue, frames, self.retries),
            None => transmit(queue, Burst::new(&pick(&frames, mask)), self.retries),
        }
        true
    }

    /// Whether [`give`](Self::give) may have a burst, the longest frame of which has `longest`
    /// bytes, as packets: there is a device that sends them from where they lie.
    #[inline]
    pub(crate) fn takes_packets(&self, longest: usize) -> bool {
        let queue = self.share.first().and_then(|index| self.queues.get(index));
        header::fits_untagged(longest, self.mtu.load(Relaxed) as usize)
            && queue.is_some_and(TxQueue::keeps_packets)
    }

    /// Sends packets, and drops those for which there is no room.
    pub(crate) fn give(&mut self, packets: &mut ArrayVec<Packet, BURST>, cache: &mut PoolCache) {
        let queue = self.share.first().and_then(|index| self.queues.get_mut(index));
        let Some(queue) = queue else { return };
        self.sent = true;
        let mut tries = self.retries;
        loop {
            let sent = queue.tx_packets(packets, cache);
            if packets.is_empty() {
                return;
            }
            if sent == 0 {
                if tries == 0 {
                    break;
                }
                tries -= 1;
                std::hint::spin_loop();
            }
        }
        queue.drop_frames(DropReason::RingFull, packets.len());
        cache.free_burst(packets.drain(..));
    }

    /// Counts so many frames as dropped; returns `false` if there is no queue to count on.
    #[cold]
    pub(crate) fn drop_count(&self, reason: DropReason, count: u32) -> bool {
        let index = self.share.worker().checked_rem(self.queues.len());
        let Some(queue) = index.and_then(|index| self.queues.get(index)) else { return false };
        queue.drop_frames(reason, count as usize);
        true
    }

    /// How many frames its queues have dropped so far, by reason.
    pub(crate) fn drops(&self) -> [u64; DropReason::COUNT] {
        let mut sums = [0_u64; DropReason::COUNT];
        for queue in &self.queues {
            let counts = sums.iter_mut().zip(queue.stats().drops());
            counts.for_each(|(sum, count)| *sum = sum.wrapping_add(count));
        }
        sums
    }

    /// How many that are, for whatever reason.
    #[inline]
    pub(crate) fn dropped(&self) -> u64 {
        self.queues.iter().fold(0, |sum, queue| sum.wrapping_add(queue.stats().dropped()))
    }

    /// Whether something was sent since the last flush, and this is the first time to ask.
    #[inline]
    pub(crate) fn is_first_use(&mut self) -> bool {
        self.sent && !std::mem::replace(&mut self.noted, true)
    }

    /// Lets the device finish what was sent since the last call. Returns whether it has not taken
    /// all of that: then it counts as sent since this call.
    #[inline]
    pub(crate) fn flush(&mut self) -> bool {
        self.sent = self.sent && self.flush_queues();
        self.noted = self.sent;
        self.sent
    }

    fn flush_queues(&mut self) -> bool {
        let mut pending = false;
        for index in self.share.places().filter_map(|place| self.share.queue(place)) {
            pending |= self.queues.get_mut(index).is_some_and(TxQueue::flush);
        }
        pending
    }
}

/// The share of one worker of so many in `queues`, none of which is known to be ready yet.
fn share_of(queues: &[TxQueue], (worker, workers): (usize, usize)) -> Share {
    let spreads = !queues.iter().any(TxQueue::keeps_packets);
    Share::new(worker, workers, queues.len(), spreads)
}

/// Sends `frames`, and drops those for which there is no room.
#[inline]
fn transmit(queue: &mut TxQueue, frames: Burst<'_, '_>, retries: u32) {
    let sent = queue.tx_frames(frames);
    if sent < frames.len() {
        let rest = frames.part(sent, BURST);
        transmit_again(queue, rest, if sent == 0 { retries } else { retries.saturating_add(1) });
    }
}

/// Goes on while the device takes something, and `tries` times when it does not.
#[cold]
fn transmit_again(queue: &mut TxQueue, mut frames: Burst<'_, '_>, mut tries: u32) {
    while !frames.is_empty() && tries > 0 {
        let sent = queue.tx_frames(frames);
        if sent == 0 {
            tries -= 1;
            std::hint::spin_loop();
        }
        frames = frames.part(sent, BURST);
    }
    if !frames.is_empty() {
        queue.drop_frames(DropReason::RingFull, frames.len());
    }
}

/// The frames that `mask` tells.
pub(crate) fn pick<'f>(frames: &[Frame<'f>], mask: u32) -> ArrayVec<Frame<'f>, BURST> {
    // There are no more bits than room.
    bits(mask).filter_map(|bit| frames.get(bit as usize).copied()).take(BURST).collect()
}

/// Drops the frames whose payload is longer than the MTU, and returns which are left.
#[cold]
fn without_too_long(queue: &TxQueue, frames: &[Frame<'_>], mask: u32, mtu: usize) -> u32 {
    let mut left = mask;
    for (index, frame) in frames.iter().enumerate().take(BURST) {
        let bit = 1_u32 << index;
        if mask & bit != 0 && !header::fits(frame, mtu) {
            left &= !bit;
        }
    }
    if left != mask {
        queue.drop_frames(DropReason::TooLong, (mask ^ left).count_ones() as usize);
    }
    left
}
