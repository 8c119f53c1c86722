//! The flows that a datapath of Open vSwitch would have: kept for `ovs-appctl` alone, of what workers have
//! recorded of the packets that came in.
//!
//! Packets are recorded sparingly until somebody asks for flows: where little comes in, all of the last
//! seconds are there then. From then on, and for a while, all are; with `--enable-dummy`, which is for
//! tests, always.

mod netflow;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::clock;
use eal::time::{Time, later};
use flow::{Frozen, Key, Pipeline, VlanLimit, slot};
use odp::action::Onward;
use odp::flows::{Event, Flows, Host, Look, MAX_IDLE, Packets, Way};
use odp::{Abilities, Flow, Told};
use openflow::PortNo;
use ovs::content::Interface;
use ovs::device::TUNNELS;
use switch::{Record, Recorded};
use tracing::Level;

use self::netflow::Known;
use super::commands::dpif::{PATHS, path_of};
use super::commands::trace::{again, round, tunnels, way};
use super::commands::{self, Appctl};

/// How often what was recorded is taken, as Open vSwitch looks at its flows.
const PERIOD: Duration = Duration::from_millis(500);

/// How long packets have to be recorded until flows are told.
const FIRST: Duration = Duration::from_secs(1);

/// How long packets are recorded after somebody has asked.
const INTEREST: Duration = Duration::from_secs(60);

/// How many ways of packets are followed each time, since each is a walk through all tables, and others wait
/// for the main thread; whose turn does not come is next the next time.
const MAX_WAYS: usize = 2_000;

/// How many of them for collectors of NetFlow beside those, each time.
const MAX_OWN_WAYS: usize = 1_000;

/// The most lines of the log about flows that there are, each time.
const MAX_LINES: usize = 256;

/// Flows of all data paths.
#[derive(Debug, Default)]
pub struct PathFlows {
    /// By the place in [`PATHS`].
    paths: [Flows; PATHS.len()],
    /// Whether flows are dumped without what they are of, as their names are enough.
    pub is_terse: bool,
    /// Whether flows stay what they are, whatever rules say.
    pub is_paused: bool,
    /// What a data path is taken to be able to do: packets go as ever.
    pub abilities: Abilities,
    /// For tests: recorded always.
    is_forced: bool,
    /// Whether packets are recorded, and whether all are.
    is_begun: bool,
    is_on: bool,
    /// Not all flows were looked at the last time.
    is_behind: bool,
    /// Since when.
    since: Option<Instant>,
    /// When somebody asked last, and when what was recorded is to be taken.
    asked: Option<Instant>,
    due: Option<Instant>,
    /// When that was found to have changed last, in milliseconds since the switch was started.
    changed: u64,
    /// What decided when flows were looked at last.
    decided: HashMap<String, Arc<Pipeline>>,
}

impl PathFlows {
    /// None; recorded always if `is_forced`.
    pub fn new(is_forced: bool) -> Self {
        Self { is_forced, is_terse: true, ..Self::default() }
    }

    /// How long until what was recorded is to be taken.
    pub fn due(&self, time: &Time) -> Option<Duration> {
        self.due.and_then(|due| time.until(due))
    }

    /// Whether there are no flows at all.
    pub fn are_none(&self) -> bool {
        self.paths.iter().all(Flows::is_empty)
    }

    /// The flows of a data path, by its place in [`PATHS`].
    pub fn of(&self, path: usize) -> Option<&Flows> {
        self.paths.get(path)
    }

    /// The flows of a data path by its name, while packets are recorded.
    pub fn of_path(&self, name: &str) -> Option<&Flows> {
        let path = PATHS.iter().position(|path| *path == name)?;
        self.of(path).filter(|_| self.is_on)
    }

    /// Those of all.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Flows> {
        self.paths.iter_mut()
    }
}

