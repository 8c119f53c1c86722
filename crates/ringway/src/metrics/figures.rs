//! What a switch has counted, as metrics.
//!
//! Nothing here disturbs a worker: it publishes its counters by plain stores, and they are read
//! where they are.

use std::time::Duration;

use daemon::Daemon;
use daemon::hub;
use eal::clock;
use ethdev::{DropReason, Pressure, Stats, ask_depths};
use rustix::time::{ClockId, clock_gettime};
use switch::{BridgeReport, MirrorReport, PortReport, WorkerReport};
use vdpa::State;

use super::family::{self, Family};
use super::protocols::Protocols;
use super::text::{Format, Number, Samples, Text};

/// Upper bounds of the size classes that ports count (`ethdev::Stats::sizes`).
const SIZES: [&str; 8] = ["63.0", "64.0", "127.0", "255.0", "511.0", "1023.0", "1518.0", "+Inf"];

/// A metric, and what it is of something.
type Figure<T> = (&'static Family, fn(&T) -> u64);

/// Bytes of text for a port with one pair of queues, and for all that does not depend on ports.
const ROOM: (usize, usize) = (8 << 10, 32 << 10);

/// What is known of the program itself, beside the switch.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// When it started, in seconds since 1970.
    start: f64,
    /// How often the file was read again, with success and without.
    pub reloads: [u64; 2],
    /// Whether it was wrong the last time.
    pub reload_failed: bool,
    /// How often figures were taken.
    pub scrapes: u64,
    /// How many clock cycles the last time took.
    pub scrape: u64,
}

impl Default for Service {
    /// One that has just started.
    fn default() -> Self {
        let start = time_of(ClockId::Realtime);
        Self { start, reloads: [0; 2], reload_failed: false, scrapes: 0, scrape: 0 }
    }
}

impl Service {
    /// The file was read again.
    pub const fn reloaded(&mut self, is_right: bool) {
        let [done, failed] = &mut self.reloads;
        let count = if is_right { done } else { failed };
        *count = count.saturating_add(1);
        self.reload_failed = !is_right;
    }
}

/// A switch at one moment.
#[derive(Debug)]
pub struct Figures {
    uptime: Duration,
    version: u64,
    ports: Vec<Port>,
    bridges: Vec<BridgeReport>,
    mirrors: Vec<MirrorReport>,
    protocols: Protocols,
    workers: Vec<WorkerReport>,
    vdpa: Vec<hub::Report>,
    waiting: Vec<String>,
    service: Service,
}

/// A port with its sums.
#[derive(Debug)]
struct Port {
    report: PortReport,
    rx: Stats,
    tx: Stats,
    events: Vec<Event>,
}

/// A counter of a driver.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    /// `rx`, `tx`, or empty where it is of both.
    direction: &'static str,
    /// Empty where it is of no queue.
    queue: String,
    name: String,
    count: u64,
}

impl Event {
    /// Of a driver's name for it, as in `rx_q0_bad_chains`.
    fn of(name: &str, count: u64) -> Self {
        let sides = [("rx", "rx_q"), ("tx", "tx_q")];
        let found = sides.into_iter().find_map(|(direction, start)| {
            let (queue, name) = name.strip_prefix(start)?.split_once('_')?;
            let is_number = !queue.is_empty() && queue.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some((direction, queue, name))
        });
        let (direction, queue, name) = found.unwrap_or(("", "", name));
        Self { direction, queue: queue.to_owned(), name: name.to_owned(), count }
    }
}

impl From<PortReport> for Port {
    fn from(mut report: PortReport) -> Self {
        let extended = std::mem::take(&mut report.extended);
        let events = extended.into_iter().map(|(name, count)| Event::of(&name, count)).collect();
        Self { rx: report.stats.rx_total(), tx: report.stats.tx_total(), events, report }
    }
}

impl Port {
    fn name(&self) -> &str {
        &self.report.name
    }

