//! The receive queues of a worker.
//!
//! A worker with hundreds of ports has frames from few of them. Those are polled in every round;
//! the others are *idle*, and while there is traffic they are polled in turn, each at least every
//! [`IDLE_PERIOD`], so that they cost little. A round without traffic polls all of them: then time
//! is plentiful.

use std::sync::Arc;
use std::time::Duration;

use eal::clock;
use ethdev::{QueueStats, RxBurst, RxQueue};
use packet::{BURST, Frame};

use crate::bridge::BridgeId;
use crate::datapath::Source;

/// Rounds in a row without frames after which a queue is idle.
const EMPTY_ROUNDS: u32 = 64;

/// For how long the first frame of an idle queue waits at most, give or take a round. Measured: a
/// poll of an idle queue takes about 140 cycles, most of them for cache misses, so that 256 of
/// them take 6 % of a core at 2.4 GHz.
const IDLE_PERIOD: Duration = Duration::from_micros(250);

/// One in so many bursts of a queue is timed, for its load: two looks at the clock cost some 40
/// cycles. Each queue counts its own, so that no order of queues is left out.
const TIMED: u32 = 32;

/// A receive queue and what a worker needs to know about it.
#[derive(Debug)]
pub struct Input {
    /// The bridge that the port belongs to.
    pub bridge: BridgeId,
    pub(crate) port: u16,
    /// The queue's number in its port.
    pub queue: usize,
    pub(crate) rx: RxQueue,
    stats: Arc<QueueStats>,
    /// Polls in a row that found nothing.
    empty: u32,
    /// Bursts until the next one that is timed.
    until_timed: u32,
}

impl Input {
    /// Queue `queue` of a port; whoever hands it to a worker says of which bridge.
    pub fn new(port: u16, queue: usize, rx: RxQueue) -> Self {
        let stats = Arc::clone(rx.stats());
        Self { bridge: BridgeId::DEFAULT, port, queue, rx, stats, empty: 0, until_timed: TIMED / 2 }
    }

    /// Hands a burst, at time `now`, to `take`; returns the number of frames.
    #[inline]
    fn poll(&mut self, now: u64, take: &mut impl FnMut(RxBurst<'_>, &Source<'_>)) -> usize {
        let starts = if self.until_timed == 0 { clock::now() } else { 0 };
        let burst = self.rx.rx_burst(BURST);
        let count = burst.frames().len();
        if count == 0 {
            self.empty = self.empty.saturating_add(1);
        } else {
            self.empty = 0;
            let Self { bridge, port, stats, .. } = self;
            take(burst, &Source::new((*bridge, *port), stats, now));
            match self.until_timed.checked_sub(1) {
                Some(left) => self.until_timed = left,
                None => self.count_time(starts),
            }
        }
        count
    }

    /// A burst began at `starts`, and stands for those that are not timed.
    #[cold]
    fn count_time(&mut self, starts: u64) {
        let cycles = clock::now().saturating_sub(starts);
        self.stats.count_cycles(cycles.saturating_mul(TIMED.into()));
        self.until_timed = TIMED - 1;
    }
}

/// All receive queues of a worker.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The busy ones come first.
    all: Vec<Input>,
    busy: usize,
    /// The idle one whose turn is next.
    next_idle: usize,
    /// [`IDLE_PERIOD`] in clock cycles.
    period: u64,
    /// When idle queues were polled last.
    last: u64,
    /// Cycles that have passed, times idle queues: a poll is due for each `period` of it.
    owed: u64,
}

impl Inputs {
    /// No queues; the clock has `hz` cycles per second.
    pub(crate) fn new(hz: u64) -> Self {
        let periods = 1_000_000 / u64::try_from(IDLE_PERIOD.as_micros()).unwrap_or(1).max(1);
        let period = (hz / periods.max(1)).max(1);
        Self { all: Vec::new(), busy: 0, next_idle: 0, period, last: 0, owed: 0 }
    }

    pub(crate) fn push(&mut self, input: Input) {
        self.all.push(input);
    }

    /// Takes the queues of `port` out.
    pub(crate) fn take(&mut self, port: u16) -> Vec<Input> {
        self.busy = 0;
        self.all.extract_if(.., |input| input.port == port).collect()
    }

    /// The bridge that `port` belongs to, if it is polled here.
    pub(crate) fn home(&self, port: u16) -> Option<BridgeId> {
        self.all.iter().find(|input| input.port == port).map(|input| input.bridge)
    }