/// Takes what was recorded, where that is due.
pub fn turn(appctl: &mut Appctl<'_>) {
    let is_due = appctl.flows.due(appctl.time).is_some_and(|left| left.is_zero());
    let is_wanted = appctl.flows.is_forced || appctl.agent.exports().counts_flows();
    if is_wanted && !appctl.flows.is_on {
        // What came before is not for collectors.
        appctl.daemon.switch().record(Record::Nothing);
        switch_on(appctl);
    } else if is_due {
        let (now, flows) = (appctl.time.now(), &mut *appctl.flows);
        let ends = flows.asked.is_none_or(|asked| now.saturating_duration_since(asked) > INTEREST);
        if ends && !is_wanted {
            (flows.is_on, flows.due) = (false, None);
            flows.all().for_each(Flows::clear);
            return appctl.daemon.switch().record(Record::Sparingly);
        }
        collect(appctl, false);
    } else if !appctl.flows.is_begun {
        appctl.flows.is_begun = true;
        appctl.daemon.switch().record(Record::Sparingly);
    }
}

/// Somebody asks for flows: all that has come in until now is counted when this returns, and flows are what
/// rules say. `false` where packets are not recorded long enough to tell.
pub fn ask(appctl: &mut Appctl<'_>) -> bool {
    let now = appctl.time.now();
    appctl.flows.asked = Some(now);
    if !appctl.flows.is_on {
        switch_on(appctl);
        if begin(appctl) {
            // All of what has come in lately was recorded.
            appctl.flows.since = None;
            return true;
        }
    }
    let since = appctl.flows.since.map_or(now, |since| later(since, FIRST));
    let is_known = appctl.flows.is_forced || now >= since;
    if is_known {
        collect(appctl, true);
    }
    is_known
}

fn switch_on(appctl: &mut Appctl<'_>) {
    let now = appctl.time.now();
    appctl.flows.is_begun = true;
    appctl.flows.is_on = true;
    appctl.flows.since = Some(now);
    appctl.flows.due = Some(later(now, PERIOD));
    appctl.daemon.switch().record(Record::All);
}

/// Takes what was recorded before anybody asked, of flows that have not ended by now. Returns whether no packet of
/// these was passed over.
fn begin(appctl: &mut Appctl<'_>) -> bool {
    let passed = gather(appctl, true, true);
    let idle = appctl.flows.paths.iter().map(|flows| flows.max_idle).fold(MAX_IDLE, u64::max);
    passed.is_none_or(|at| age(at, clock::now()) > idle)
}

/// How long ago that was, in milliseconds.
fn age(cycles: u64, now: u64) -> u64 {
    let age = clock::duration(now.saturating_sub(cycles)).as_millis();
    age.try_into().unwrap_or(u64::MAX)
}

/// Forgets what was recorded, and all flows of one data path, or of all.
pub fn forget(appctl: &mut Appctl<'_>, path: Option<usize>) {
    if appctl.flows.is_on {
        collect(appctl, false);
    } else {
        drop(appctl.daemon.switch().take_recording());
    }
    let wanted = |(at, _): &(usize, &mut Flows)| path.is_none_or(|path| path == *at);
    appctl.flows.all().enumerate().filter(wanted).for_each(|(_, flows)| flows.clear());
}

/// Takes what was recorded for collectors, before that which it goes by becomes something else, or ends.
pub fn collect_for_collectors(appctl: &mut Appctl<'_>) {
    if appctl.agent.exports().counts_flows() {
        collect(appctl, false);
    }
}

/// Takes what was recorded. Flows are looked at whether they are as rules say, if `asks`, or rules are
/// others.
pub fn collect(appctl: &mut Appctl<'_>, asks: bool) {
    if appctl.flows.is_on {
        gather(appctl, asks, false);
    }
}