    fn sides(&self) -> [(&'static str, &Stats); 2] {
        [("rx", &self.rx), ("tx", &self.tx)]
    }

    fn queues(&self) -> impl Iterator<Item = (&'static str, usize, &Stats)> {
        let stats = &self.report.stats;
        let rx = stats.rx.iter().enumerate().map(|(queue, stats)| ("rx", queue, stats));
        rx.chain(stats.tx.iter().enumerate().map(|(queue, stats)| ("tx", queue, stats)))
    }
}

/// The name under which drivers count large segments, which have a metric of their own.
const SEGMENTS: &str = "large_segments";

impl Figures {
    /// What `daemon` has counted by now, and the program around it.
    pub fn take(daemon: &Daemon, service: Service) -> Self {
        // Workers answer while all but the ports is looked at: who has frames within microseconds.
        ask_depths();
        let switch = daemon.switch();
        Self {
            uptime: switch.uptime(),
            version: daemon.version(),
            bridges: switch.bridges(),
            mirrors: switch.mirrors(),
            protocols: Protocols::take(daemon),
            workers: switch.workers(),
            vdpa: daemon.hub().report(),
            waiting: daemon.waiting().map(|(name, _)| name.to_owned()).collect(),
            ports: switch.samples().into_iter().map(Port::from).collect(),
            service,
        }
    }

    /// All of them as text.
    pub fn write(&self, format: Format) -> String {
        let (port, rest) = ROOM;
        let mut text = Text::new(format, self.ports.len().saturating_mul(port) + rest);
        self.write_program(&mut text);
        self.write_ports(&mut text);
        self.write_frames(&mut text);
        self.write_queues(&mut text);
        self.write_bridges(&mut text);
        self.write_mirrors(&mut text);
        self.protocols.write(&mut text);
        self.write_workers(&mut text);
        self.write_vdpa(&mut text);
        self.write_process(&mut text);
        text.finish()
    }

    fn write_program(&self, text: &mut Text) {
        let [done, failed] = self.service.reloads;
        let version = env!("CARGO_PKG_VERSION");
        let build = env!("RINGWAY_VERSION");
        let commit = build.split_once(" (").and_then(|(_, rest)| rest.strip_suffix(')'));
        text.family(&family::BUILD).add(&[version, commit.unwrap_or_default()], 1_u64);
        text.family(&family::UPTIME).add(&[], self.uptime.as_secs_f64());
        text.family(&family::CONFIG_CHANGES).add(&[], self.version);
        let mut reloads = text.family(&family::CONFIG_RELOADS);
        reloads.add(&["success"], done);
        reloads.add(&["failure"], failed);
        text.family(&family::CONFIG_RELOADED).add(&[], !self.service.reload_failed);
        text.family(&family::SCRAPES).add(&[], self.service.scrapes);
        text.family(&family::SCRAPE_SECONDS).add(&[], seconds(self.service.scrape));
    }

