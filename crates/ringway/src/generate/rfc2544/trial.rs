//! One trial: frames of one size for a while, and how many came.

use std::time::{Duration, Instant};

use eal::clock;
use eal::signals::Signals;
use ethdev::TxQueue;

use super::super::announce::announce;
use super::super::crew::Crew;
use super::super::headers::Headers;
use super::super::lane::{Lane, Source, Span};
use super::super::order::Order;
use super::super::rate::Pacer;
use super::super::receiver::Receiver;
use super::super::run::{BACKLOG, TICK, run_number, share};
use super::super::sender::Sender;
use super::super::size::SizeMix;
use super::super::template::Builder;
use super::super::traffic::{Traffic, places};
use crate::cli::GenArgs;
use crate::exit::Failure;
use crate::table::approximate;
use crate::wait;

/// How long frames may take after the last one that came. A search has many trials, and what is late
/// belongs to none of those that follow.
const DRAIN: Duration = Duration::from_millis(500);

/// What is sent in a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Bytes of each frame, without frame check sequence.
    pub size: u16,
    /// Frames per second; as fast as possible if absent.
    pub rate: Option<f64>,
    /// Frames; no limit if absent.
    pub count: Option<u64>,
    /// For how long at most.
    pub time: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Frames sent.
    pub sent: u64,
    /// Those that came, undamaged.
    pub received: u64,
    /// Those that came damaged.
    pub corrupt: u64,
    /// Seconds from the first one to the last.
    pub seconds: f64,
}

impl Outcome {
    /// Frames sent per second.
    pub fn rate(&self) -> f64 {
        approximate(self.sent) / self.seconds.max(1e-9)
    }

    /// The part of them in percent that did not come.
    pub fn loss(&self) -> f64 {
        let lost = self.sent.saturating_sub(self.received);
        approximate(lost) / approximate(self.sent.max(1)) * 100.0
    }
}

/// The devices, ready for trials.
#[derive(Debug)]
pub struct Bench<'a> {
    args: &'a GenArgs,
    traffic: Traffic,
    signals: Signals,
    /// Empty while a trial runs.
    lanes: Vec<Lane>,
    /// A queue of the device where frames are expected, to make that known.
    back: Option<TxQueue>,
}

impl<'a> Bench<'a> {
    /// Runs trials on `lanes`; frames are expected on the device of the queue `back`.
    pub const fn new(
        args: &'a GenArgs,
        traffic: Traffic,
        signals: Signals,
        lanes: Vec<Lane>,
        back: Option<TxQueue>,
    ) -> Self {
        Self { args, traffic, signals, lanes, back }
    }

    /// Runs a trial; `None` when a signal came meanwhile.
    ///
    /// # Errors
    /// When a thread cannot be started, or has ended by a panic.
    pub fn run(&mut self, load: Load) -> Result<Option<Outcome>, Failure> {
        // The device under test need not flood them then.
        if let Some(queue) = &mut self.back {
            announce(&self.traffic, queue);
        }
        let run = run_number();
        let mut lanes = std::mem::take(&mut self.lanes);
        self.prepare(&mut lanes, load, run);
        let start = Instant::now();
        let mut crew = Crew::start(lanes, self.args.cores.as_ref())?;
        let interrupted = self.watch(&crew, load, start)?;
        crew.drain();
        if !interrupted {
            crew.wait_for_the_rest(DRAIN, |crew| crew.lanes(|progress| progress.built).sum());
        }
        self.lanes = crew.stop();
        let received = crew.received();
        let sent = crew.lanes(|progress| progress.built).sum();
        let span = crew.lanes(|progress| progress.span).flatten().reduce(Span::with);
        let cycles = span.map_or(0, |span| span.last.saturating_sub(span.first));
        let seconds = clock::Clock::get().duration(cycles).as_secs_f64();
        let outcome = Outcome { sent, received: received.good, corrupt: received.corrupt, seconds };
        Ok((!interrupted).then_some(outcome))
    }

    /// Frames of another run, so that late ones of the trial before are not taken for these.
    fn prepare(&self, lanes: &mut [Lane], load: Load, run: u16) {
        let sizes = SizeMix::of(load.size);
        let count = lanes.iter().map(|lane| lane.sources.len()).sum::<usize>().max(1);
        let flows = self.traffic.flows(count).max(u32::try_from(count).unwrap_or(1));
        let (builder, order) = (self.traffic.builder(flows, run), self.traffic.order(flows));
        let start = clock::now();
        let sources = lanes.iter_mut().flat_map(|lane| &mut lane.sources);
        for (index, source) in sources.enumerate() {
            let places = places(flows, count, index);
            source.senders = vec![Sender::new(builder.clone(), &sizes, order, places)];
            source.pacer = load.rate.map(|rate| {
                let rate = rate / approximate(count as u64);
                Pacer::new(rate, clock::hz(), start, Some(BACKLOG))
            });
            source.span = None;
            source.limit = load.count.map(|total| {
                let total = usize::try_from(total).unwrap_or(usize::MAX);
                share(total, count, index) as u64
            });
        }
        for lane in lanes {
            lane.receiver = Some(Receiver::new(Some(run)));
        }
    }

    /// Waits until the trial is over; whether that was by a signal.
    fn watch(&self, crew: &Crew, load: Load, start: Instant) -> Result<bool, Failure> {
        loop {
            let left = load.time.saturating_sub(start.elapsed());
            if wait::readable(&self.signals, left.min(TICK))? {
                return Ok(true);
            }
            crew.check()?;
            let complete = load.count.is_some_and(|count| crew.have_sent(count));
            if complete || start.elapsed() >= load.time {
                return Ok(false);
            }
        }
    }
}

/// Lanes for trials: frames go out by `tx`, and are expected on `rx`.
pub fn sources(queues: Vec<TxQueue>) -> impl Iterator<Item = Source> {
    let none = packet::MacAddr([0; 6]);
    let builder = Builder::new(Headers::plain(none, none).template(1), 0, false);
    queues.into_iter().map(move |queue| Source {
        queue,
        senders: vec![Sender::new(builder.clone(), &SizeMix::of(60), Order::Sequence, 0..1)],
        turn: 0,
        pacer: None,
        limit: Some(0),
        span: None,
    })
}