/// The same; if it is `old`, packets are left out whose flows have ended. Returns when packets were passed over
/// last, in clock cycles.
fn gather(appctl: &mut Appctl<'_>, asks: bool, old: bool) -> Option<u64> {
    appctl.daemon.switch().hear_tunnel_neighbours();
    let mut flows = std::mem::take(appctl.flows);
    // Ways are told meanwhile, as those of what the data path is taken to be able to do.
    appctl.flows.abilities = flows.abilities;
    flows.due = Some(later(appctl.time.now(), PERIOD));
    let idle = appctl.agent.content().and_then(|content| content.other_config.get("max-idle"));
    let idle = idle.and_then(|text| text.parse().ok()).unwrap_or(MAX_IDLE);
    let now = appctl.daemon.switch().flow_time();
    let has_changed = has_changed(appctl, &mut flows);
    if has_changed {
        flows.changed = now;
    }
    let asks = has_changed || asks || std::mem::take(&mut flows.is_behind);
    flows.is_behind = asks && flows.is_paused;
    let asks = asks && !flows.is_paused;
    let (trouble, trace) = Default::default();
    let (lines, ways, own_ways) = (MAX_LINES, MAX_WAYS, MAX_OWN_WAYS);
    let mut host = Path { appctl, name: "", now, lines, ways, own_ways, trouble, trace };
    let (mut is_behind, were_some) = (flows.is_behind, !flows.are_none());
    for (flows, path) in flows.paths.iter_mut().zip(PATHS) {
        flows.max_idle = idle;
        host.name = path;
        is_behind |= !flows.revalidate(now, asks, &mut host);
    }
    flows.is_behind = is_behind;
    if were_some && flows.are_none() {
        // Nobody holds the numbers of what goes round any more.
        commands::trace::renumber();
    }
    let keeps = if old { idle } else { u64::MAX };
    let passed = take(&mut host, &mut flows, keeps);
    if !flows.is_terse && tracing::enabled!(target: "dpif", Level::DEBUG) {
        for (flows, path) in flows.paths.iter().zip(PATHS) {
            dump(flows, path, now);
        }
    }
    *appctl.flows = flows;
    passed
}

/// Counts what was recorded, but for packets whose last one came longer ago than `keeps`, in milliseconds. Returns when
/// packets were passed over last, in clock cycles.
fn take(host: &mut Path<'_, '_>, flows: &mut PathFlows, keeps: u64) -> Option<u64> {
    let recording = host.appctl.daemon.switch().take_recording();
    let cycles = clock::now();
    let is_told = host.appctl.agent.exports().counts_flows();
    let mut inlets = Inlets::default();
    for kind in &recording.kinds {
        let Recorded { key, onward, bridge, worker, origin, packets, bytes, first_bytes, last } =
            kind;
        let age = age(*last, cycles);
        if age > keeps {
            continue;
        }
        let from = key.get_u32(slot::IN_PORT);
        let port = match onward {
            None if bridge.is_empty() => inlets.of_path(host.appctl, from),
            // A port of a tunnel, which the bridge has recorded.
            None => inlets.of_bridge(host.appctl, bridge, from),
            // A patch port is none of the data path's.
            Some(_) => match inlets.of_bridge(host.appctl, bridge, from) {
                None => inlets.of_path(host.appctl, u32::from(*origin)),
                known => known,
            },
        };
        let Some(Inlet { path, number, vlans, is_main }) = port else { continue };
        let thread = if is_main { MAIN } else { *worker };
        let mut key = key.with_tags(vlans);
        key.set(slot::IN_PORT, number.into());
        if let Some(frozen) = onward {
            key.set(slot::RECIRC_ID, commands::trace::number(bridge, frozen).into());
        }
        let last = host.now.saturating_sub(age);
        let of = Packets {
            key: &key,
            packets: *packets,
            bytes: *bytes,
            first_bytes: *first_bytes,
            last,
            thread,
        };
        let changed = flows.changed;
        if let (Some(flows), Some(name)) = (flows.paths.get_mut(path), PATHS.get(path)) {
            host.name = name;
            let onward = onward.as_ref().map(|frozen| tracked(bridge, frozen));
            let misses = flows.misses;
            match &onward {
                Some(onward) => flows.take_again(&of, Arc::clone(onward), host),
                None => flows.take(&of, host),
            }
            if is_told {
                let is_new = flows.misses != misses;
                let inlet = onward.as_ref().and(Some(bridge.as_str()).zip(PortNo(from).v10()));
                let known = Known { inlet, way: flows.way_of(&key, thread), is_new, changed };
                netflow::count(host, &of, onward.as_deref(), &known);
            }
        }
    }
    host.appctl.agent.exports().lose_flows(recording.missed);
    if let Some(flows) = flows.paths.first_mut() {
        flows.lost = flows.lost.saturating_add(recording.missed);
    }
    recording.passed
}

/// Where packets go on that were tracked in a bridge.
fn tracked(bridge: &str, frozen: &Arc<Frozen>) -> Arc<Onward> {
    let (bridge, frozen) = (bridge.to_owned(), Arc::clone(frozen));
    Arc::new(Onward { bridge, frozen, hash: None, copied: BTreeSet::new() })
}

