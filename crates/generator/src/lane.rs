//! The loop of one thread of the generator.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eal::clock;
use ethdev::{DropReason, RxQueue, TxQueue};
use hdrhistogram::Histogram;
use packet::{BURST, Frame};

use crate::rate::{Gate, Pacer};
use crate::receiver::{Flows, Received, Receiver, new_histogram};
use crate::sender::Sender;

/// How often a lane tells how far it is.
const PUBLISH: Duration = Duration::from_millis(50);

/// Rounds without a frame after which a lane offers its core to others.
const IDLE_ROUNDS: u32 = 64;

/// What the lanes are to do; the same for all of them.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    const SEND: u8 = 0;
    const DRAIN: u8 = 1;
    const STOP: u8 = 2;

    /// Build no more frames, but receive what is under way.
    pub fn drain(&self) {
        self.0.fetch_max(Self::DRAIN, Relaxed);
    }

    /// Return.
    pub fn stop(&self) {
        self.0.store(Self::STOP, Relaxed);
    }
}

/// How far a lane is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Frames built.
    pub built: u64,
    /// From the first frame sent to the last one.
    pub span: Option<Span>,
    /// All its frames are built, as many as were asked for.
    pub complete: bool,
    /// What was received and checked.
    pub received: Received,
    /// Latencies since this was last taken.
    pub latency: Option<Histogram<u64>>,
    /// What is known of the flows; only at the end.
    pub flows: Flows,
}

/// A transmit queue with the frames for it.
#[derive(Debug)]
pub struct Source {
    /// Where to.
    pub queue: TxQueue,
    /// What: those of several senders in turn, burst by burst.
    pub senders: Vec<Sender>,
    /// Whose turn it is.
    pub turn: usize,
    /// When; as fast as possible if absent.
    pub pacer: Option<Pacer>,
    /// How many frames; no limit if absent.
    pub limit: Option<u64>,
    /// From when to when frames were sent, if some were.
    pub span: Option<Span>,
}

/// A time in cycles of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first frame was built.
    pub first: u64,
    /// The device had taken the last one.
    pub last: u64,
}

impl Span {
    /// From the earlier of two beginnings to the later of two ends.
    pub fn with(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

impl Source {
    /// Frames built since the start.
    fn built(&self) -> u64 {
        self.senders.iter().map(Sender::built).sum()
    }

    fn is_complete(&self) -> bool {
        self.limit.is_some_and(|limit| self.built() >= limit)
    }

    /// Whether all frames that were built have been given to the device.
    fn is_idle(&self) -> bool {
        self.senders.iter().all(Sender::is_idle)
    }

    /// Builds and sends a burst; whether anything was sent.
    fn step(&mut self, now: u64, build: bool) -> bool {
        if self.is_complete() && self.is_idle() {
            return false;
        }
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.built()));
        let Some(sender) = self.senders.get_mut(self.turn) else { return false };
        if build && self.queue.is_ready() {
            match &mut self.pacer {
                Some(pacer) => {
                    pacer.adjust(now);
                    sender.build(left, || pacer.take(now));
                }
                None => sender.build(left, || Some(now)),
            }
        }
        let sent = sender.send(&mut self.queue) > 0;
        if sent {
            // The next one's turn comes when there is nothing left of this one's burst.
            if sender.is_idle() {
                self.turn = if self.turn + 1 < self.senders.len() { self.turn + 1 } else { 0 };
            }
            let first = self.span.map_or(now, |span| span.first);
            self.span = Some(Span { first, last: clock::now() });
        }
        sent
    }
}

/// A receive queue whose frames go out by a transmit queue.
#[derive(Debug)]
pub struct Forwarded {
    /// Where from.
    pub from: RxQueue,
    /// Where to.
    pub to: TxQueue,
    /// How fast; as fast as possible if absent.
    pub gate: Option<Gate>,
}

impl Forwarded {
    /// Receives and sends a burst; whether there was any frame.
    fn step(&mut self, now: u64) -> bool {
        let most = self.gate.as_mut().map_or(BURST, |gate| gate.open(now, BURST));
        if most == 0 {
            return false;
        }
        let burst = self.from.rx_burst(most);
        let count = burst.frames().len();
        if let Some(gate) = self.gate.as_mut().filter(|_| count > 0) {
            gate.pass(count, burst.frames().iter().map(Frame::len).sum());
        }
        if count > 0 {
            let sent = self.to.tx_burst(burst.frames());
            self.to.drop_frames(DropReason::RingFull, count.saturating_sub(sent));
        }
        count > 0
    }
}

/// What one thread does, round after round.
#[derive(Debug, Default)]
pub struct Lane {
    /// Sends from these.
    pub sources: Vec<Source>,
    /// Receives from these and checks the frames; each with the number of its port.
    pub checked: Vec<(RxQueue, usize)>,
    /// Checks them.
    pub receiver: Option<Receiver>,
    /// Receives from these and forgets the frames.
    pub discarded: Vec<RxQueue>,
    /// Receives from the first and sends to the second.
    pub forwarded: Vec<Forwarded>,
}

impl Lane {
    /// Runs until told to stop; what it has received is told then.
    // As a part of a caller that is built for size, it would be built for that, too.
    #[inline(never)]
    pub fn run(&mut self, phase: &Phase, progress: &Arc<Mutex<Progress>>) {
        let interval = clock::cycles(PUBLISH);
        let mut published = clock::now();
        let mut idle = 0;
        loop {
            let now = clock::now();
            let phase = phase.0.load(Relaxed);
            if phase == Phase::STOP {
                break;
            }
            if self.round(now, phase == Phase::SEND) {
                idle = 0;
            } else {
                idle += 1;
                if idle >= IDLE_ROUNDS {
                    idle = 0;
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
            if now.saturating_sub(published) >= interval {
                published = now;
                self.publish(progress);
            }
        }
        self.publish(progress);
        if let Some(receiver) = self.receiver.take() {
            progress.lock().unwrap_or_else(PoisonError::into_inner).flows = receiver.into_flows();
        }
    }

    /// One burst for each queue; whether there was any frame.
    fn round(&mut self, now: u64, build: bool) -> bool {
        let mut busy = false;
        for source in &mut self.sources {
            busy |= source.step(now, build);
        }
        for (queue, port) in &mut self.checked {
            let burst = queue.rx_burst(BURST);
            if !burst.frames().is_empty() {
                busy = true;
                if let Some(receiver) = &mut self.receiver {
                    receiver.take(&burst, *port, clock::now());
                }
            }
        }
        for queue in &mut self.discarded {
            busy |= !queue.rx_burst(BURST).frames().is_empty();
        }
        for forwarded in &mut self.forwarded {
            busy |= forwarded.step(now);
        }
        if !busy {
            for source in &mut self.sources {
                source.queue.flush();
            }
            for forwarded in &mut self.forwarded {
                forwarded.to.flush();
            }
        }
        busy
    }

    fn publish(&mut self, progress: &Mutex<Progress>) {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.built = self.sources.iter().map(Source::built).sum();
        let spans = self.sources.iter().filter_map(|source| source.span);
        progress.span = spans.reduce(Span::with);
        let complete = |source: &Source| source.is_complete() && source.is_idle();
        progress.complete = !self.sources.is_empty() && self.sources.iter().all(complete);
        if let Some(receiver) = &mut self.receiver {
            progress.received = receiver.received();
            if progress.latency.is_none() {
                progress.latency = new_histogram();
            }
            if let Some(histogram) = &mut progress.latency {
                receiver.drain_latency(histogram);
            }
        }
    }
}
