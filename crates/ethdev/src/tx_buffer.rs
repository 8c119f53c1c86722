//! Buffered transmit: packets wait until there is a burst of them, or until they have waited
//! long enough.
//!
//! A network card would otherwise be told of every single packet, at the price of a write across
//! its bus. The price of waiting is up to the drain time as additional latency when there is little
//! traffic. A device that copies frames gets them at once: it costs no more (see
//! [`TxBufferOptions::direct`]).

use std::time::Duration;

use arrayvec::ArrayVec;
use eal::clock;
use packet::{BURST, Frame, Packet, PoolCache};

use crate::drop_reason::DropReason;
use crate::queue::{RxBurst, TxQueue};

/// How a [`TxBuffer`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxBufferOptions {
    /// How long a packet may wait for others; 100 µs unless told.
    pub drain: Duration,
    /// How often to try again at once when the device has no room, before packets are dropped; 0
    /// unless told. Each try costs what a burst costs, so there should be few.
    pub retries: u32,
    /// Receive bursts of this many frames and more are sent at once, if nothing waits, to a device
    /// that copies them straight from the receive ring: waiting costs a copy more.
    /// [`DIRECT`](Self::DIRECT) unless told; [`BURST`] for full bursts only.
    pub direct: usize,
}

impl TxBufferOptions {
    /// Every burst, however small. Measured between vhost-user ports
    /// (`benches/src/buffer_cost.rs`): of two frames at once each costs as much as by way of packets
    /// that wait, of four a quarter less, of 32 half; a single one costs a fifth more, but single
    /// frames come when there is time. And nobody waits: about a microsecond instead of 20 to 100
    /// from port to port.
    pub const DIRECT: usize = 1;
}

impl Default for TxBufferOptions {
    fn default() -> Self {
        Self { drain: Duration::from_micros(100), retries: 0, direct: Self::DIRECT }
    }
}

/// A transmit queue with up to [`BURST`] packets that wait to be sent.
///
/// It belongs to one worker, as its queue does. Times are those of [`eal::clock::now`], which
/// the worker reads once per round. Packets that the device does not take wait for the next
/// attempt; when there is no room for more of them, all are dropped and counted on the queue as
/// [`DropReason::RingFull`] or [`DropReason::LinkDown`]. When it is dropped itself, it sends what
/// waits.
#[derive(Debug)]
pub struct TxBuffer {
    queue: TxQueue,
    packets: ArrayVec<Packet, BURST>,
    /// When the packet that waits longest came.
    since: u64,
    /// When something was sent last, as far as that is known.
    sent: u64,
    /// Something was sent since the device was flushed.
    unfinished: bool,
    /// The device has had no room for what waits.
    refused: bool,
    /// The drain time in cycles.
    drain: u64,
    retries: u32,
    direct: usize,
}

impl TxBuffer {
    /// An empty buffer in front of `queue`. The first one in a process may take 20 ms to
    /// calibrate the clock.
    #[must_use]
    pub fn new(queue: TxQueue, options: TxBufferOptions) -> Self {
        let TxBufferOptions { drain, retries, direct } = options;
        let (packets, drain) = (ArrayVec::new(), clock::cycles(drain));
        let (since, sent, unfinished, refused) = (0, 0, false, false);
        Self { queue, packets, since, sent, unfinished, refused, drain, retries, direct }
    }

    /// Takes a packet and sends all that wait if that makes a burst. Buffers of packets that are
    /// done with go to `cache`.
    #[inline]
    pub fn push(&mut self, packet: Packet, now: u64, cache: &mut PoolCache) {
        if self.packets.is_empty() {
            self.since = now;
        }
        // There is room: a full buffer is sent at once.
        if let Err(error) = self.packets.try_push(packet) {
            self.queue.drop_frames(DropReason::NoBuffer, 1);
            cache.free(error.element());
        }
        if self.packets.is_full() {
            self.send(now, cache);
        }
    }

