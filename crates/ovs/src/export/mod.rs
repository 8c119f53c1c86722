//! What collectors are told of the traffic of bridges, as the database says.
//!
//! Nobody waits for a collector: what its socket does not take at once is lost, and counted. Targets are addresses,
//! since a name would have to be looked up.
//!
//! - `agent`: by which address collectors know the switch
//! - `collectors`: the sockets
//! - `counts`: of what is told by IPFIX, for controllers
//! - `index`: numbers of interfaces
//! - `ipfix`: one bridge by IPFIX, or what its rules sample
//! - `netflow`: one bridge by NetFlow
//! - `sflow`: one bridge by sFlow
//! - [`settings`]: what rows mean

mod agent;
mod collectors;
mod counts;
mod index;
mod ipfix;
mod netflow;
pub mod settings;
mod sflow;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use daemon::Daemon;
use eal::time::later;
use export::netflow::{Key, Packets};
use export::tally::Protocol;
use export::{Tally, Told};
use litemap::LiteMap;
use ordered::Gather as _;

pub use self::counts::IpfixCounts;
use self::ipfix::Ipfix;
use self::netflow::Netflow;
use self::settings::IpfixSettings;
use self::sflow::Sflow;
use crate::content::{Bridge, Content};
use crate::numbers::Numbers;

/// How often samples are taken from the switch: they are sent at once, since collectors are to have them within
/// a second.
const PERIOD: Duration = Duration::from_millis(100);

/// All that collectors are told.
#[derive(Debug, Default)]
pub struct Exports {
    /// By their bridges.
    sflow: LiteMap<String, Sflow>,
    netflow: LiteMap<String, Netflow>,
    /// And by the number of the set of collectors, where it is what rules sample.
    ipfix: LiteMap<Place, Ipfix>,
    counts: IpfixCounts,
    /// How many were started of these.
    processes: u32,
    /// What is wrong with rows, by bridges: told once.
    wrong: LiteMap<String, Vec<String>>,
    due: Option<Instant>,
    started: Option<Instant>,
}

/// A bridge, and the number of a set of collectors where it is what rules sample for that.
type Place = (String, Option<u32>);

/// What is known of a switch, to tell collectors.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    /// The switch.
    pub daemon: &'v Daemon,
    /// What the database says.
    pub content: &'v Content,
    /// Numbers of ports, by bridges.
    pub numbers: &'v LiteMap<String, Numbers>,
    /// Whether there are dummy ports, which are for tests.
    pub has_dummies: bool,
    /// The time.
    pub now: Instant,
}

impl Exports {
    /// What has come of IPFIX, for controllers.
    #[must_use]
    pub fn counts(&self) -> IpfixCounts {
        self.counts.clone()
    }

    /// When there is something to do; `None`: never.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Tells what the database says from now on.
    pub fn update(&mut self, view: &View<'_>) {
        self.started.get_or_insert(view.now);
        self.complain(view.content);
        self.update_sflow(view);
        self.update_netflow(view);
        self.update_ipfix(view);
        let is_idle = self.sflow.is_empty() && self.netflow.is_empty() && self.ipfix.is_empty();
        self.due = (!is_idle).then_some(view.now);
        let sflow = self.sflow.iter().map(|(name, one)| (name, Protocol::Sflow, one.tally()));
        let netflow = self.netflow.iter().map(|(name, one)| (name, Protocol::Netflow, one.tally()));
        // What rules sample counts with what else is told of the bridge.
        let ipfix: LiteMap<&String, &Tally> =
            self.ipfix.iter().map(|((bridge, _), one)| (bridge, one.tally())).gather();
        let ipfix = ipfix.into_iter().map(|(name, tally)| (name, Protocol::Ipfix, tally));
        let told = sflow.chain(netflow).chain(ipfix).map(|(bridge, protocol, tally)| Told {
            bridge: bridge.clone(),
            protocol,
            tally: tally.clone(),
        });
        view.daemon.set_told(told.collect());
    }

