//! Sets everything up, watches, judges.

use std::path::Path;
use std::time::{Duration, Instant};

use drivers::Drivers;
use eal::sandbox::{Needs, Reach};
use eal::signals::Signals;
use eal::{Workers, clock};
use ethdev::{OpenPort, Port};
use hdrhistogram::Histogram;
use packet::MacAddr;
use switch::{PortOptions, Switch, SwitchConfig};

use super::guests::{Guest, GuestProgress, Shared, run as run_guests};
use super::report::{NAMES, Printer, Row, Summary};
use super::stage::{Stage, WINDOW, stages};
use crate::cli::DemoArgs;
use crate::control::protocol::Counters;
use crate::exit::Failure;
use crate::generate::headers::Headers;
use crate::generate::order::Order;
use crate::generate::receiver::{Receiver, new_histogram};
use crate::generate::report::LatencySummary;
use crate::generate::sender::Sender;
use crate::generate::template::Builder;
use crate::sandbox::Sandbox;
use crate::table::approximate;
use crate::wait;

/// How long both links may take to come up; it is a matter of milliseconds.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// How long frames that are under way may take at the end.
const DRAIN: Duration = Duration::from_secs(1);
/// Addresses of the guests.
const MACS: [MacAddr; 2] = [MacAddr([0x52, 0x54, 0, 0, 0, 1]), MacAddr([0x52, 0x54, 0, 0, 0, 2])];
/// Entries of the guests' rings: twice as many as there are frames under way.
const QUEUE_SIZE: u64 = 2 * WINDOW;
/// Tells the demo's frames from any others.
const RUN: u16 = 0xDE30;

/// `ringway demo`.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    let signals = Signals::install().map_err(Failure::runtime)?;
    let dir = tempfile::Builder::new()
        .prefix("ringway-demo-")
        .tempdir()
        .map_err(|error| Failure::runtime(format!("cannot make a temporary folder: {error}")))?;
    let sockets = NAMES.map(|name| dir.path().join(format!("{name}.sock")));
    // Before there are threads, which inherit it.
    let needs = Needs::new()
        .path(dir.path(), Reach::SOCKETS | Reach::READ)
        // It is removed at the end.
        .folder_of(dir.path(), Reach::FOLDERS);
    let _sandbox = Sandbox::enter_for(args.confine.sandbox, &[], needs)?;
    clock::Clock::get();
    let printer = Printer::new(args.json);
    let [one, other] = &sockets;
    printer.introduction(args.seconds, &[one, other]);

    let drivers = Drivers::new();
    let switch = Switch::start(&SwitchConfig::default()).map_err(Failure::runtime)?;
    for (name, socket) in NAMES.iter().zip(&sockets) {
        let device = format!("vhost-user:{}", socket.display());
        switch.open_port(name, &device, &PortOptions::default()).map_err(Failure::runtime)?;
    }
    let stages = stages(args.seconds).map_err(Failure::runtime)?;
    let mut demo = Demo::start(&sockets, &drivers, stages, &switch, printer)?;
    let connected = demo.wait_for_links(&signals)?;
    if connected {
        demo.watch(&signals)?;
    }
    let summary = demo.finish()?;
    drop(switch);
    if !connected {
        return Ok(());
    }
    match summary.fault() {
        None => Ok(()),
        Some(fault) => Err(Failure::runtime(format!("demo: {fault}"))),
    }
}

/// A running demo.
struct Demo<'s> {
    ports: Vec<Port>,
    shared: std::sync::Arc<Shared>,
    guests: Option<[Guest; 2]>,
    workers: Workers,
    stages: Vec<Stage>,
    switch: &'s Switch,
    printer: Printer,
    start: Instant,
    summary: Summary,
    latency: Option<Histogram<u64>>,
    last: (Instant, [GuestProgress; 2]),
}

