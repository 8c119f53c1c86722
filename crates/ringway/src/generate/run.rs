//! Opens the devices, runs the lanes, reports.

use std::time::{Duration, Instant};

use drivers::Drivers;
use eal::clock;
use eal::sandbox::Needs;
use eal::signals::Signals;
use ethdev::{OpenPort, Port, Stats};
use hdrhistogram::Histogram;

use super::crew::Crew;
use super::files::Files;
use super::lane::{Forwarded, Lane, Source};
use super::page::History;
use super::rate::Gate;
use super::receiver::{Flows, Received, Receiver, new_histogram};
use super::report::{LatencySummary, Printer, Row, Summary};
use super::rfc2544;
use super::sender::Sender;
use super::several::Several;
use super::traffic::{Traffic, places};
use crate::cli::{GenArgs, Mode};
use crate::exit::Failure;
use crate::sandbox::Sandbox;
use crate::table::approximate;
use crate::wait;

/// Time between two rows of the live table.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks at the lanes.
pub const TICK: Duration = Duration::from_millis(50);
/// How long frames may take after the last one that came: as RFC 2544 (section 23) has it.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a paced sender makes up for a stall, where latency is not the question.
pub const BACKLOG: Duration = Duration::from_millis(10);

/// `ringway gen`.
pub fn run(args: &GenArgs) -> Result<(), Failure> {
    let signals = Signals::install().map_err(Failure::runtime)?;
    if let Some(cores) = &args.cores {
        cores.check_available().map_err(Failure::usage)?;
    }
    let traffic = Traffic::new(args)?;
    let several = match args.ports.len() {
        1 => None,
        count => Some(Several::new(args, &traffic, count)?),
    };
    if args.topology.is_some() && several.is_none() {
        return Err(Failure::usage("--topology is of use with several --port only"));
    }
    let files = Files::create(args)?;
    // Before there are threads, which inherit it.
    let devices: Vec<&str> = args.ports.iter().chain(&args.port2).map(String::as_str).collect();
    let _sandbox = Sandbox::enter_for(args.confine.sandbox, &devices, Needs::new())?;
    clock::Clock::get();
    let drivers = Drivers::new();
    let mut ports = Vec::new();
    let mut opened = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let OpenPort { port, rx, tx } = drivers::open(&format!("gen{number}"), device, &drivers)?;
        ports.push(port);
        opened.push((rx, tx));
    }
    for port in &ports {
        if !wait_for_link(port, args.wait_link, &signals)? {
            return Ok(());
        }
    }
    let run = run_number();
    if let Some(several) = several {
        let lanes = several.into_lanes(args, opened, run);
        return measure(args, ports, lanes, &signals, files);
    }
    let mut opened = opened.into_iter();
    let (rx, tx) = opened.next().unwrap_or_default();
    let second = opened.len() > 0;
    let (rx2, tx2) = opened.next().unwrap_or_default();
    let mut queues = Queues { rx, tx, rx2, tx2, second };
    if matches!(args.mode, Mode::Throughput | Mode::BackToBack) {
        let back = if queues.second { queues.tx2.pop() } else { None };
        let lanes = queues.into_lanes(args, &traffic, 0);
        let (trials, found) = rfc2544::run::run(args, traffic, signals, lanes, back)?;
        return files.write(args, None, &History::Benchmark(&trials, &found));
    }
    measure(args, ports, queues.into_lanes(args, &traffic, run), &signals, files)
}

/// Runs lanes until it is time to end, and reports.
fn measure(
    args: &GenArgs,
    ports: Vec<Port>,
    lanes: Vec<Lane>,
    signals: &Signals,
    files: Files,
) -> Result<(), Failure> {
    let mut session = Session::start(args, ports, lanes)?;
    session.watch(signals)?;
    let (summary, rows, latency) = session.finish();
    files.write(args, latency.as_ref(), &History::Run(&rows, &summary))?;
    if summary.corrupt > 0 {
        return Err(Failure::runtime(format!("{} frames arrived damaged", summary.corrupt)));
    }
    Ok(())
}