/// The thread that has flows of ports that Open vSwitch polls by none of its own.
pub const MAIN: u16 = u16::MAX;

/// A port where packets come in.
#[derive(Clone, Copy, Debug)]
struct Inlet {
    /// The place of its data path in [`PATHS`], and its number there.
    path: usize,
    number: u32,
    /// How many tags rules of its bridge can match on.
    vlans: VlanLimit,
    /// Whether it is a dummy port, which Open vSwitch polls by its main thread, or what tunnels have come by to such ports.
    is_main: bool,
}

impl Inlet {
    /// The port of this name, which a bridge has.
    fn of(appctl: &Appctl<'_>, bridge: &str, name: &str) -> Option<Self> {
        let number = appctl.agent.path_numbers().of(name)?;
        let content = appctl.agent.content()?;
        let row = content.bridges.get(bridge)?;
        let of = path_of(&row.datapath_type);
        let dummies = appctl.agent.dummies();
        let is_main = content.interface(name).is_some_and(|(_, Interface { kind, .. })| {
            // What comes by a tunnel has come in at a port of the same data path.
            let kind = if TUNNELS.contains(&kind.as_str()) { "internal" } else { kind };
            kind != "dummy-pmd" && dummies.has(kind, &row.datapath_type)
        });
        let path = PATHS.iter().position(|known| *known == of)?;
        Some(Self { path, number, vlans: appctl.vlan_limit(bridge), is_main })
    }
}

/// As [`port`], of a bridge's port by its number of OpenFlow.
fn port_again(appctl: &Appctl<'_>, bridge: &str, number: u32) -> Option<Inlet> {
    let local = (number == PortNo::LOCAL.0).then_some(bridge);
    let named = u16::try_from(number).ok().and_then(|number| appctl.agent.port(bridge, number));
    Inlet::of(appctl, bridge, local.or(named)?)
}

/// The port of the switch's number.
fn port(appctl: &Appctl<'_>, number: u32) -> Option<Inlet> {
    let name = appctl.daemon.switch().port_named(number.try_into().ok()?)?;
    let content = appctl.agent.content()?;
    let (bridge, _) = content.interface(&name)?;
    Inlet::of(appctl, bridge, &name)
}

/// Where packets have come in, each of which is looked for once: there are thousands of kinds of packets.
#[derive(Debug, Default)]
struct Inlets<'r> {
    /// By the switch's numbers.
    of_path: HashMap<u32, Option<Inlet>>,
    /// By bridges and numbers of OpenFlow.
    of_bridges: HashMap<(&'r str, u32), Option<Inlet>>,
}

impl<'r> Inlets<'r> {
    fn of_path(&mut self, appctl: &Appctl<'_>, number: u32) -> Option<Inlet> {
        *self.of_path.entry(number).or_insert_with(|| port(appctl, number))
    }

    fn of_bridge(&mut self, appctl: &Appctl<'_>, bridge: &'r str, number: u32) -> Option<Inlet> {
        let of = self.of_bridges.entry((bridge, number));
        *of.or_insert_with(|| port_again(appctl, bridge, number))
    }
}

/// Whether something else decides by now about packets than when this was asked last.
fn has_changed(appctl: &Appctl<'_>, flows: &mut PathFlows) -> bool {
    let Some(content) = appctl.agent.content() else { return false };
    let switch = appctl.daemon.switch();
    let pipeline = |name: &String| Some((name.clone(), switch.flows(name).ok()??.pipeline));
    let decides: HashMap<String, Arc<Pipeline>> =
        content.bridges.keys().filter_map(pipeline).collect();
    let is_same = decides.len() == flows.decided.len()
        && decides
            .iter()
            .all(|(name, new)| flows.decided.get(name).is_some_and(|old| Arc::ptr_eq(old, new)));
    flows.decided = decides;
    !is_same
}

/// A data path.
struct Path<'p, 'a> {
    appctl: &'p mut Appctl<'a>,
    name: &'static str,
    now: u64,
    lines: usize,
    ways: usize,
    own_ways: usize,
    /// What was wrong on the last way, and all of that, where it had no end.
    trouble: Vec<String>,
    trace: Option<String>,
}