    fn update_sflow(&mut self, view: &View<'_>) {
        let wanted =
            |name: &String| settings::sflow(view.content.bridges.get(name)?.sflow.as_ref()?).ok();
        let uptime = self.uptime(view.now);
        for (name, sflow) in std::mem::take(&mut self.sflow) {
            let Some(settings) = wanted(&name) else {
                sflow.end(&name, view, uptime);
                continue;
            };
            let sub_id = sflow.sub_id();
            let mut sflow = match sflow.is(&settings) {
                true => sflow,
                // The old sampling ends first.
                false => {
                    let exporter = sflow.end(&name, view, uptime);
                    Sflow::start(&name, settings, sub_id, exporter, view)
                }
            };
            sflow.look_again(view.now);
            self.sflow.insert(name, sflow);
        }
        for name in view.content.bridges.keys() {
            if let Some(settings) = wanted(name).filter(|_| !self.sflow.contains_key(name)) {
                let sub_id = free(self.sflow.values().map(Sflow::sub_id));
                let sflow = Sflow::start(name, settings, sub_id, None, view);
                self.sflow.insert(name.clone(), sflow);
            }
        }
    }

    fn update_netflow(&mut self, view: &View<'_>) {
        let wanted = |name: &String| {
            settings::netflow(view.content.bridges.get(name)?.netflow.as_ref()?).ok()
        };
        let now = view.daemon.switch().flow_time();
        for (name, netflow) in &mut self.netflow {
            if wanted(name).is_none_or(|settings| !netflow.is(&settings)) {
                netflow.end(now);
            }
        }
        self.netflow
            .retain(|name, netflow| wanted(name).is_some_and(|settings| netflow.is(&settings)));
        for name in view.content.bridges.keys() {
            if let Some(settings) = wanted(name).filter(|_| !self.netflow.contains_key(name)) {
                self.netflow.insert(name.clone(), Netflow::new(settings));
            }
        }
    }

    fn update_ipfix(&mut self, view: &View<'_>) {
        let mut wanted = wanted_ipfix(view.content);
        let now = view.daemon.switch().flow_time();
        for (place, mut ipfix) in std::mem::take(&mut self.ipfix) {
            match wanted.get(&place).is_some_and(|settings| ipfix.is(settings)) {
                true => {
                    wanted.remove(&place);
                    ipfix.look_again();
                    self.ipfix.insert(place, ipfix);
                }
                // The old sampling ends first.
                false => ipfix.end(view, now),
            }
        }
        // Those that have ended make room.
        for ((bridge, set), ipfix) in &mut self.ipfix {
            ipfix.sample((bridge, *set), view);
        }
        for ((bridge, set), settings) in wanted {
            self.processes = self.processes.wrapping_add(1);
            let of_bridge = self.ipfix.iter().find(|((name, _), _)| *name == bridge);
            let tally = of_bridge.map_or_else(Tally::default, |(_, other)| other.tally().clone());
            let by = (self.processes, &tally);
            let ipfix = Ipfix::start((&bridge, set), settings, by, view);
            self.ipfix.insert((bridge, set), ipfix);
        }
        self.tell_counts();
    }

    fn tell_counts(&self) {
        let counts = |(place, one): (&Place, &Ipfix)| (place.clone(), one.counts(place.1));
        self.counts.set(self.ipfix.iter().map(counts).gather());
    }

    /// Whether any collector is told of a bridge by IPFIX.
    #[must_use]
    pub fn has_ipfix(&self, bridge: &str) -> bool {
        self.ipfix.iter().any(|((name, _), _)| name == bridge)
    }

    /// Whether packets are to be counted by flows.
    #[must_use]
    pub fn counts_flows(&self) -> bool {
        !self.netflow.is_empty()
    }

    /// Whether those are that come in on a bridge.
    #[must_use]
    pub fn counts_flows_of(&self, bridge: &str) -> bool {
        self.netflow.contains_key(bridge)
    }

    /// Counts packets of a flow that have come in on a bridge.
    pub fn count_flow(&mut self, bridge: &str, key: Key, packets: &Packets) {
        if let Some(netflow) = self.netflow.get_mut(bridge) {
            netflow.count(key, packets);
        }
    }