/// A number that tells this run's frames from those of runs before it.
pub fn run_number() -> u16 {
    let time = clock::now();
    #[allow(clippy::cast_possible_truncation, reason = "any 16 bits will do")]
    let number = (time ^ (time >> 16) ^ (time >> 32) ^ u64::from(std::process::id())) as u16;
    number
}

/// Waits until the port can carry frames; `false` when a signal came meanwhile.
fn wait_for_link(port: &Port, patience: Duration, signals: &Signals) -> Result<bool, Failure> {
    let start = Instant::now();
    while !port.control().link().up {
        if start.elapsed() >= patience {
            return Err(Failure::runtime(format!(
                "{}: no link after {patience:?}; is the peer running? (--wait-link waits longer)",
                port.device()
            )));
        }
        if wait::readable(signals, Duration::from_millis(10))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The queues of both devices.
struct Queues {
    rx: Vec<ethdev::RxQueue>,
    tx: Vec<ethdev::TxQueue>,
    rx2: Vec<ethdev::RxQueue>,
    tx2: Vec<ethdev::TxQueue>,
    second: bool,
}

impl Queues {
    /// Spreads the queues over the threads, as the mode wants them.
    fn into_lanes(self, args: &GenArgs, traffic: &Traffic, run: u16) -> Vec<Lane> {
        let most = self.rx.len().max(self.tx.len()).max(self.rx2.len()).max(self.tx2.len()).max(1);
        let mut lanes = empty_lanes(args, most);
        let Self { rx, tx, rx2, tx2, second } = self;
        match args.mode {
            Mode::Txonly => {
                spread(&mut lanes, rx, |lane, queue| lane.discarded.push(queue));
                spread(&mut lanes, rx2, |lane, queue| lane.discarded.push(queue));
                let sources = sources(tx, args, traffic, run);
                spread(&mut lanes, sources, |lane, item| lane.sources.push(item));
            }
            Mode::Rxonly => {
                spread(&mut lanes, rx, |lane, queue| lane.checked.push((queue, 0)));
                spread(&mut lanes, rx2, |lane, queue| lane.checked.push((queue, 1)));
                lanes.iter_mut().for_each(|lane| lane.receiver = Some(Receiver::new(None)));
            }
            Mode::Flowgen | Mode::Latency | Mode::Throughput | Mode::BackToBack => {
                let (back, other) = if second { (rx2, rx) } else { (rx, rx2) };
                spread(&mut lanes, back, |lane, queue| lane.checked.push((queue, 0)));
                spread(&mut lanes, other, |lane, queue| lane.discarded.push(queue));
                let sources = match args.mode {
                    Mode::Throughput | Mode::BackToBack => rfc2544::run::sources(tx).collect(),
                    _ => sources(tx, args, traffic, run),
                };
                spread(&mut lanes, sources, |lane, item| lane.sources.push(item));
                for lane in &mut lanes {
                    let mut receiver = Receiver::new(Some(run));
                    if args.mode == Mode::Latency {
                        receiver.measure_latency();
                    }
                    lane.receiver = Some(receiver);
                }
            }
            Mode::Io => {
                let pairs: Vec<_> = if second {
                    rx.into_iter().zip(tx2).chain(rx2.into_iter().zip(tx)).collect()
                } else {
                    rx.into_iter().zip(tx).collect()
                };
                // Where there are two devices, half of the pairs go each way.
                let share = pairs.len().div_ceil(if second { 2 } else { 1 });
                let start = clock::now();
                let gate = args.rate.map(|rate| {
                    Gate::new(rate, approximate(share as u64), clock::hz(), start, BACKLOG)
                });
                spread(&mut lanes, pairs, |lane, (from, to)| {
                    lane.forwarded.push(Forwarded { from, to, gate: gate.clone() });
                });
            }
        }
        lanes
    }
}

/// As many lanes as there are cores for, `most` at most.
pub fn empty_lanes(args: &GenArgs, most: usize) -> Vec<Lane> {
    let room = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = args.cores.as_ref().map_or(most.min(room), |cores| cores.len().min(most));
    (0..count.max(1)).map(|_| Lane::default()).collect()
}

/// Gives the lanes something in turn.
pub fn spread<T>(lanes: &mut [Lane], items: Vec<T>, add: impl Fn(&mut Lane, T)) {
    let count = lanes.len().max(1);
    for (index, item) in items.into_iter().enumerate() {
        if let Some(lane) = lanes.get_mut(index % count) {
            add(lane, item);
        }
    }
}

/// One source per transmit queue, as long as there are flows for it, and frames of a burst.
fn sources(
    queues: Vec<ethdev::TxQueue>,
    args: &GenArgs,
    traffic: &Traffic,
    run: u16,
) -> Vec<Source> {
    let flows = traffic.flows(queues.len());
    let burst = args.burst.map_or(usize::MAX, |burst| burst as usize);
    let count = queues.len().min(flows as usize).min(burst).max(1);
    let pacer = traffic.pacer(args, clock::now());
    let (builder, order) = (traffic.builder(flows, run), traffic.order(flows));
    let make = |(index, queue)| {
        let limit = args.count.map(|total| {
            let own = share(usize::try_from(total).unwrap_or(usize::MAX), count, index);
            own as u64
        });
        let places = places(flows, count, index);
        Source {
            queue,
            senders: vec![Sender::new(builder.clone(), &args.size, order, places)],
            turn: 0,
            pacer: pacer.as_ref().map(|pacer| pacer(count, index)),
            limit,
            span: None,
        }
    };
    queues.into_iter().take(count).enumerate().map(make).collect()
}

/// The part of `total` for one of `count`: the first ones get the remainder.
pub const fn share(total: usize, count: usize, index: usize) -> usize {
    total / count + if index < total % count { 1 } else { 0 }
}

/// What the devices counted at a moment.
#[derive(Clone, Copy, Default)]
struct Totals {
    sent: Stats,
    received: Stats,
}

fn count_all(ports: &[Port]) -> Totals {
    ports.iter().map(Port::stats).fold(Totals::default(), |mut sum, stats| {
        sum.sent += stats.tx_total();
        sum.received += stats.rx_total();
        sum
    })
}

/// Running lanes and what is needed to report about them.
struct Session<'a> {
    args: &'a GenArgs,
    ports: Vec<Port>,
    /// What they had counted before: announcements.
    before: Totals,
    crew: Crew,
    printer: Printer,
    start: Instant,
    last: (Instant, Totals, Received),
    /// All rows, where there is to be a report of them.
    rows: Vec<Row>,
    latency: Option<Histogram<u64>>,
    /// How long frames were sent or received.
    active: Duration,
}

impl<'a> Session<'a> {
    fn start(args: &'a GenArgs, ports: Vec<Port>, lanes: Vec<Lane>) -> Result<Self, Failure> {
        let before = count_all(&ports);
        let crew = Crew::start(lanes, args.cores.as_ref())?;
        let start = Instant::now();
        Ok(Self {
            args,
            ports,
            before,
            crew,
            printer: Printer::new(args.json, args.mode == Mode::Latency),
            start,
            last: (start, Totals::default(), Received::default()),
            rows: Vec::new(),
            latency: new_histogram(),
            active: Duration::ZERO,
        })
    }

    /// Prints a row per interval until it is time to end.
    fn watch(&mut self, signals: &Signals) -> Result<(), Failure> {
        let deadline = self.args.duration.and_then(|duration| self.start.checked_add(duration));
        loop {
            let next = deadline.map_or(TICK, |end| end.saturating_duration_since(Instant::now()));
            let stop = wait::readable(signals, next.min(TICK))?;
            if self.last.0.elapsed() >= INTERVAL {
                self.row();
            }
            let over = deadline.is_some_and(|end| Instant::now() >= end);
            if stop || over || self.is_complete() {
                if self.last.0.elapsed() >= INTERVAL / 2 {
                    self.row();
                }
                return Ok(());
            }
            self.crew.check()?;
        }
    }

    fn is_complete(&self) -> bool {
        let Some(count) = self.args.count else { return false };
        match self.args.mode {
            Mode::Rxonly | Mode::Io => self.totals().received.packets >= count,
            _ => self.crew.have_sent(count),
        }
    }

    fn totals(&self) -> Totals {
        let now = count_all(&self.ports);
        Totals {
            sent: now.sent.since(&self.before.sent),
            received: now.received.since(&self.before.received),
        }
    }

    /// The latencies since the last row, which are added to those of the whole run.
    fn take_latency(&mut self) -> Option<LatencySummary> {
        let mut interval = new_histogram()?;
        for lane in self.crew.lanes(|progress| progress.latency.take()).flatten() {
            interval.add(&lane).ok()?;
        }
        if let Some(all) = &mut self.latency {
            all.add(&interval).ok()?;
        }
        LatencySummary::of(&interval)
    }

    fn row(&mut self) {
        let now = Instant::now();
        let (before, totals_before, received_before) = self.last;
        let (totals, received) = (self.totals(), self.crew.received());
        let latency = self.take_latency();
        let elapsed = now.duration_since(before).as_secs_f64().max(1e-9);
        let sent = totals.sent.since(&totals_before.sent);
        let got = totals.received.since(&totals_before.received);
        let row = Row {
            seconds: now.duration_since(self.start).as_secs_f64(),
            sent_pps: approximate(sent.packets) / elapsed,
            sent_bps: approximate(sent.bytes) * 8.0 / elapsed,
            received_pps: approximate(got.packets) / elapsed,
            received_bps: approximate(got.bytes) * 8.0 / elapsed,
            dropped: sent.dropped().wrapping_add(got.dropped()),
            corrupt: received.corrupt.wrapping_sub(received_before.corrupt),
            latency,
        };
        self.printer.row(&row);
        if self.args.report.is_some() {
            self.rows.push(row);
        }
        self.last = (now, totals, received);
    }

    /// Whether what is sent is expected back.
    const fn expects_back(&self) -> bool {
        matches!(self.args.mode, Mode::Flowgen | Mode::Latency)
    }

    /// Waits for frames under way, ends the lanes, prints the summary; gives it with all rows and
    /// latencies.
    fn finish(mut self) -> (Summary, Vec<Row>, Option<Histogram<u64>>) {
        self.active = self.start.elapsed();
        self.crew.drain();
        if self.expects_back() {
            self.crew.wait_for_the_rest(DRAIN, |_| self.totals().sent.packets);
        }
        drop(self.crew.stop());
        let summary = self.summary();
        self.printer.summary(&summary);
        (summary, self.rows, self.latency)
    }

    fn summary(&mut self) -> Summary {
        let (totals, received) = (self.totals(), self.crew.received());
        self.take_latency();
        let mut flows = Flows::default();
        self.crew
            .lanes(|progress| std::mem::take(&mut progress.flows))
            .for_each(|lane| flows.merge(&lane));
        let lost = match self.args.mode {
            Mode::Flowgen | Mode::Latency => {
                Some(totals.sent.packets.saturating_sub(received.tested()))
            }
            Mode::Rxonly => Some(flows.missing()),
            _ => None,
        };
        let seconds = self.active.as_secs_f64().max(1e-9);
        let mut summary = Summary {
            mode: format!("{:?}", self.args.mode).to_lowercase(),
            seconds,
            sent: (&totals.sent).into(),
            received: (&totals.received).into(),
            sent_pps: approximate(totals.sent.packets) / seconds,
            received_pps: approximate(totals.received.packets) / seconds,
            good: 0,
            corrupt: 0,
            reordered: 0,
            foreign: 0,
            misdirected: 0,
            lost,
            flows: flows.count(),
            latency: self.latency.as_ref().and_then(LatencySummary::of),
        };
        summary.add_received(&received);
        summary
    }
}