    /// One metric of which each port may have samples.
    fn each_port(
        &self,
        text: &mut Text,
        family: &'static Family,
        add: impl Fn(&mut Samples<'_>, &Port),
    ) {
        let mut samples = text.family(family);
        self.ports.iter().for_each(|port| add(&mut samples, port));
    }

    fn write_ports(&self, text: &mut Text) {
        self.each_port(text, &family::PORT, |samples, port| {
            let report = &port.report;
            let mac = report.mac.to_string();
            let labels = [&report.name, &report.bridge, report.driver, &report.device, &mac];
            samples.add(&labels, 1_u64);
        });
        let mut waiting = text.family(&family::PORT_WAITING);
        self.waiting.iter().for_each(|name| waiting.add(&[name], 1_u64));
        self.each_port(text, &family::PORT_ENABLED, |samples, port| {
            samples.add(&[port.name()], !port.report.disabled);
        });
        self.each_port(text, &family::PORT_LINK, |samples, port| {
            samples.add(&[port.name()], port.report.link.up);
        });
        self.each_port(text, &family::PORT_LINK_CHANGES, |samples, port| {
            samples.add(&[port.name()], port.report.link.changes);
        });
        self.each_port(text, &family::PORT_SPEED, |samples, port| {
            if let Some(mbps) = port.report.link.speed_mbps {
                samples.add(&[port.name()], u64::from(mbps).saturating_mul(1_000_000 / 8));
            }
        });
        self.each_port(text, &family::PORT_MTU, |samples, port| {
            samples.add(&[port.name()], u64::from(port.report.mtu));
        });
        self.each_port(text, &family::PORT_FDB, |samples, port| {
            samples.add(&[port.name()], port.report.fdb_entries);
        });
        self.each_port(text, &family::PORT_EVENTS, |samples, port| {
            for event in port.events.iter().filter(|event| event.name != SEGMENTS) {
                let labels = [port.name(), event.direction, &event.queue, &event.name];
                samples.add(&labels, event.count);
            }
        });
    }

    fn write_frames(&self, text: &mut Text) {
        let simple: [Figure<Stats>; 4] = [
            (&family::PORT_FRAMES, |stats| stats.packets),
            (&family::PORT_BYTES, |stats| stats.bytes),
            (&family::PORT_MULTICAST, |stats| stats.multicast),
            (&family::PORT_BROADCAST, |stats| stats.broadcast),
        ];
        for (family, count) in simple {
            self.each_port(text, family, |samples, port| {
                for (direction, stats) in port.sides() {
                    samples.add(&[port.name(), direction], count(stats));
                }
            });
        }
        self.each_port(text, &family::PORT_SIZES, |samples, port| {
            for (direction, stats) in port.sides() {
                let mut up_to = 0_u64;
                let mut buckets = [("", 0); SIZES.len()];
                for ((bucket, bound), size) in buckets.iter_mut().zip(SIZES).zip(stats.sizes) {
                    up_to = up_to.wrapping_add(size);
                    *bucket = (bound, up_to);
                }
                samples.histogram(&[port.name(), direction], &buckets, stats.bytes);
            }
        });
        self.each_port(text, &family::PORT_DROPS, |samples, port| {
            for (direction, stats) in port.sides() {
                let reasons = DropReason::ALL.iter().map(|reason| reason.name());
                samples.add_each(&[port.name(), direction], reasons.zip(stats.drops));
            }
        });
    }

    fn write_queues(&self, text: &mut Text) {
        self.each_port(text, &family::QUEUE, |samples, port| {
            for (queue, worker) in port.report.rx_workers.iter().enumerate() {
                let labels = [port.name(), &queue.to_string(), &worker.to_string()];
                samples.add(&labels, 1_u64);
            }
        });
        let simple: [Figure<Stats>; 3] = [
            (&family::QUEUE_FRAMES, |stats| stats.packets),
            (&family::QUEUE_BYTES, |stats| stats.bytes),
            (&family::QUEUE_DROPS, Stats::dropped),
        ];
        for (family, count) in simple {
            self.each_port(text, family, |samples, port| {
                for (direction, queue, stats) in port.queues() {
                    let labels = [port.name(), direction, &queue.to_string()];
                    samples.add(&labels, count(stats));
                }
            });
        }
        self.write_pressures(text);
        self.each_port(text, &family::QUEUE_SEGMENTS, |samples, port| {
            for event in port.events.iter().filter(|event| event.name == SEGMENTS) {
                samples.add(&[port.name(), event.direction, &event.queue], event.count);
            }
        });
    }

    fn write_pressures(&self, text: &mut Text) {
        self.each_port(text, &family::QUEUE_DEPTH, |samples, port| {
            for (direction, queues) in ["rx", "tx"].into_iter().zip(&port.report.pressures) {
                for (queue, pressure) in queues.iter().enumerate() {
                    if let Some(depth) = pressure.depth {
                        let labels = [port.name(), direction, &queue.to_string()];
                        samples.add(&labels, u64::from(depth));
                    }
                }
            }
        });
        let received: [Figure<Pressure>; 2] = [
            (&family::QUEUE_BURSTS, |pressure| pressure.bursts),
            (&family::QUEUE_FULL_BURSTS, |pressure| pressure.full_bursts),
        ];
        for (family, count) in received {
            self.each_queue(text, family, |[rx, _]| rx, |pressure| count(pressure).into());
        }
        let busy = |pressure: &Pressure| seconds(pressure.cycles).into();
        self.each_queue(text, &family::QUEUE_BUSY, |[rx, _]| rx, busy);
        self.each_queue(text, &family::QUEUE_STALLS, |[_, tx]| tx, |tx| tx.stalls.into());
    }

    /// One figure of the queues of a direction of all ports.
    fn each_queue(
        &self,
        text: &mut Text,
        family: &'static Family,
        side: impl Fn(&[Vec<Pressure>; 2]) -> &Vec<Pressure>,
        figure: impl Fn(&Pressure) -> Number,
    ) {
        self.each_port(text, family, |samples, port| {
            for (queue, pressure) in side(&port.report.pressures).iter().enumerate() {
                samples.add(&[port.name(), &queue.to_string()], figure(pressure));
            }
        });
    }

    fn write_bridges(&self, text: &mut Text) {
        let figures: [Figure<BridgeReport>; 9] = [
            (&family::BRIDGE_PORTS, |bridge| bridge.ports.len() as u64),
            (&family::BRIDGE_FDB, |bridge| bridge.fdb.entries as u64),
            (&family::BRIDGE_FDB_STATIC, |bridge| bridge.fdb.statics as u64),
            (&family::BRIDGE_FDB_MAX, |bridge| bridge.fdb.limit as u64),
            (&family::BRIDGE_FDB_AGEING, |bridge| bridge.fdb.ageing.into()),
            (&family::BRIDGE_FDB_LEARNED, |bridge| bridge.fdb.learned),
            (&family::BRIDGE_FDB_MOVED, |bridge| bridge.fdb.moved),
            (&family::BRIDGE_FDB_EXPIRED, |bridge| bridge.fdb.expired),
            (&family::BRIDGE_FDB_EVICTED, |bridge| bridge.fdb.evicted),
        ];
        for (family, figure) in figures {
            let mut samples = text.family(family);
            for bridge in &self.bridges {
                samples.add(&[&bridge.name], figure(bridge));
            }
        }
    }

    fn write_mirrors(&self, text: &mut Text) {
        let figures: [Figure<MirrorReport>; 4] = [
            (&family::MIRROR_ACTIVE, |mirror| mirror.is_active.into()),
            (&family::MIRROR_FRAMES, |mirror| mirror.packets),
            (&family::MIRROR_BYTES, |mirror| mirror.bytes),
            (&family::MIRROR_MISSED, |mirror| mirror.missed),
        ];
        for (family, figure) in figures {
            let mut samples = text.family(family);
            for mirror in &self.mirrors {
                samples.add(&[&mirror.name], figure(mirror));
            }
        }
    }

    fn write_workers(&self, text: &mut Text) {
        let mut samples = text.family(&family::WORKER);
        for worker in &self.workers {
            let core = worker.core.map_or_else(|| "any".to_owned(), |core| core.to_string());
            samples.add(&[&worker.index.to_string(), &core], 1_u64);
        }
        let times: [Figure<WorkerReport>; 3] = [
            (&family::WORKER_SECONDS, |worker| worker.total_cycles),
            (&family::WORKER_BUSY, |worker| worker.busy_cycles),
            (&family::WORKER_ASLEEP, |worker| worker.sleep_cycles),
        ];
        for (family, cycles) in times {
            let mut samples = text.family(family);
            for worker in &self.workers {
                samples.add(&[&worker.index.to_string()], seconds(cycles(worker)));
            }
        }
        let counts: [Figure<WorkerReport>; 5] = [
            (&family::WORKER_UP, |worker| worker.alive.into()),
            (&family::WORKER_SLEEPS, |worker| worker.sleeps),
            (&family::WORKER_FRAMES, |worker| worker.packets),
            (&family::WORKER_POLLS, |worker| worker.polls),
            (&family::WORKER_BUSY_POLLS, |worker| worker.busy_polls),
        ];
        for (family, count) in counts {
            let mut samples = text.family(family);
            for worker in &self.workers {
                samples.add(&[&worker.index.to_string()], count(worker));
            }
        }
    }

    fn write_vdpa(&self, text: &mut Text) {
        let mut samples = text.family(&family::VDPA);
        for report in &self.vdpa {
            let role = if report.device.client { "client" } else { "server" };
            samples.add(&[&report.name, &report.device.device, role], 1_u64);
        }
        let mut samples = text.family(&family::VDPA_STATE);
        for report in &self.vdpa {
            let now = state(&report.status.state);
            for state in STATES {
                samples.add(&[&report.name, state], state == now);
            }
        }
        let mut samples = text.family(&family::VDPA_RINGS);
        for report in &self.vdpa {
            samples.add(&[&report.name], report.status.rings.len());
        }
        let mut samples = text.family(&family::VDPA_EVENTS);
        for report in &self.vdpa {
            for statistic in &report.status.statistics {
                samples.add(&[&report.name, &statistic.name], statistic.value);
            }
        }
    }

    /// What every exporter tells of its process.
    fn write_process(&self, text: &mut Text) {
        let cpu = time_of(ClockId::ProcessCPUTime);
        text.family(&family::PROCESS_CPU).add(&[], cpu);
        let mut memory = text.family(&family::PROCESS_MEMORY);
        if let Some(bytes) = resident() {
            memory.add(&[], bytes);
        }
        text.family(&family::PROCESS_START).add(&[], self.service.start);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a time, to the microsecond")]
fn time_of(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of memory that the process has (proc(5)).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// The states of a vDPA device.
const STATES: [&str; 5] = ["waiting", "connected", "running", "failed", "busy"];

const fn state(state: &State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Connected => "connected",
        State::Running => "running",
        State::Failed(_) => "failed",
        State::Busy => "busy",
    }
}

#[allow(clippy::cast_precision_loss, reason = "a time, to the microsecond for years")]
fn seconds(cycles: u64) -> f64 {
    cycles as f64 / clock::hz().max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use daemon::{Options, State};

    use super::*;

    fn daemon() -> (Daemon, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State { workers: Some(2), ..State::default() };
        let ports = [
            ("sink", "null:,queues=2".to_owned()),
            ("vm", format!("vhost-user:{}", dir.path().join("vm").display())),
            ("late", format!("vhost-user:{}/none/s", dir.path().display())),
        ];
        for (name, device) in ports {
            state.add_port(name, daemon::Port::new(device)).unwrap();
        }
        let mirror = switch::Mirror {
            select_all: true,
            output_port: Some("sink".to_owned()),
            ..switch::Mirror::default()
        };
        state.add_mirror("m", mirror).unwrap();
        (Daemon::start(state, Options::default()).unwrap(), dir)
    }

    /// The lines of `text` about one metric.
    fn samples<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        let is_its =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(is_its).collect()
    }

    #[test]
    fn every_metric_is_there_and_every_reason_of_a_drop() {
        let (daemon, _dir) = daemon();
        let text = Figures::take(&daemon, Service::default()).write(Format::OpenMetrics);
        for family in family::ALL {
            assert!(
                text.contains(&format!("\n# TYPE {} ", family.name))
                    || text.starts_with(&format!("# HELP {} ", family.name)),
                "{}",
                family.name
            );
        }
        let drops = samples(&text, "ringway_port_dropped_frames_total");
        assert_eq!(drops.len(), 2 * 2 * DropReason::COUNT);
        let expected = "ringway_port_dropped_frames_total{port=\"vm\",direction=\"tx\",\
                        reason=\"rate_limited\"} 0";
        assert!(drops.contains(&expected), "{text}");
        assert_eq!(
            samples(&text, "ringway_port_waiting"),
            ["ringway_port_waiting{port=\"late\"} 1"]
        );
        assert_eq!(samples(&text, "ringway_queue_info").len(), 3);
        assert_eq!(
            samples(&text, "ringway_worker_up"),
            ["ringway_worker_up{worker=\"0\"} 1", "ringway_worker_up{worker=\"1\"} 1"]
        );
        assert_eq!(
            samples(&text, "ringway_mirror_active"),
            ["ringway_mirror_active{mirror=\"m\"} 1"]
        );
        let events = samples(&text, "ringway_port_driver_events_total");
        let expected = "ringway_port_driver_events_total{port=\"vm\",direction=\"rx\",queue=\"0\",\
                        event=\"bad_chains\"} 0";
        assert!(events.contains(&expected), "{events:?}");
        // A ring that nobody has started has no depth.
        assert_eq!(samples(&text, "ringway_queue_depth"), Vec::<&str>::new());
        for (name, expected) in [("bursts", 3), ("full_bursts", 3), ("stalls", 3)] {
            let found = samples(&text, &format!("ringway_queue_{name}_total"));
            assert_eq!(found.len(), expected, "{name}");
        }
        assert_eq!(samples(&text, "ringway_queue_busy_seconds_total").len(), 3);
        assert_eq!(samples(&text, "ringway_queue_large_segments_total").len(), 2);
        let memory = samples(&text, "process_resident_memory_bytes");
        let bytes = memory.first().and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        assert!(bytes.unwrap() > 1 << 20, "{memory:?}");
    }

    #[test]
    fn no_series_is_there_twice() {
        let (daemon, _dir) = daemon();
        for format in [Format::OpenMetrics, Format::Prometheus] {
            let text = Figures::take(&daemon, Service::default()).write(format);
            let series: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.rsplit_once(' '))
                .map(|(series, _)| series)
                .collect();
            assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len());
        }
    }

    #[test]
    fn names_of_drivers_tell_queue_and_side() {
        let event = |direction, queue: &str, name: &str| Event {
            direction,
            queue: queue.to_owned(),
            name: name.to_owned(),
            count: 3,
        };
        assert_eq!(Event::of("rx_q12_bad_chains", 3), event("rx", "12", "bad_chains"));
        assert_eq!(Event::of("tx_q0_x", 3), event("tx", "0", "x"));
        for plain in ["sessions", "rx_qx_y", "rx_q_y", "rx_missed", "tx_q1"] {
            assert_eq!(Event::of(plain, 3), event("", "", plain));
        }
    }

    #[test]
    fn a_reload_that_failed_is_told_until_one_does_not() {
        let mut service = Service::default();
        service.reloaded(true);
        service.reloaded(false);
        assert_eq!((service.reloads, service.reload_failed), ([1, 1], true));
        service.reloaded(true);
        assert_eq!((service.reloads, service.reload_failed), ([2, 1], false));
    }
}