    /// Counts frames as received at `queue` of `port` and hands their source to `take`; returns whether
    /// that is polled here.
    pub(crate) fn receive(
        &mut self,
        (port, queue): (u16, usize),
        frames: &[Frame<'_>],
        now: u64,
        take: impl FnOnce(&Source<'_>),
    ) -> bool {
        let is_it = |input: &&Input| (input.port, input.queue) == (port, queue);
        let Some(input) = self.all.iter().find(is_it) else { return false };
        let Input { bridge, port, stats, .. } = input;
        stats.count_frames(frames);
        take(&Source::new((*bridge, *port), stats, now));
        true
    }

    /// All queues, in no particular order.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [Input] {
        &mut self.all
    }

    /// Polls each busy queue and those of the idle ones that are due, all of them if the busy ones
    /// have nothing; hands what comes to `take`. `now` is the time in clock cycles. Returns the
    /// number of frames.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        now: u64,
        mut take: impl FnMut(RxBurst<'_>, &Source<'_>),
    ) -> usize {
        let mut packets = 0;
        let mut index = 0;
        while index < self.busy {
            let Some(input) = self.all.get_mut(index) else { break };
            packets += input.poll(now, &mut take);
            if input.empty >= EMPTY_ROUNDS {
                self.busy -= 1;
                self.all.swap(index, self.busy);
            } else {
                index += 1;
            }
        }
        let idle = self.all.len().saturating_sub(self.busy);
        let count = if packets == 0 { idle } else { self.due(now, idle) };
        self.last = now;
        for _ in 0..count {
            packets += self.poll_idle(now, &mut take);
        }
        packets
    }

    /// How many of the `idle` queues are due to be polled: one at least, so that few of them have
    /// their turn soon.
    #[inline]
    fn due(&mut self, now: u64, idle: usize) -> usize {
        let elapsed = now.saturating_sub(self.last).min(self.period);
        self.owed = self.owed.saturating_add(elapsed.saturating_mul(idle as u64));
        if self.owed < self.period {
            return idle.min(1);
        }
        let due = self.owed / self.period;
        self.owed %= self.period;
        usize::try_from(due).unwrap_or(idle).min(idle)
    }