    /// As [`push`](Self::push), with a copy of a frame that still lies in a receive ring. When
    /// the pool has no buffer for it, it is counted as dropped ([`DropReason::NoBuffer`]).
    #[inline]
    pub fn push_frame(&mut self, frame: &Frame<'_>, now: u64, cache: &mut PoolCache) {
        match cache.copy_frame(frame) {
            Some(packet) => self.push(packet, now, cache),
            None => self.queue.drop_frames(DropReason::NoBuffer, 1),
        }
    }

    /// As [`push_frame`](Self::push_frame), for all frames of a receive burst; without a copy if
    /// nothing waits and they need not wait either (see [`push_burst`](Self::push_burst)).
    #[inline]
    pub fn push_frames(&mut self, frames: &[Frame<'_>], now: u64, cache: &mut PoolCache) {
        if self.packets.is_empty() && self.is_worth_a_burst(frames.len(), now) {
            self.send_frames(frames, now, cache);
        } else {
            frames.iter().for_each(|frame| self.push_frame(frame, now, cache));
        }
    }

    /// Takes a receive burst, in the way that copies least: as packets, which is without a copy
    /// from one device that uses packet buffers to another; or, to a device that copies, straight
    /// from the receive ring.
    ///
    /// Of what has to wait, the first after a pause of the drain time does not: so a single packet is
    /// never delayed, and there are no more small bursts than two per drain time.
    #[inline]
    pub fn push_burst(&mut self, burst: RxBurst<'_>, now: u64, cache: &mut PoolCache) {
        let count = burst.frames().len();
        if count == 0 {
            return;
        }
        if count > self.packets.remaining_capacity() {
            self.send(now, cache);
        }
        let is_first = self.packets.is_empty();
        if is_first {
            if !self.queue.keeps_packets() && self.is_worth_a_burst(count, now) {
                self.send_frames(burst.frames(), now, cache);
                return;
            }
            self.since = now;
        }
        burst.into_packets(&mut self.packets, cache);
        if self.packets.is_full() || is_first && self.has_paused(now) {
            self.send(now, cache);
        }
    }

    /// Whether to send `count` frames at once to a device that copies, while nothing waits.
    #[inline]
    const fn is_worth_a_burst(&self, count: usize, now: u64) -> bool {
        count >= self.direct || self.has_paused(now)
    }

    /// Sends frames from where they lie; those that find no room wait as packets.
    #[inline]
    fn send_frames(&mut self, frames: &[Frame<'_>], now: u64, cache: &mut PoolCache) {
        let sent = self.queue.tx_burst(frames);
        self.note_sent(now);
        frames.iter().skip(sent).for_each(|frame| self.push_frame(frame, now, cache));
    }

    /// Sends what waits if the drain time is over, and lets the device finish what it has once
    /// nothing was sent for as long ([`TxQueue::flush`]). To be called in every round of the
    /// worker's loop; it costs a comparison while nothing is due.
    #[inline]
    pub fn drain(&mut self, now: u64, cache: &mut PoolCache) {
        if !self.packets.is_empty() {
            if now.wrapping_sub(self.since) >= self.drain {
                self.send(now, cache);
            }
        } else if self.unfinished && self.has_paused(now) {
            self.unfinished = self.queue.flush();
            if self.unfinished {
                // The device has not taken all: once more after another drain time.
                self.sent = now;
            }
        }
    }

    /// Sends what waits although the drain time is not over, for a worker whose round over its
    /// receive queues has found nothing: then there is nothing to wait for, and time to tell the
    /// device. What the device has had no room for goes on waiting until
    /// [`drain`](Self::drain) tries again.
    #[inline]
    pub fn send_waiting(&mut self, now: u64, cache: &mut PoolCache) {
        if !self.packets.is_empty() && !self.refused {
            self.send(now, cache);
        }
    }

    /// Sends what waits, now.
    pub fn flush(&mut self, cache: &mut PoolCache) {
        if !self.packets.is_empty() {
            self.send(self.since, cache);
            self.give_up(cache);
        }
    }

    /// Whether nothing was sent for the drain time.
    #[inline]
    const fn has_paused(&self, now: u64) -> bool {
        now.wrapping_sub(self.sent) >= self.drain
    }

    #[inline]
    const fn note_sent(&mut self, now: u64) {
        self.sent = now;
        self.unfinished = true;
    }

    fn send(&mut self, now: u64, cache: &mut PoolCache) {
        self.note_sent(now);
        self.refused = false;
        for _ in 0..=self.retries {
            self.queue.tx_packets(&mut self.packets, cache);
            if self.packets.is_empty() {
                return;
            }
        }
        if self.packets.is_full() {
            return self.give_up(cache);
        }
        // They go on waiting: whatever holds the device up may be over by then.
        self.since = now;
        self.refused = true;
    }

    /// Drops what waits.
    fn give_up(&mut self, cache: &mut PoolCache) {
        if !self.packets.is_empty() {
            self.count_unsent(self.packets.len());
            cache.free_burst(self.packets.drain(..));
        }
    }

    /// Number of packets that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.packets.len()
    }

    /// When [`drain`](Self::drain) will have something to do; `None` when nothing waits. A worker
    /// that goes to sleep must not sleep longer.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        if !self.packets.is_empty() {
            return Some(self.since.wrapping_add(self.drain));
        }
        self.unfinished.then(|| self.sent.wrapping_add(self.drain))
    }

    /// The queue, for its counters and whether it is ready.
    #[must_use]
    pub const fn queue(&self) -> &TxQueue {
        &self.queue
    }

    /// The queue, to send something at once, ahead of what waits, or to
    /// [`flush`](TxQueue::flush) the device.
    pub const fn queue_mut(&mut self) -> &mut TxQueue {
        &mut self.queue
    }

    fn count_unsent(&self, count: usize) {
        let reason =
            if self.queue.is_ready() { DropReason::RingFull } else { DropReason::LinkDown };
        self.queue.drop_frames(reason, count);
    }
}