    /// Whether it is known where packets of a flow go, and was looked at since then, in milliseconds since the
    /// switch was started.
    #[must_use]
    pub fn knows_flow(&self, bridge: &str, key: &Key, since: u64) -> bool {
        self.netflow.get(bridge).is_some_and(|netflow| netflow.knows(key, since))
    }

    /// So many packets were not recorded: they may have been of any bridge's flows.
    pub fn lose_flows(&self, packets: u64) {
        self.netflow.values().for_each(|netflow| netflow.tally().add_lost(packets));
    }

    /// Tells the log what is wrong with rows, once.
    fn complain(&mut self, content: &Content) {
        let wrong = content.bridges.iter().map(|(name, bridge)| {
            let sflow = bridge.sflow.as_ref().and_then(|row| settings::sflow(row).err());
            let netflow = bridge.netflow.as_ref().and_then(|row| settings::netflow(row).err());
            let sets = bridge.collector_sets.values();
            let ipfix =
                bridge.ipfix.iter().chain(sets).filter_map(|row| settings::ipfix(row).err());
            (name.clone(), sflow.into_iter().chain(netflow).chain(ipfix).collect())
        });
        let wrong: LiteMap<String, Vec<String>> = wrong.gather();
        for (name, problems) in &wrong {
            if self.wrong.get(name) != Some(problems) {
                for problem in problems {
                    tracing::warn!("bridge {name}: {problem}");
                }
            }
        }
        self.wrong = wrong;
    }

    /// How long collectors have been told of anything, in milliseconds. It goes round after 49 days.
    fn uptime(&self, now: Instant) -> u32 {
        let started = self.started.unwrap_or(now);
        let uptime = now.saturating_duration_since(started).as_millis();
        u32::try_from(uptime & u128::from(u32::MAX)).unwrap_or(0)
    }

    /// Sends what there is to be sent, where it is time for that.
    pub fn run(&mut self, view: &View<'_>) {
        if self.due.is_none_or(|due| view.now < due) {
            return;
        }
        self.due = Some(later(view.now, PERIOD));
        let uptime = self.uptime(view.now);
        for (name, sflow) in &mut self.sflow {
            sflow.run(name, view, uptime);
        }
        let now = view.daemon.switch().flow_time();
        for (_, netflow) in &mut self.netflow {
            netflow.run(now);
        }
        for (_, ipfix) in &mut self.ipfix {
            ipfix.run(view, now);
        }
        if !self.ipfix.is_empty() {
            self.tell_counts();
        }
    }

    /// The same, whether or not it is time for that: for tests.
    pub fn run_now(&mut self, view: &View<'_>) {
        self.due = self.due.map(|_| view.now);
        self.run(view);
    }

    /// Sends all that was not told yet, since the switch ends.
    pub fn end(&mut self, view: &View<'_>) {
        let uptime = self.uptime(view.now);
        for (name, sflow) in std::mem::take(&mut self.sflow) {
            sflow.end(&name, view, uptime);
        }
        let now = view.daemon.switch().flow_time();
        for (_, mut netflow) in std::mem::take(&mut self.netflow) {
            netflow.end(now);
        }
        for (_, ipfix) in std::mem::take(&mut self.ipfix) {
            ipfix.end(view, now);
        }
        self.due = None;
    }
}

/// What is to be told by IPFIX.
fn wanted_ipfix(content: &Content) -> LiteMap<Place, IpfixSettings> {
    let of_bridge = |(name, bridge): (&String, &Bridge)| {
        let own = bridge.ipfix.iter().map(|row| (None, row));
        let sets = bridge.collector_sets.iter().map(|(set, row)| (Some(*set), row));
        let settings = own
            .chain(sets)
            .filter_map(|(set, row)| Some(((name.clone(), set), settings::ipfix(row).ok()?)));
        settings.collect::<Vec<_>>()
    };
    content.bridges.iter().flat_map(of_bridge).gather()
}

