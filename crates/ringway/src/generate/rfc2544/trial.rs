//! One trial: frames of one size for a while, and how many came.

use std::time::{Duration, Instant};

use eal::clock;
use eal::signals::Signals;
use ethdev::TxQueue;

use super::super::crew::Crew;
use super::super::frame::Builder;
use super::super::lane::{Lane, Source, Span};
use super::super::rate::Pacer;
use super::super::receiver::Receiver;
use super::super::run::{BACKLOG, TICK, run_number, share};
use super::super::sender::Sender;
use super::super::size::SizeMix;
use crate::cli::GenArgs;
use crate::exit::Failure;
use crate::table::approximate;
use crate::wait;

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
        signals: Signals,
        lanes: Vec<Lane>,
        back: Option<TxQueue>,
    ) -> Self {
        Self { args, signals, lanes, back }
    }

    /// Runs a trial; `None` when a signal came meanwhile.
    ///
    /// # Errors
    /// When a thread cannot be started, or has ended by a panic.
    pub fn run(&mut self, load: Load) -> Result<Option<Outcome>, Failure> {
        self.announce();
        let run = run_number();
        let mut lanes = std::mem::take(&mut self.lanes);
        self.prepare(&mut lanes, load, run);
        let start = Instant::now();
        let mut crew = Crew::start(lanes, self.args.cores.as_ref())?;
        let interrupted = self.watch(&crew, load, start)?;
        crew.drain();
        if !interrupted {
            crew.wait_for_the_rest(|crew| crew.lanes(|progress| progress.built).sum());
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

    /// Has the device under test learn where the frames are to go (RFC 2544, 23): it need not flood
    /// them.
    fn announce(&mut self) {
        let Some(queue) = &mut self.back else { return };
        let args = self.args;
        let builder = Builder::new(args.src_mac, args.dst_mac, run_number(), false);
        let mut sender = Sender::new(builder, &SizeMix::of(60), 0, 1);
        sender.build(1, || Some(clock::now()));
        sender.send(queue);
        queue.flush();
    }

    /// Frames of another run, so that late ones of the trial before are not taken for these.
    fn prepare(&self, lanes: &mut [Lane], load: Load, run: u16) {
        let args = self.args;
        let builder = Builder::new(args.dst_mac, args.src_mac, run, !args.no_pattern);
        let sizes = SizeMix::of(load.size);
        let count = lanes.iter().map(|lane| lane.sources.len()).sum::<usize>().max(1);
        let flows = args.flows.and_then(|flows| usize::try_from(flows).ok());
        let flows = flows.unwrap_or(count).max(count);
        let start = clock::now();
        let (mut index, mut first) = (0, 0);
        for source in lanes.iter_mut().flat_map(|lane| &mut lane.sources) {
            let own = share(flows, count, index);
            let own_first = u16::try_from(first).unwrap_or_default();
            source.sender = Sender::new(builder.clone(), &sizes, own_first, own);
            source.pacer = load.rate.map(|rate| {
                let rate = rate / approximate(count as u64);
                Pacer::new(rate, clock::hz(), start, Some(BACKLOG))
            });
            source.span = None;
            source.limit = load.count.map(|total| {
                let total = usize::try_from(total).unwrap_or(usize::MAX);
                share(total, count, index) as u64
            });
            (index, first) = (index + 1, first + own);
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
    queues.into_iter().map(move |queue| Source {
        queue,
        sender: Sender::new(Builder::new(none, none, 0, false), &SizeMix::of(60), 0, 1),
        pacer: None,
        limit: Some(0),
        span: None,
    })
}
