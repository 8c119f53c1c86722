//! Rates out of two samples.

use litemap::LiteMap;
use ordered::{Gather as _, Order as _};

use super::bonds::{self, BondRow};
use super::history::{History, Point};
use super::mirrors::{self, MirrorRow};
use super::sample::Sample;
use super::vdpa::{self, VdpaRow};
use crate::control::protocol::{Bridge, Counters, Info, Port, PortStats, Worker};
use crate::table::approximate;

/// What a port or queue does per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Frames.
    pub packets: f64,
    /// Bits, without frame check sequences.
    pub bits: f64,
    /// Frames dropped.
    pub drops: f64,
}

impl std::ops::AddAssign for Rates {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bits += other.bits;
        self.drops += other.drops;
    }
}

impl Rates {
    /// `None` where there is nothing to compare with, or the counters began anew in between.
    fn between(now: &Counters, before: Option<&Counters>, seconds: Option<f64>) -> Option<Self> {
        let (before, seconds) = before.zip(seconds)?;
        let rate = |take: fn(&Counters) -> u64| {
            take(now).checked_sub(take(before)).map(|more| approximate(more) / seconds)
        };
        Some(Self {
            packets: rate(|counters| counters.packets)?,
            bits: rate(|counters| counters.bytes)? * 8.0,
            drops: rate(|counters| counters.dropped)?,
        })
    }
}

/// Frames dropped for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The reason's name.
    pub name: String,
    /// Per second and in all, on receipt.
    pub rx: (Option<f64>, u64),
    /// Per second and in all, on transmission.
    pub tx: (Option<f64>, u64),
}

impl Reason {
    fn rate(&self) -> f64 {
        self.rx.0.unwrap_or_default() + self.tx.0.unwrap_or_default()
    }

    const fn total(&self) -> u64 {
        self.rx.1.saturating_add(self.tx.1)
    }
}

/// A port.
#[derive(Clone, Debug)]
pub struct PortRow {
    /// As the switch tells of it.
    pub port: Port,
    /// Its counters.
    pub stats: PortStats,
    /// The process behind it.
    pub front_end: Option<String>,
    /// From the port into the switch.
    pub rx: Option<Rates>,
    /// From the switch to the port.
    pub tx: Option<Rates>,
    /// Why frames were dropped, the reason that matters most now first.
    pub reasons: Vec<Reason>,
    /// The load that its frames make, in percent of a core.
    pub load: Option<f64>,
}

impl PortRow {
    /// Frames dropped per second.
    pub fn drops(&self) -> Option<f64> {
        Some(self.rx?.drops + self.tx?.drops)
    }

    /// Frames dropped since the port is there.
    pub const fn dropped(&self) -> u64 {
        self.stats.rx.dropped.saturating_add(self.stats.tx.dropped)
    }

    /// The reason that matters most, and whether frames are dropped for it now.
    pub fn why(&self) -> Option<(&str, bool)> {
        self.reasons.first().map(|reason| (reason.name.as_str(), reason.rate() > 0.0))
    }
}

/// A worker. What is `None` has no earlier sample.
#[derive(Clone, Debug)]
pub struct WorkerRow {
    /// As the switch tells of it.
    pub worker: Worker,
    /// The share of its time in percent in which it was busy.
    pub load: Option<f64>,
    /// The share in which it slept.
    pub asleep: Option<f64>,
    /// Frames per second.
    pub packets: Option<f64>,
    /// Cycles for each of them.
    pub cycles: Option<f64>,
    /// Frames in each round that found some.
    pub burst: Option<f64>,
}

/// A receive queue, and the transmit queue of the same number.
#[derive(Clone, Debug)]
pub struct QueueRow {
    /// The port.
    pub port: String,
    /// The queue's number.
    pub queue: usize,
    /// The worker that polls it, and its core.
    pub worker: Option<(usize, Option<usize>)>,
    /// From the port into the switch.
    pub rx: Option<Rates>,
    /// From the switch to the port.
    pub tx: Option<Rates>,
    /// Its share in percent of the frames that its worker receives.
    pub share: Option<f64>,
    /// Its worker's load in percent, by that share.
    pub load: Option<f64>,
}