impl<'s> Demo<'s> {
    /// Opens the guests' devices.
    fn start(
        sockets: &[impl AsRef<Path>; 2],
        drivers: &Drivers,
        stages: Vec<Stage>,
        switch: &'s Switch,
        printer: Printer,
    ) -> Result<Self, Failure> {
        let mut ports = Vec::new();
        let mut open = |index: usize, socket: &Path| {
            let [mac, peer] = if index == 0 { MACS } else { [MACS[1], MACS[0]] };
            let device =
                format!("virtio-user:{},mac={mac},queue_size={QUEUE_SIZE}", socket.display());
            let OpenPort { port, rx, tx } = drivers::open("guest", &device, drivers)?;
            ports.push(port);
            let queue = rx.into_iter().next().zip(tx.into_iter().next());
            let (rx, tx) = queue.ok_or_else(|| Failure::runtime("a guest without queues"))?;
            let sizes = stages.first().map(|stage| stage.sizes.clone());
            let sizes = sizes.ok_or_else(|| Failure::runtime("a demo without traffic"))?;
            let flow = u32::from(index != 0);
            let builder = Builder::new(Headers::plain(peer, mac).template(2), RUN, true);
            let sender = Sender::new(builder, &sizes, Order::Sequence, flow..flow + 1);
            Ok::<_, Failure>(Guest { rx, tx, sender, receiver: Receiver::new(Some(RUN)) })
        };
        let [one, other] = sockets;
        let guests = [open(0, one.as_ref())?, open(1, other.as_ref())?];
        let now = Instant::now();
        Ok(Self {
            ports,
            shared: Shared::new(),
            guests: Some(guests),
            workers: Workers::new().map_err(Failure::runtime)?,
            stages,
            switch,
            printer,
            start: now,
            summary: Summary::default(),
            latency: new_histogram(),
            last: (now, [GuestProgress::default(); 2]),
        })
    }

    /// Waits until guests and switch have agreed; false when a signal came meanwhile.
    fn wait_for_links(&self, signals: &Signals) -> Result<bool, Failure> {
        let start = Instant::now();
        loop {
            let guests_up = self.ports.iter().all(|port| port.control().link().up);
            if guests_up && self.switch.ports().iter().all(|port| port.link.up) {
                return Ok(true);
            }
            if start.elapsed() > LINK_PATIENCE {
                return Err(Failure::runtime(format!(
                    "demo: the guests and the switch did not connect within {LINK_PATIENCE:?}; \
                     'ringway -v demo' says more"
                )));
            }
            if wait::readable(signals, Duration::from_millis(2))? {
                return Ok(false);
            }
        }
    }

    /// Lets the traffic run, stage by stage, and prints rows.
    fn watch(&mut self, signals: &Signals) -> Result<(), Failure> {
        if let Some(guests) = self.guests.take() {
            let (stages, shared) = (self.stages.clone(), std::sync::Arc::clone(&self.shared));
            self.workers
                .start("demo-guests", None, move |_| run_guests(guests, &stages, &shared))
                .map_err(Failure::runtime)?;
        }
        self.start = Instant::now();
        self.last.0 = self.start;
        let mut end = self.start;
        for index in 0..self.stages.len() {
            self.shared.set_stage(index);
            let Some(stage) = self.stages.get(index).cloned() else { break };
            end = end.checked_add(stage.time).unwrap_or(end);
            let pace = (stage.time / 2).clamp(Duration::from_millis(250), Duration::from_secs(1));
            while Instant::now() < end {
                let row_due = self.last.0.checked_add(pace).unwrap_or(end);
                // A last row that would be too short to mean anything goes with the one before.
                let due =
                    if end.saturating_duration_since(row_due) < pace / 2 { end } else { row_due };
                if wait::readable(signals, due.saturating_duration_since(Instant::now()))? {
                    return Ok(());
                }
                if Instant::now() >= due {
                    self.row(&stage);
                }
                if self.workers.has_ended(0) {
                    return Err(Failure::runtime("demo: the guests have crashed; see the log"));
                }
            }
        }
        Ok(())
    }