impl Drop for TxBuffer {
    fn drop(&mut self) {
        // There is no cache here, so these go out by copy.
        let frames: ArrayVec<Frame<'_>, BURST> =
            self.packets.iter().map(Packet::as_frame).collect();
        let sent = self.queue.tx_burst(&frames);
        if sent < frames.len() {
            self.count_unsent(frames.len() - sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use packet::{FrameBatch, Pool};
    use proptest::prelude::*;

    use super::*;
    use crate::queue::{RxDriver, RxQueue, Sent, TxDriver};
    use crate::stats::QueueStats;

    /// A device that takes `room` frames per burst and remembers their first bytes.
    #[derive(Clone, Default)]
    struct Device(Arc<Mutex<Memory>>);

    #[derive(Default)]
    struct Memory {
        sent: Vec<u8>,
        bursts: usize,
        room: usize,
        down: bool,
        flushes: usize,
        unfinished: bool,
    }

    impl TxDriver for Device {
        fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
            let mut memory = self.0.lock().unwrap();
            let count = frames.len().min(memory.room);
            memory.sent.extend(frames.iter().take(count).map(|frame| frame.head()[0]));
            memory.bursts += 1;
            Sent::first(count)
        }

        fn is_ready(&self) -> bool {
            !self.0.lock().unwrap().down
        }

        fn flush(&mut self) -> bool {
            let mut memory = self.0.lock().unwrap();
            memory.flushes += 1;
            memory.unfinished
        }
    }

    impl Device {
        fn with_room(room: usize) -> Self {
            let device = Self::default();
            device.0.lock().unwrap().room = room;
            device
        }

        fn buffer(&self, options: TxBufferOptions) -> TxBuffer {
            TxBuffer::new(TxQueue::new(Box::new(self.clone()), Arc::default()), options)
        }

        fn sent(&self) -> usize {
            self.0.lock().unwrap().sent.len()
        }

        fn bursts(&self) -> usize {
            self.0.lock().unwrap().bursts
        }

        fn flushes(&self) -> usize {
            self.0.lock().unwrap().flushes
        }
    }

    fn pool() -> Pool {
        Pool::new("test", 128, 2048).unwrap()
    }

    fn frame(bytes: &[u8; 60]) -> Frame<'_> {
        Frame::from_bytes(bytes)
    }

    #[test]
    fn a_burst_goes_at_once_and_less_waits_for_the_drain_time() {
        let (pool, device) = (pool(), Device::with_room(BURST));
        let mut cache = pool.cache();
        let mut buffer = device.buffer(TxBufferOptions::default());
        let time = clock::cycles(Duration::from_micros(100));
        let start = u64::MAX - time / 2;
        for count in 1..=40_u64 {
            buffer.push_frame(&frame(&[1; 60]), start.wrapping_add(count), &mut cache);
        }
        assert_eq!((device.bursts(), device.sent(), buffer.waiting()), (1, BURST, 8));
        // The first of those that wait was number 33; the clock wraps around meanwhile.
        let due = start.wrapping_add(33).wrapping_add(time);
        assert_eq!(buffer.due(), Some(due));
        buffer.drain(due.wrapping_sub(1), &mut cache);
        assert_eq!(device.bursts(), 1);
        buffer.drain(due, &mut cache);
        assert_eq!((device.bursts(), device.sent(), buffer.waiting()), (2, 40, 0));
        assert_eq!(device.flushes(), 0);
        assert_eq!(buffer.due(), Some(due.wrapping_add(time)));
        buffer.drain(due.wrapping_add(time), &mut cache);
        assert_eq!((device.bursts(), device.flushes()), (2, 1), "there is nothing to send");
        assert_eq!(buffer.due(), None);
        assert_eq!(buffer.queue().stats().snapshot().packets, 40);
        drop(cache);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn what_finds_no_room_waits_until_there_is_no_room_for_it_either() {
        let (pool, device) = (pool(), Device::with_room(0));
        let mut cache = pool.cache();
        let mut buffer = device.buffer(TxBufferOptions::default());
        let send = |buffer: &mut TxBuffer, cache: &mut PoolCache| {
            (0..BURST).for_each(|_| buffer.push_frame(&frame(&[1; 60]), 0, cache));
        };
        send(&mut buffer, &mut cache);
        device.0.lock().unwrap().down = true;
        send(&mut buffer, &mut cache);
        let stats = buffer.queue().stats().snapshot();
        assert_eq!((stats.packets, stats.dropped()), (0, 64));
        assert_eq!(stats.dropped_for(DropReason::RingFull), 32);
        assert_eq!(stats.dropped_for(DropReason::LinkDown), 32);
        assert_eq!((device.bursts(), buffer.waiting()), (2, 0));

        // A device that takes some of them each time gets all in the end.
        let device = Device::with_room(10);
        let mut buffer = device.buffer(TxBufferOptions::default());
        buffer.drain = 100;
        send(&mut buffer, &mut cache);
        for (now, sent, waiting) in [(99, 10, 22), (100, 20, 12), (199, 20, 12), (200, 30, 2)] {
            buffer.drain(now, &mut cache);
            assert_eq!((device.sent(), buffer.waiting()), (sent, waiting), "at {now}");
        }
        device.0.lock().unwrap().room = 1;
        buffer.flush(&mut cache);
        let stats = buffer.queue().stats().snapshot();
        assert_eq!((stats.packets, stats.dropped(), buffer.waiting()), (31, 1, 0));

        let device = Device::with_room(10);
        let mut buffer = device.buffer(TxBufferOptions { retries: 2, ..Default::default() });
        send(&mut buffer, &mut cache);
        let stats = buffer.queue().stats().snapshot();
        assert_eq!((stats.packets, buffer.waiting(), device.bursts()), (30, 2, 3));
        drop(buffer);
        drop(cache);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn a_full_burst_needs_no_buffers_while_nothing_waits() {
        let (pool, device) = (pool(), Device::with_room(30));
        let mut cache = pool.cache();
        let mut buffer = device.buffer(TxBufferOptions::default());
        buffer.push_frames(&[frame(&[1; 60]); BURST], 0, &mut cache);
        assert_eq!((device.bursts(), device.sent(), buffer.waiting()), (1, 30, 2));
        buffer.push_frames(&[frame(&[2; 60]); BURST], 0, &mut cache);
        assert_eq!(buffer.waiting(), 4, "30 of them filled up the burst, of which 2 stayed");
        assert_eq!(device.0.lock().unwrap().sent[30..32], [1, 1], "order is kept");
    }

    /// Receives bursts of as many frames as it is asked for.
    struct Source(FrameBatch);

    impl RxDriver for Source {
        fn receive(&mut self, max: usize, _stats: &QueueStats) {
            self.0.clear();
            (0..max).for_each(|_| assert!(self.0.push_copy(&[1; 60])));
        }

        fn batch(&self) -> &FrameBatch {
            &self.0
        }

        fn batch_mut(&mut self) -> &mut FrameBatch {
            &mut self.0
        }

        fn release(&mut self) {
            self.0.clear();
        }
    }

    /// A source, and a buffer that has sent something at time 0 and drains after 100 cycles.
    fn source_and_buffer(device: &Device) -> (RxQueue, TxBuffer) {
        let rx = RxQueue::new(Box::new(Source(FrameBatch::with_segments(0))), Arc::default());
        let mut buffer = device.buffer(TxBufferOptions { direct: 4, ..Default::default() });
        buffer.drain = 100;
        (rx, buffer)
    }

    #[test]
    fn small_bursts_wait_but_the_first_one_after_a_pause() {
        let (pool, device) = (pool(), Device::with_room(BURST));
        let mut cache = pool.cache();
        let (mut rx, mut buffer) = source_and_buffer(&device);
        // Times, sizes of bursts, and what was sent and waits afterwards.
        for (now, count, sent, waiting) in [
            (99, 3, 0, 3),
            (100, 1, 0, 4),
            (198, 0, 0, 4),
            (199, 0, 4, 0),
            (298, 1, 4, 1),
            (398, 0, 5, 0),
            (498, 2, 7, 0),
            (499, 2, 7, 2),
            (500, 4, 7, 6),
            (599, 0, 13, 0),
            (600, 4, 17, 0),
            (601, 1, 17, 1),
        ] {
            buffer.push_burst(rx.rx_burst(count), now, &mut cache);
            buffer.drain(now, &mut cache);
            assert_eq!((device.sent(), buffer.waiting()), (sent, waiting), "at {now}");
        }
        buffer.push_burst(rx.rx_burst(BURST), 602, &mut cache);
        assert_eq!((device.sent(), buffer.waiting()), (18 + BURST, 0), "one, then a burst");
        drop(cache);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn a_worker_with_nothing_to_do_sends_what_waits_once() {
        let (pool, device) = (pool(), Device::with_room(3));
        let mut cache = pool.cache();
        let mut buffer = device.buffer(TxBufferOptions::default());
        buffer.drain = 100;
        buffer.send_waiting(1000, &mut cache);
        (0..5).for_each(|_| buffer.push_frame(&frame(&[1; 60]), 1000, &mut cache));
        buffer.send_waiting(1001, &mut cache);
        assert_eq!((device.bursts(), device.sent(), buffer.waiting()), (1, 3, 2));
        // What it had no room for is not tried again and again.
        buffer.send_waiting(1002, &mut cache);
        buffer.drain(1100, &mut cache);
        assert_eq!((device.bursts(), buffer.waiting()), (1, 2));
        buffer.drain(1101, &mut cache);
        assert_eq!((device.bursts(), device.sent(), buffer.waiting()), (2, 5, 0));
        buffer.push_frame(&frame(&[1; 60]), 1102, &mut cache);
        buffer.send_waiting(1102, &mut cache);
        assert_eq!((device.sent(), buffer.due()), (6, Some(1202)), "only the flush is left");
        drop(cache);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn the_device_is_flushed_once_after_a_pause() {
        let (pool, device) = (pool(), Device::with_room(BURST));
        let mut cache = pool.cache();
        let (mut rx, mut buffer) = source_and_buffer(&device);
        for (now, count, flushes) in [(5, 8, 0), (90, 8, 0), (189, 0, 0), (190, 0, 1), (400, 0, 1)]
        {
            buffer.push_burst(rx.rx_burst(count), now, &mut cache);
            buffer.drain(now, &mut cache);
            assert_eq!(device.flushes(), flushes, "at {now}");
        }
    }

    #[test]
    fn a_device_that_has_not_taken_all_is_flushed_again() {
        let (pool, device) = (pool(), Device::with_room(BURST));
        let mut cache = pool.cache();
        let (mut rx, mut buffer) = source_and_buffer(&device);
        buffer.push_burst(rx.rx_burst(BURST), 5, &mut cache);
        device.0.lock().unwrap().unfinished = true;
        for (now, flushes, due) in [(105, 1, 205), (204, 1, 205), (205, 2, 305)] {
            buffer.drain(now, &mut cache);
            assert_eq!((device.flushes(), buffer.due()), (flushes, Some(due)), "at {now}");
        }
        device.0.lock().unwrap().unfinished = false;
        buffer.drain(305, &mut cache);
        assert_eq!((device.flushes(), buffer.due()), (3, None));
    }

    #[test]
    fn an_exhausted_pool_drops_and_a_dropped_buffer_sends() {
        let (pool, device) = (pool(), Device::with_room(BURST));
        let mut cache = pool.cache();
        let mut buffer = device.buffer(TxBufferOptions::default());
        buffer.push_frame(&frame(&[1; 60]), 0, &mut cache);
        let hoard: Vec<Packet> = std::iter::from_fn(|| cache.alloc()).collect();
        buffer.push_frame(&frame(&[1; 60]), 0, &mut cache);
        let stats = Arc::clone(buffer.queue().stats());
        assert_eq!(stats.snapshot().dropped_for(DropReason::NoBuffer), 1);
        drop(buffer);
        assert_eq!((device.sent(), stats.snapshot().packets), (1, 1));
        drop((hoard, cache));
        assert_eq!(pool.available(), pool.capacity());
    }

    proptest! {
        #[test]
        fn every_packet_is_sent_in_order_or_counted(
            steps in prop::collection::vec((1..40_usize, 0..40_usize, 0..100_u64), 0..40),
            retries in 0..3_u32,
            direct in 1..=BURST + 1,
        ) {
            let (pool, device) = (pool(), Device::with_room(0));
            let mut cache = pool.cache();
            let mut buffer = device.buffer(TxBufferOptions { drain: Duration::from_nanos(50), retries, direct });
            let (mut total, mut now) = (0_u64, 0);
            for (count, room, time) in steps {
                device.0.lock().unwrap().room = room;
                now += time;
                let bytes: Vec<[u8; 60]> = (0..count)
                    .map(|index| [u8::try_from((total + index as u64) % 251).unwrap(); 60])
                    .collect();
                let frames: Vec<Frame<'_>> = bytes.iter().map(frame).collect();
                total += count as u64;
                buffer.push_frames(&frames, now, &mut cache);
                buffer.drain(now, &mut cache);
                prop_assert!(buffer.waiting() < BURST);
            }
            buffer.flush(&mut cache);
            let stats = buffer.queue().stats().snapshot();
            prop_assert_eq!(stats.packets + stats.dropped(), total);
            prop_assert_eq!(stats.packets, device.sent() as u64);
            // What was sent is a part of the sequence 0, 1, .. 250, 0, .. in the same order:
            // steps between neighbours add up to less than there were packets.
            let sent = &device.0.lock().unwrap().sent;
            let steps: u64 =
                sent.windows(2).map(|pair| (u64::from(pair[1]) + 251 - u64::from(pair[0])) % 251).sum();
            prop_assert!(sent.is_empty() || steps < total);
            drop(cache);
            prop_assert_eq!(pool.available(), pool.capacity());
        }
    }
}