/// The first number that is not taken. Numbers stay as they are where other bridges come and go: collectors would
/// take a bridge of another number for another one.
fn free(taken: impl Iterator<Item = u32>) -> u32 {
    let taken: BTreeSet<u32> = taken.gather();
    (0..)
        .zip(&taken)
        .find(|(number, taken)| number != *taken)
        .map_or_else(|| u32::try_from(taken.len()).unwrap_or(u32::MAX), |(number, _)| number)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use daemon::{Options, State};
    use ovsdb::Uuid;

    use super::settings::{IpfixRow, NetflowRow};
    use super::*;
    use crate::content::Texts;

    /// Has `act` done with a switch of which one bridge tells collectors, as `set` has it.
    fn with_bridge(set: impl FnOnce(&mut Bridge), act: impl FnOnce(&Daemon, &mut Content)) {
        let daemon = Daemon::start(State::default(), Options::default()).unwrap();
        let mut bridge = Bridge::bare(Uuid(2), Texts::new(), LiteMap::new());
        set(&mut bridge);
        act(&daemon, &mut Content::bare(Texts::new(), ("br0", bridge)));
        daemon.shutdown();
    }

    fn view<'v>(
        daemon: &'v Daemon,
        content: &'v Content,
        numbers: &'v LiteMap<String, Numbers>,
    ) -> View<'v> {
        View { daemon, content, numbers, has_dummies: true, now: Instant::now() }
    }

    #[test]
    fn what_rules_sample_is_told_once_there_is_room_for_it() {
        let row = IpfixRow { targets: vec!["127.0.0.1:9".to_owned()], ..IpfixRow::default() };
        let set = |bridge: &mut Bridge| {
            bridge.collector_sets = (0..65).map(|id| (id, row.clone())).collect();
        };
        with_bridge(set, |daemon, content| {
            let (mut exports, numbers) = (Exports::default(), LiteMap::new());
            let deaf = |exports: &Exports| {
                let deaf = exports.ipfix.iter().filter(|(_, ipfix)| !ipfix.is_sampling());
                deaf.map(|((_, set), _)| *set).collect::<Vec<_>>()
            };
            exports.update(&view(daemon, content, &numbers));
            assert_eq!(deaf(&exports), [Some(64)]);
            exports.update(&view(daemon, content, &numbers));
            assert_eq!(deaf(&exports), [Some(64)]);
            content.bridges.get_mut("br0").unwrap().collector_sets.remove(&3);
            exports.update(&view(daemon, content, &numbers));
            assert_eq!((deaf(&exports), exports.ipfix.len()), (Vec::new(), 64));
        });
    }

    #[test]
    fn what_was_not_told_yet_is_when_the_switch_ends() {
        let row = NetflowRow { targets: vec!["127.0.0.1:9".to_owned()], ..NetflowRow::default() };
        with_bridge(
            |bridge| bridge.netflow = Some(row),
            |daemon, content| {
                let (mut exports, numbers) = (Exports::default(), LiteMap::new());
                exports.update(&view(daemon, content, &numbers));
                let key = Key {
                    input: 1,
                    source: Ipv4Addr::new(192, 0, 2, 1),
                    destination: Ipv4Addr::new(192, 0, 2, 2),
                    protocol: 17,
                    ports: [1, 2],
                    tos: 0,
                };
                let last = daemon.switch().flow_time();
                let packets = Packets { output: None, packets: 1, bytes: 60, flags: 0, last };
                exports.count_flow("br0", key, &packets);
                let tally = exports.netflow.get("br0").unwrap().tally().clone();
                assert_eq!(tally.sent() + tally.lost(), 0);
                exports.end(&view(daemon, content, &numbers));
                // Whether or not the system takes it.
                assert_eq!(tally.sent() + tally.lost(), 1);
                assert_eq!(exports.due(), None);
            },
        );
    }

    #[test]
    fn the_first_number_that_is_not_taken_is_given() {
        let given = |taken: &[u32]| free(taken.iter().copied());
        assert_eq!([given(&[]), given(&[0]), given(&[1]), given(&[2, 0, 1])], [0, 1, 0, 3]);
        assert_eq!(given(&[3, 0, 1]), 2);
    }
}