    /// Polls the next idle queue.
    fn poll_idle(&mut self, now: u64, take: &mut impl FnMut(RxBurst<'_>, &Source<'_>)) -> usize {
        if self.next_idle < self.busy || self.next_idle >= self.all.len() {
            self.next_idle = self.busy;
        }
        let Some(input) = self.all.get_mut(self.next_idle) else { return 0 };
        let packets = input.poll(now, take);
        if packets > 0 {
            self.all.swap(self.next_idle, self.busy);
            self.busy += 1;
        }
        self.next_idle += 1;
        packets
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use ethdev::RxDriver;
    use packet::FrameBatch;

    use super::*;

    const HZ: u64 = 2_000_000_000;

    /// Has as many frames as it was told, and counts how often it is asked.
    struct Fake {
        waiting: Arc<AtomicUsize>,
        polls: Arc<AtomicUsize>,
        batch: FrameBatch,
    }

    impl RxDriver for Fake {
        fn receive(&mut self, _max: usize, _stats: &QueueStats) {
            self.batch.clear();
            self.polls.fetch_add(1, Relaxed);
            if self.waiting.load(Relaxed) > 0 {
                self.waiting.fetch_sub(1, Relaxed);
                assert!(self.batch.push_copy(&[0; 60]));
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
        }
    }

    struct Bench {
        inputs: Inputs,
        now: u64,
        waiting: Vec<Arc<AtomicUsize>>,
        polls: Vec<Arc<AtomicUsize>>,
    }

    impl Bench {
        fn new(ports: u16) -> Self {
            let mut bench =
                Self { inputs: Inputs::new(HZ), now: 0, waiting: Vec::new(), polls: Vec::new() };
            for port in 0..ports {
                let (waiting, polls) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
                let fake = Fake {
                    waiting: Arc::clone(&waiting),
                    polls: Arc::clone(&polls),
                    batch: FrameBatch::with_segments(0),
                };
                let rx = RxQueue::new(Box::new(fake), Arc::default());
                bench.inputs.push(Input::new(port, 0, rx));
                bench.waiting.push(waiting);
                bench.polls.push(polls);
            }
            bench
        }

        /// One round of 16 microseconds, in which two of 32 idle queues are due; which ports
        /// had frames.
        fn round(&mut self) -> Vec<u16> {
            let mut seen = Vec::new();
            self.now += HZ / 64_000;
            let packets = self.inputs.poll(self.now, |_, source| seen.push(source.port));
            assert_eq!(packets, seen.len());
            seen
        }

        fn polls(&self, port: usize) -> usize {
            self.polls[port].swap(0, Relaxed)
        }
    }

    #[test]
    fn a_round_without_traffic_polls_every_queue() {
        let mut bench = Bench::new(40);
        for _ in 0..100 {
            assert!(bench.round().is_empty());
        }
        assert!((0..40).all(|port| bench.polls(port) == 100));
    }

    #[test]
    fn idle_queues_are_polled_in_turn_while_there_is_traffic() {
        let mut bench = Bench::new(33);
        bench.waiting[7].store(usize::MAX, Relaxed);
        assert_eq!(bench.round(), [7]);
        (0..33).for_each(|port| _ = bench.polls(port));
        for _ in 0..160 {
            assert_eq!(bench.round(), [7]);
        }
        assert_eq!(bench.polls(7), 160);
        // 32 idle queues, two in each round.
        assert!((0..33).filter(|port| *port != 7).all(|port| bench.polls(port) == 10));
    }

    #[test]
    fn a_queue_that_wakes_up_is_served_within_a_turn_and_stays() {
        let mut bench = Bench::new(33);
        bench.waiting[7].store(usize::MAX, Relaxed);
        bench.round();
        for port in [0, 32, 20] {
            bench.waiting[port].store(usize::MAX, Relaxed);
            let name = u16::try_from(port).unwrap();
            let rounds = (0..17).position(|_| bench.round().contains(&name)).unwrap();
            assert!(rounds <= 16, "port {port} was seen after {rounds} rounds");
            assert!(bench.round().contains(&name) && bench.round().contains(&name));
        }
    }

    #[test]
    fn one_idle_queue_is_polled_in_the_shortest_round() {
        let mut bench = Bench::new(33);
        bench.waiting[7].store(usize::MAX, Relaxed);
        bench.round();
        (0..33).for_each(|port| _ = bench.polls(port));
        for _ in 0..32 {
            bench.inputs.poll(bench.now, |_, _| {});
        }
        assert!((0..33).filter(|port| *port != 7).all(|port| bench.polls(port) == 1));
    }

    #[test]
    fn a_queue_without_frames_for_long_is_idle_again() {
        let mut bench = Bench::new(33);
        bench.waiting[7].store(usize::MAX, Relaxed);
        bench.waiting[8].store(1, Relaxed);
        for _ in 0..=EMPTY_ROUNDS {
            bench.round();
        }
        bench.polls(8);
        for _ in 0..160 {
            bench.round();
        }
        assert_eq!(bench.polls(8), 10);
    }

    #[test]
    fn one_burst_in_so_many_is_timed_for_all_of_them() {
        let mut bench = Bench::new(2);
        bench.waiting[1].store(usize::MAX, Relaxed);
        let cycles = |bench: &Bench| {
            let of = |port| bench.inputs.all.iter().find(|input| input.port == port).unwrap();
            [0, 1].map(|port| of(port).stats.pressure().cycles)
        };
        let mut timed = 0;
        for _ in 0..10 * TIMED {
            let [_, before] = cycles(&bench);
            // Longer than the clock can be in doubt.
            bench.inputs.poll(0, |_, _| std::thread::sleep(Duration::from_micros(1)));
            let [idle, now] = cycles(&bench);
            assert_eq!(idle, 0);
            timed += u32::from(now > before);
        }
        assert_eq!(timed, 10);
        let least = u64::from(TIMED * 10) * clock::cycles(Duration::from_micros(1));
        assert!(cycles(&bench)[1] >= least);
    }

    #[test]
    fn queues_that_are_taken_out_are_polled_no_more() {
        let mut bench = Bench::new(5);
        bench.waiting.iter().for_each(|waiting| waiting.store(usize::MAX, Relaxed));
        bench.round();
        assert_eq!(bench.inputs.take(2).len(), 1);
        let mut seen = bench.round();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 3, 4]);
    }
}