/// A bridge.
#[derive(Clone, Debug)]
pub struct BridgeRow {
    /// As the switch tells of it.
    pub bridge: Bridge,
    /// Ports with a link.
    pub up: usize,
    /// Of all its ports together.
    pub rx: Option<Rates>,
    /// Likewise.
    pub tx: Option<Rates>,
    /// Addresses learnt, moved and given up for others, per second.
    pub learned: Option<f64>,
    /// See [`learned`](Self::learned).
    pub moved: Option<f64>,
    /// See [`learned`](Self::learned).
    pub evicted: Option<f64>,
}

/// A switch at a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Who it is.
    pub info: Info,
    /// Its ports, in the order of their names.
    pub ports: Vec<PortRow>,
    /// Its workers.
    pub workers: Vec<WorkerRow>,
    /// Its ports' queues.
    pub queues: Vec<QueueRow>,
    /// Its bridges.
    pub bridges: Vec<BridgeRow>,
    /// Members of its bonds.
    pub bonds: Vec<BondRow>,
    /// Its mirrors.
    pub mirrors: Vec<MirrorRow>,
    /// Its vDPA devices.
    pub vdpa: Vec<VdpaRow>,
}

impl Snapshot {
    /// The sum of all ports in both directions.
    pub fn totals(&self) -> (Option<Rates>, Option<Rates>) {
        (sum(self.ports.iter().map(|port| port.rx)), sum(self.ports.iter().map(|port| port.tx)))
    }