    fn progress(&mut self) -> ([GuestProgress; 2], Option<LatencySummary>) {
        let (guests, latency) =
            self.shared.with(|progress| (progress.guests, progress.latency.take()));
        let summary = latency.as_ref().and_then(LatencySummary::of);
        if let (Some(all), Some(latency)) = (&mut self.latency, &latency) {
            // Both have the same bounds, so this cannot fail.
            let _ = all.add(latency);
        }
        (guests, summary)
    }

    fn row(&mut self, stage: &Stage) {
        let now = Instant::now();
        let (guests, latency) = self.progress();
        let (before, earlier) = self.last;
        let elapsed = now.duration_since(before).as_secs_f64().max(1e-9);
        let rate = |take: fn(&GuestProgress) -> u64, index: usize| {
            let of = |guests: &[GuestProgress; 2]| guests.get(index).map_or(0, take);
            approximate(of(&guests).saturating_sub(of(&earlier))) / elapsed
        };
        let frames = |index| rate(|guest| guest.received.frames, index);
        let octets = |index| rate(|guest| guest.received.bytes, index);
        let sum = |take: fn(&GuestProgress) -> u64| guests.iter().map(take).sum::<u64>();
        let row = Row {
            seconds: now.duration_since(self.start).as_secs_f64(),
            traffic: stage.name,
            pps: [frames(1), frames(0)],
            bps: (octets(0) + octets(1)) * 8.0,
            latency: latency.filter(|_| stage.latency),
            checked: sum(|guest| guest.received.frames),
            wrong: sum(|guest| {
                let received = guest.received;
                received.corrupt + received.foreign + received.reordered
            }),
        };
        self.printer.row(&row);
        self.summary.best_pps = self.summary.best_pps.max(row.pps.iter().sum());
        self.summary.best_bps = self.summary.best_bps.max(row.bps);
        self.last = (now, guests);
    }

    /// Waits for what is under way, ends the guests, sums up.
    fn finish(mut self) -> Result<Summary, Failure> {
        self.summary.seconds = self.start.elapsed().as_secs_f64();
        self.shared.drain();
        let start = Instant::now();
        while !self.workers.is_empty() && start.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(5));
            let all = self.shared.with(|progress| {
                let given: u64 = progress.guests.iter().map(|guest| guest.given).sum();
                given == progress.guests.iter().map(|guest| guest.received.tested()).sum::<u64>()
            });
            if all && start.elapsed() > Duration::from_millis(50) {
                break;
            }
        }
        self.shared.stop();
        let Self { workers, .. } = &mut self;
        let workers = std::mem::replace(workers, Workers::new().map_err(Failure::runtime)?);
        let panicked = workers.join().into_iter().any(|exit| exit.panic.is_some());
        self.sum_up();
        if panicked {
            return Err(Failure::runtime("demo: the guests have crashed; see the log"));
        }
        if self.summary.sent > 0 {
            self.printer.summary(&self.summary);
        }
        Ok(self.summary)
    }

    fn sum_up(&mut self) {
        let (guests, _) = self.progress();
        let summary = &mut self.summary;
        for guest in &guests {
            summary.sent += guest.given;
            summary.good += guest.received.good;
            summary.bytes += guest.received.bytes;
            summary.corrupt += guest.received.corrupt;
            summary.foreign += guest.received.foreign;
            summary.reordered += guest.received.reordered;
        }
        summary.lost = summary.sent.saturating_sub(summary.good + summary.corrupt);
        let (mut received, mut sent) = (ethdev::Stats::default(), ethdev::Stats::default());
        for port in self.switch.ports() {
            received += port.stats.rx_total();
            sent += port.stats.tx_total();
        }
        let at_guests: u64 = self
            .ports
            .iter()
            .map(|port| port.stats().tx_total().dropped() + port.stats().rx_total().dropped())
            .sum();
        summary.dropped = received.dropped() + sent.dropped() + at_guests;
        summary.switch_received = Counters::from(&received);
        summary.switch_sent = Counters::from(&sent);
        let workers = self.switch.workers();
        summary.cycles_per_packet =
            workers.first().map_or(0.0, switch::WorkerReport::cycles_per_packet);
        summary.latency = self.latency.as_ref().and_then(LatencySummary::of);
    }
}