impl Path<'_, '_> {
    /// The way that is told, whose troubles are kept.
    fn heed(&mut self, told: Told) -> Way {
        if told.is_lost() {
            self.trace = Some(told.text);
        }
        self.trouble = told.errors;
        let Told { mask, actions, is_flooded, .. } = told;
        Way { mask, actions, is_flooded, options: Vec::new() }
    }

    /// Tells what is wrong with rules, since there is a flow that they are for.
    fn complain(&mut self) {
        for trouble in self.trouble.drain(..) {
            tracing::warn!(target: "ofproto_dpif_xlate", "{trouble}");
        }
        if let Some(trace) = self.trace.take() {
            tracing::warn!(target: "ofproto_dpif_upcall", "{trace}");
        }
    }
}

impl Host for Path<'_, '_> {
    fn hash(&mut self, key: &Key) -> u32 {
        round::part(key)
    }

    fn is_tired(&self) -> bool {
        self.ways == 0
    }

    fn way(&mut self, key: &Key, onward: Option<&Onward>) -> Option<Way> {
        self.ways = self.ways.saturating_sub(1);
        if let Some(onward) = onward {
            let told = again(self.appctl, key, onward);
            return Some(self.heed(told));
        }
        if key.get_u32(slot::RECIRC_ID) != 0 {
            return round::way(self.appctl, key);
        }
        let port = tunnels::port_of(self.appctl, key)?;
        let bridge = self.appctl.agent.content()?.interface(&port)?.0.to_owned();
        let number = self.appctl.agent.number(&bridge, &port)?;
        let mut key = *key;
        key.set(slot::IN_PORT, PortNo::from_v10(number).0.into());
        let told = way(self.appctl, &bridge, key);
        let options = tunnels::options(self.appctl, &bridge);
        Some(Way { options, ..self.heed(told) })
    }

    fn told(&mut self, event: Event<'_>) {
        let Some(left) = self.lines.checked_sub(1) else { return };
        self.lines = left;
        log(self.name, event, self.now);
        if matches!(event, Event::Added(_)) {
            self.complain();
        }
    }
}

/// Lines of the log as Open vSwitch writes them.
fn log(path: &str, event: Event<'_>, now: u64) {
    let short = Look { is_full: false, names: None, now };
    let full = Look { is_full: true, ..short };
    match event {
        Event::Missed(key) => {
            if tracing::enabled!(target: "dpif_netdev", Level::DEBUG) {
                let port = key.get_u32(slot::IN_PORT).to_string();
                let shown =
                    odp::Masked { key, mask: None, port: &port, options: &[], is_full: true };
                let name = path.split('@').next_back().unwrap_or_default();
                let packet = odp::told::packet(key, None);
                tracing::debug!(target: "dpif_netdev", "{name}: miss upcall:\n{shown}\n{packet}");
            }
        }
        Event::Added(flow) => {
            if tracing::enabled!(target: "dpif_netdev", Level::DEBUG) {
                let (id, of, does) = (flow.ufid(), flow.matching(short), flow.actions(short));
                tracing::debug!(
                    target: "dpif_netdev",
                    "flow_add: {id} mega_{id} {of}, actions:{does}"
                );
            }
        }
        Event::Changed(flow) => {
            if tracing::enabled!(target: "dpif", Level::DEBUG) {
                let (id, of, does) = (flow.ufid(), flow.matching(full), flow.actions(short));
                tracing::debug!(target: "dpif", "{path}: put[modify] {id} {of}, actions:{does}");
            }
        }
        Event::Deleted(flow) => {
            if tracing::enabled!(target: "dpif", Level::DEBUG) {
                let (id, of) = (flow.ufid(), flow.matching(full));
                tracing::debug!(target: "dpif", "{path}: flow_del {id} {of}");
            }
        }
    }
}

/// All flows of a data path, as lines of the log.
fn dump(flows: &Flows, path: &str, now: u64) {
    let look = Look { is_full: true, names: None, now };
    for flow in flows.iter().take(MAX_LINES) {
        let line = line(flow, look);
        tracing::debug!(target: "dpif", "{path}: flow_dump {} {line}", flow.ufid());
    }
}

/// A flow as it is dumped.
pub fn line(flow: &Flow, look: Look<'_>) -> String {
    format!("{}, {}, actions:{}", flow.matching(look), flow.counts(look), flow.actions(look))
}