    /// Frames dropped per second for each reason, the most frequent first.
    pub fn reasons(&self) -> Vec<(&str, f64)> {
        let mut all: LiteMap<&str, f64> = LiteMap::new();
        for reason in self.ports.iter().flat_map(|port| &port.reasons) {
            if reason.rate() > 0.0 {
                *all.entry(&reason.name).or_default() += reason.rate();
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.order_by(|one, other| other.1.total_cmp(&one.1));
        all
    }

    /// Frames dropped per second, for whatever reason.
    pub fn drops(&self) -> f64 {
        // The sum of no numbers is -0, which would be printed as such.
        self.reasons().iter().fold(0.0, |sum, (_, rate)| sum + rate)
    }

    /// Addresses in all forwarding databases.
    pub fn addresses(&self) -> usize {
        self.bridges.iter().map(|row| row.bridge.addresses).sum()
    }
}

/// The sum of those that are known.
fn sum(rates: impl Iterator<Item = Option<Rates>>) -> Option<Rates> {
    rates.flatten().fold(None, |sum, rates| {
        let mut sum: Rates = sum.unwrap_or_default();
        sum += rates;
        Some(sum)
    })
}

/// Makes snapshots out of samples.
#[derive(Debug, Default)]
pub struct Model {
    before: Option<Sample>,
    histories: LiteMap<String, History>,
}

impl Model {
    /// The state at `sample`, with rates since the one before.
    pub fn take(&mut self, sample: Sample) -> Snapshot {
        // Another process has other counters.
        let before = self.before.take().filter(|before| before.info.pid == sample.info.pid);
        let snapshot = compare(&sample, before.as_ref());
        self.remember(&snapshot, approximate(sample.stats.uptime_ms) / 1000.0);
        self.before = Some(sample);
        snapshot
    }

    /// The rates of a port in the last minutes.
    pub fn history(&self, port: &str) -> Option<&History> {
        self.histories.get(port)
    }

    fn remember(&mut self, snapshot: &Snapshot, at: f64) {
        self.histories.retain(|name, _| {
            snapshot.ports.binary_search_by(|row| row.port.name.as_str().cmp(name)).is_ok()
        });
        for row in &snapshot.ports {
            if let Some((rx, tx)) = row.rx.zip(row.tx) {
                let history = self.histories.entry(row.port.name.clone()).or_default();
                if history.points().next_back().is_some_and(|last| last.at > at) {
                    *history = History::default();
                }
                history.add(Point { at, rx, tx });
            }
        }
    }
}

/// Everything that two samples tell.
fn compare(now: &Sample, before: Option<&Sample>) -> Snapshot {
    let seconds = before
        .and_then(|before| now.stats.uptime_ms.checked_sub(before.stats.uptime_ms))
        .filter(|milliseconds| *milliseconds > 0)
        .map(|milliseconds| approximate(milliseconds) / 1000.0);
    let earlier = before.map(by_name).unwrap_or_default();
    let workers = now.workers.workers.iter().map(|worker| {
        let others = before.map(|before| &before.workers.workers);
        let before = others.and_then(|all| all.iter().find(|one| one.index == worker.index));
        worker_row(worker, before, now.workers.cycles_per_second)
    });
    let workers: Vec<WorkerRow> = workers.collect();
    let places = places(&workers);
    let queues = now.stats.ports.iter().flat_map(|port| {
        queue_rows(port, earlier.get(port.name.as_str()).copied(), seconds, &places)
    });
    let queues: Vec<QueueRow> = queues.collect();
    let ports = port_rows(now, &earlier, &queues, seconds);
    let bridges = now.bridges.bridges.iter().map(|bridge| {
        let others = before.map(|before| &before.bridges.bridges);
        let before = others.and_then(|all| all.iter().find(|one| one.name == bridge.name));
        bridge_row(bridge, before, seconds, &ports)
    });
    Snapshot {
        info: now.info.clone(),
        workers,
        queues,
        bridges: bridges.collect(),
        bonds: bonds::rows(now, &ports),
        mirrors: mirrors::rows(now, before, seconds),
        vdpa: vdpa::rows(now, before, seconds),
        ports,
    }
}

/// What the ports of a sample have counted.
fn by_name(sample: &Sample) -> LiteMap<&str, &PortStats> {
    sample.stats.ports.iter().map(|port| (port.name.as_str(), port)).gather()
}

/// All ports by name, with the load that their queues are.
fn port_rows(
    now: &Sample,
    earlier: &LiteMap<&str, &PortStats>,
    queues: &[QueueRow],
    seconds: Option<f64>,
) -> Vec<PortRow> {
    let stats = by_name(now);
    let mut loads: LiteMap<&str, f64> = LiteMap::new();
    for (queue, load) in queues.iter().filter_map(|queue| Some((queue, queue.load?))) {
        *loads.entry(&queue.port).or_default() += load;
    }
    let rows = now.ports.ports.iter().filter_map(|port| {
        // A port that came between the two answers is there the next time.
        let stats = *stats.get(port.name.as_str())?;
        let before = earlier.get(port.name.as_str()).copied();
        let row = port_row(port, stats, before, seconds);
        let front_end = now.front_ends.get(&port.name).cloned();
        Some(PortRow { front_end, load: loads.get(port.name.as_str()).copied(), ..row })
    });
    let mut rows: Vec<PortRow> = rows.collect();
    rows.order_by(|one, other| one.port.name.cmp(&other.port.name));
    rows
}

fn port_row(
    port: &Port,
    stats: &PortStats,
    before: Option<&PortStats>,
    seconds: Option<f64>,
) -> PortRow {
    PortRow {
        port: port.clone(),
        stats: stats.clone(),
        front_end: None,
        rx: Rates::between(&stats.rx, before.map(|before| &before.rx), seconds),
        tx: Rates::between(&stats.tx, before.map(|before| &before.tx), seconds),
        reasons: reasons(stats, before, seconds),
        load: None,
    }
}

fn reasons(stats: &PortStats, before: Option<&PortStats>, seconds: Option<f64>) -> Vec<Reason> {
    let names: std::collections::BTreeSet<&String> =
        stats.rx.drops.keys().chain(stats.tx.drops.keys()).gather();
    let side = |name: &str, take: fn(&PortStats) -> &Counters| {
        let count = |stats: &PortStats| take(stats).drops.get(name).copied().unwrap_or_default();
        let rate = before.zip(seconds).and_then(|(before, seconds)| {
            let more = count(stats).checked_sub(count(before))?;
            Some(approximate(more) / seconds)
        });
        (rate, count(stats))
    };
    let mut all: Vec<Reason> = names
        .into_iter()
        .map(|name| Reason {
            name: name.clone(),
            rx: side(name, |stats| &stats.rx),
            tx: side(name, |stats| &stats.tx),
        })
        .collect();
    all.order_by(|one, other| {
        other.rate().total_cmp(&one.rate()).then_with(|| other.total().cmp(&one.total()))
    });
    all
}

fn worker_row(worker: &Worker, before: Option<&Worker>, hz: u64) -> WorkerRow {
    let delta =
        |take: fn(&Worker) -> u64| take(worker).checked_sub(before.map(take)?).map(approximate);
    let ratio = |part: Option<f64>, whole: Option<f64>| {
        part.zip(whole).filter(|(_, whole)| *whole > 0.0).map(|(part, whole)| part / whole)
    };
    let total = delta(|worker| worker.total_cycles);
    let packets = delta(|worker| worker.packets);
    let busy = delta(|worker| worker.busy_cycles);
    let percent = |part: Option<f64>| ratio(part, total).map(|share| (share * 100.0).min(100.0));
    WorkerRow {
        worker: worker.clone(),
        load: percent(busy),
        asleep: percent(delta(|worker| worker.sleep_cycles)),
        packets: ratio(packets, total).map(|per_cycle| per_cycle * approximate(hz)),
        cycles: ratio(busy, packets),
        burst: ratio(packets, delta(|worker| worker.busy_polls)),
    }
}

/// Which worker polls each receive queue.
fn places(workers: &[WorkerRow]) -> LiteMap<(&str, usize), &WorkerRow> {
    let queues = |row| {
        let row: &WorkerRow = row;
        row.worker.queues.iter().map(move |queue| ((queue.port.as_str(), queue.queue), row))
    };
    workers.iter().flat_map(queues).gather()
}

fn queue_rows(
    port: &PortStats,
    before: Option<&PortStats>,
    seconds: Option<f64>,
    places: &LiteMap<(&str, usize), &WorkerRow>,
) -> Vec<QueueRow> {
    let count = port.rx_queues.len().max(port.tx_queues.len());
    let rates = |index: usize, take: fn(&PortStats) -> &Vec<Counters>| {
        let before = before.and_then(|before| take(before).get(index));
        Rates::between(take(port).get(index)?, before, seconds)
    };
    let row = |queue| {
        let worker = places.get(&(port.name.as_str(), queue)).copied();
        let rx = rates(queue, |port| &port.rx_queues);
        let share = rx
            .zip(worker.and_then(|worker| worker.packets))
            .and_then(|(rx, all)| (all > 0.0).then(|| (rx.packets / all * 100.0).min(100.0)));
        // A worker without frames is not busy.
        let load = worker.and_then(|worker| worker.load);
        let load = load.zip(rx).map(|(load, _)| share.map_or(0.0, |share| load * share / 100.0));
        QueueRow {
            port: port.name.clone(),
            queue,
            worker: worker.map(|row| (row.worker.index, row.worker.core)),
            rx,
            tx: rates(queue, |port| &port.tx_queues),
            share,
            load,
        }
    };
    (0..count).map(row).collect()
}

/// How much a counter has grown in a second.
pub fn per_second(now: u64, before: Option<u64>, seconds: Option<f64>) -> Option<f64> {
    let (before, seconds) = before.zip(seconds)?;
    now.checked_sub(before).map(|more| approximate(more) / seconds)
}

fn bridge_row(
    bridge: &Bridge,
    before: Option<&Bridge>,
    seconds: Option<f64>,
    ports: &[PortRow],
) -> BridgeRow {
    let own = || ports.iter().filter(|row| row.port.bridge == bridge.name);
    let rate = |take: fn(&Bridge) -> u64| per_second(take(bridge), before.map(take), seconds);
    BridgeRow {
        bridge: bridge.clone(),
        up: own().filter(|row| row.port.enabled && row.port.link_up).count(),
        rx: sum(own().map(|row| row.rx)),
        tx: sum(own().map(|row| row.tx)),
        learned: rate(|bridge| bridge.learned),
        moved: rate(|bridge| bridge.moved),
        evicted: rate(|bridge| bridge.evicted),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::super::value::short;
    use super::*;

    fn rates(ports: &[(&str, u64, u64)], later: &[(&str, u64, u64)]) -> Snapshot {
        let mut model = Model::default();
        model.take(sample(10, ports));
        model.take(sample(12, later))
    }

    #[test]
    fn rates_are_differences_by_time() {
        let snapshot = rates(&[("a", 100, 0), ("b", 7, 4)], &[("a", 3100, 0), ("b", 7, 14)]);
        let [a, b] = &snapshot.ports[..] else { panic!("{snapshot:?}") };
        assert_eq!(a.rx, Some(Rates { packets: 1500.0, bits: 1_200_000.0, drops: 0.0 }));
        assert_eq!((b.drops(), b.dropped()), (Some(5.0), 14));
        assert_eq!(b.why(), Some(("ring_full", true)));
        assert_eq!((snapshot.reasons(), snapshot.drops()), (vec![("ring_full", 5.0)], 5.0));
        assert_eq!(snapshot.totals().0.unwrap().packets, 1500.0);
        // Half of its time the worker was busy, all of it with frames of a.
        assert_eq!(snapshot.workers[0].load, Some(50.0));
        let loads: Vec<_> = snapshot.queues.iter().map(|queue| queue.load).collect();
        assert_eq!(loads, [Some(50.0), Some(0.0)]);
        assert_eq!((a.load, snapshot.bridges[0].learned), (Some(50.0), Some(5.0)));
    }

    #[test]
    fn there_are_none_without_something_to_compare_with() {
        let first = Model::default().take(sample(10, &[("a", 100, 3)]));
        assert_eq!((first.ports[0].rx, first.ports[0].load), (None, None));
        assert_eq!(first.ports[0].why(), Some(("ring_full", false)));
        assert_eq!(short(first.drops()), "0");
        // A port that was taken away and added again counts from zero.
        let again = rates(&[("a", 100, 3)], &[("a", 50, 0), ("new", 9, 0)]);
        assert!(again.ports.iter().all(|row| row.rx.is_none()), "{again:?}");
        // Another process at the same socket.
        let mut model = Model::default();
        model.take(sample(10, &[("a", 100, 0)]));
        let mut other = sample(12, &[("a", 500, 0)]);
        other.info.pid = 78;
        assert_eq!(model.take(other).ports[0].rx, None);
        // A clock that stands still.
        let mut model = Model::default();
        model.take(sample(10, &[("a", 100, 0)]));
        assert_eq!(model.take(sample(10, &[("a", 500, 0)])).ports[0].rx, None);
    }

    #[test]
    fn histories_go_with_their_ports() {
        let mut model = Model::default();
        for second in 0..5 {
            model.take(sample(second, &[("a", second * 10, 0), ("b", 0, 0)]));
        }
        let history = model.history("a").unwrap();
        assert_eq!(history.mean(60.0, |point| point.rx.packets), Some(10.0));
        model.take(sample(6, &[("b", 0, 0)]));
        assert!(model.history("a").is_none() && model.history("b").is_some());
    }
}
