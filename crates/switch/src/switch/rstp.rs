//! Spanning tree as control threads see it: which bridges and ports take part, and what workers are told
//! of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::bridge::{BridgeChange, BridgeId};
use datapath::gate::Gate;
use datapath::guard::BpduGuard;
use eal::time::later;
use l2proto::rstp::port::{Port, Role, State};
use l2proto::rstp::tree::{Link, Todo, Tree};
use l2proto::rstp::vector::BridgeName;
use l2proto::rstp::{RstpVersion, bpdu, numbers};
use litemap::LiteMap;
use ordered::{Gather as _, Order as _};
use packet::MacAddr;

use super::{Control, Switch};
use crate::bridges::tell;
use crate::ports::Entry;
use crate::report::{RstpBridge, RstpPort, RstpReport};

/// What the protocol counts its time in.
const SECOND: Duration = Duration::from_secs(1);

/// Seconds that are made up for, where the clock was put forward or the machine asleep. After that many
/// nothing that was heard before holds.
const MOST_LATE: u32 = 64;

/// How long it is not logged that the root is another one, after it was.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// How often messages go on by patch ports at most, before the rest waits for the next turn.
const MOST_HOPS: usize = 64;

/// A bridge that takes part.
#[derive(Debug)]
struct Branch {
    id: BridgeId,
    tree: Tree,
    /// The address by which it is known where none is given: it stays as long as the bridge takes part.
    own: MacAddr,
    /// When the next second is over.
    next: Instant,
    /// Ports that take no part, and forward.
    others: BTreeSet<u16>,
    /// What workers know.
    told: Option<Arc<Gate>>,
    /// When its topology has changed last, and how often it had by then.
    changed: Option<(Instant, u64)>,
    /// Who the root was at the last look, and when it was logged last that it is another one.
    root: BridgeName,
    logged: Option<Instant>,
    /// When ports came into their states.
    turns: LiteMap<u16, u64>,
}

/// The ports of a bridge.
#[derive(Default)]
struct Parts {
    /// Those that take part, in the order of their numbers.
    links: Vec<Link>,
    /// Those that do not.
    others: BTreeSet<u16>,
    /// Those where neighbours are heard.
    listened: Vec<u16>,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Branches {
    all: LiteMap<String, Branch>,
    /// What one bridge says to another by a patch port: the port where it comes in.
    crossing: Vec<(u16, Vec<u8>)>,
    /// How many times ports have come into another state.
    turns: u64,
}

impl Branch {
    /// What its ports may do; `None` where all forward.
    fn gate(&self) -> Option<Gate> {
        let of = |wanted: State| {
            let ports = self.tree.ports().filter(move |(_, port)| port.state() == wanted);
            ports.map(|(number, _)| number)
        };
        let is_open = self.tree.ports().all(|(_, port)| port.state() == State::Forwarding);
        (!is_open).then(|| Gate {
            forwarding: of(State::Forwarding).chain(self.others.iter().copied()).collect(),
            learning: of(State::Learning).collect(),
        })
    }

    /// Notes who the root is; returns whether that is another one. Neighbours may change that as often as
    /// they like, and are logged now and then.
    fn note_root(&mut self, name: &str, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.root, self.tree.root().root);
        if before == self.root {
            return false;
        }
        let is_due =
            self.logged.is_none_or(|then| now.saturating_duration_since(then) >= LOG_PAUSE);
        if is_due {
            tracing::info!(bridge = name, root = %self.root, "spanning tree has another root");
            self.logged = Some(now);
        }
        true
    }

    /// Notes that ports have come into other states, the first of which is this turn; returns the next one.
    fn note_turns(&mut self, ports: &[u16], first: u64) -> u64 {
        let mut turn = first;
        for port in ports {
            self.turns.insert(*port, turn);
            turn = turn.saturating_add(1);
        }
        let tree = &self.tree;
        self.turns.retain(|port, _| tree.ports().any(|(number, _)| number == *port));
        turn
    }

    /// Lets as much time pass as has passed at `now`: a second at a time.
    fn tick(&mut self, now: Instant) {
        if self.next > now {
            return;
        }
        let late = now.saturating_duration_since(self.next);
        if late > SECOND.saturating_mul(MOST_LATE) {
            self.next = now.checked_sub(SECOND.saturating_mul(MOST_LATE)).unwrap_or(now);
        }
        self.next = later(self.next, SECOND);
        self.tree.tick();
    }
}

impl Switch {
    /// The bridges that take part in spanning tree, with their ports, in the order of their names.
    #[must_use]
    pub fn rstp(&self) -> Vec<RstpReport> {
        let control = self.control();
        let now = control.time.now();
        let report = |(name, branch): (&String, &Branch)| control.report_rstp(name, branch, now);
        control.rstp.all.iter().map(report).collect()
    }

    /// Has a port find out anew whether its neighbour speaks the rapid protocol: `mcheck` of IEEE
    /// 802.1D-2004, clause 17.19.13. Returns whether the port takes part in spanning tree.
    ///
    /// # Errors
    /// There is no such port.
    pub fn check_rstp(&self, port: &str) -> Result<bool, crate::Error> {
        let mut control = self.control();
        let number = control.ports.get(port)?.number();
        let mut takes_part = false;
        for (_, branch) in &mut control.rstp.all {
            takes_part |= branch.tree.check_protocol(number);
        }
        control.update_rstp();
        Ok(takes_part)
    }
}

impl Switch {
    /// Has a bridge tell its neighbours that the topology has changed, and forget what it has learnt, as
    /// if it had. Returns whether the bridge takes part in spanning tree.
    pub fn rstp_change(&self, bridge: &str) -> bool {
        let mut control = self.control();
        let branch = control.rstp.all.get_mut(bridge);
        let takes_part = branch.map(|branch| branch.tree.note_change()).is_some();
        control.update_rstp();
        takes_part
    }
}

impl Control {
    /// Looks after all trees, since bridges or ports have come, gone or changed.
    pub(super) fn update_rstp(&mut self) {
        if self.run_rstp().is_some() {
            self.notes.ask();
        }
    }

    /// Does what is due in all trees; returns when there is something to do next.
    pub(super) fn run_rstp(&mut self) -> Option<Instant> {
        let enabled = self.bridges.iter().filter(|(_, bridge)| bridge.options().rstp.enabled);
        let names: Vec<String> = enabled.map(|(name, _)| name.to_owned()).collect();
        if names.is_empty() && self.rstp.all.is_empty() {
            return None;
        }
        self.end_rstp(&names);
        let mut taking_part = BTreeSet::new();
        for name in &names {
            taking_part.extend(self.run_branch(name));
        }
        for number in self.ears.bpdu_ports() {
            if !taking_part.contains(&number) {
                self.listen_for_bpdus(number, false);
            }
        }
        for _ in 0..MOST_HOPS {
            if self.rstp.crossing.is_empty() {
                break;
            }
            self.cross();
        }
        self.rstp.all.values().map(|branch| branch.next).min()
    }

    /// Takes bridges out that take no part any more: all their ports forward.
    fn end_rstp(&mut self, wanted: &[String]) {
        let gone: Vec<String> =
            self.rstp.all.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in gone {
            let Some(branch) = self.rstp.all.remove(&name) else { continue };
            let is_there = self.bridges.get(&name).is_ok_and(|bridge| bridge.id() == branch.id);
            if is_there && branch.told.is_some() {
                tell(&self.mailboxes, branch.id, &BridgeChange::Gate(None));
            }
            self.tell_links();
        }
    }

    /// Does what is due in one bridge; returns the ports on which its neighbours are heard.
    fn run_branch(&mut self, name: &str) -> Vec<u16> {
        let Ok(bridge) = self.bridges.get(name) else { return Vec::new() };
        let (id, options) = (bridge.id(), bridge.options().rstp.clone());
        let now = self.time.now();
        let own = match self.rstp.all.get(name) {
            Some(branch) => branch.own,
            None => self.free_address(id),
        };
        let settings = options.settings(own);
        let Parts { links, others, listened } = self.parts_of(name, id, options.force_version);
        let new = || Branch {
            id,
            tree: Tree::new(settings),
            own,
            next: later(now, SECOND),
            others: BTreeSet::new(),
            told: None,
            changed: None,
            root: BridgeName::default(),
            logged: None,
            turns: LiteMap::new(),
        };
        listened.iter().for_each(|number| self.listen_for_bpdus(*number, true));
        let branch = self.rstp.all.entry(name.to_owned()).or_insert_with(new);
        branch.others = others;
        branch.tree.set(settings);
        branch.tree.update(&links);
        for number in &listened {
            let Some(line) = self.ears.bpdu(*number) else { continue };
            line.heard().for_each(|heard| hear(&mut branch.tree, *number, heard.bytes()));
        }
        branch.tick(now);
        self.finish_branch(name, now);
        listened
    }

    /// What one bridge has said to another by patch ports is heard there.
    fn cross(&mut self) {
        let now = self.time.now();
        let mut names = BTreeSet::new();
        for (number, frame) in std::mem::take(&mut self.rstp.crossing) {
            let mut all = self.rstp.all.iter_mut();
            let is_its = |branch: &Branch| branch.tree.ports().any(|(port, _)| port == number);
            if let Some((name, branch)) = all.find(|(_, branch)| is_its(branch)) {
                hear(&mut branch.tree, number, &frame);
                names.insert(name.clone());
            }
        }
        names.iter().for_each(|name| self.finish_branch(name, now));
    }

    /// Does what a tree has found to be done.
    fn finish_branch(&mut self, name: &str, now: Instant) {
        let Some(branch) = self.rstp.all.get_mut(name) else { return };
        let Todo { states, flush, send } = branch.tree.take();
        let gate = branch.gate().map(Arc::new);
        // First nothing passes any more that must not; what is said then is so.
        if gate != branch.told {
            tell(&self.mailboxes, branch.id, &BridgeChange::Gate(gate.clone()));
            branch.told = gate;
        }
        let changes = branch.tree.changes;
        let has_changed = branch.changed.map_or(0, |(_, before)| before) != changes;
        if has_changed {
            branch.changed = Some((now, changes));
        }
        if !states.is_empty() {
            self.rstp.turns = branch.note_turns(&states, self.rstp.turns);
        }
        let has_other_root = branch.note_root(name, now);
        let from = branch.own;
        // The old protocol has all entries of a bridge age fast, wherever the change is.
        let ports = match branch.tree.settings().is_rapid {
            true => Some(flush.as_slice()).filter(|ports| !ports.is_empty()),
            false => (has_changed || !flush.is_empty()).then_some(&[][..]),
        };
        states.iter().for_each(|number| self.log_state(name, *number));
        if let Some(ports) = ports {
            self.forget_topology(name, ports);
        }
        if !states.is_empty() || has_other_root {
            self.tell_links();
        }
        send.into_iter().for_each(|(number, bpdu)| self.send_bpdu(number, &bpdu, from));
    }

    /// Forgets stations and groups behind ports of a bridge, or behind all where none are given, since they
    /// may be elsewhere now.
    fn forget_topology(&mut self, name: &str, ports: &[u16]) {
        if let Ok(bridge) = self.bridges.get(name) {
            let mut fdb = bridge.fdb().write();
            if ports.is_empty() {
                fdb.flush(None);
            }
            ports.iter().for_each(|number| _ = fdb.flush(Some(*number)));
        }
        self.forget_groups_behind(name, ports);
    }

    fn log_state(&self, bridge: &str, number: u16) {
        let branch = self.rstp.all.get(bridge);
        let port = branch.and_then(|branch| branch.tree.ports().find(|(port, _)| *port == number));
        if let (Some((_, port)), Some(name)) = (port, self.ports.name_of(number)) {
            let (role, state) = (port.role().name(), port.state().name());
            tracing::debug!(bridge, port = name, role, state, "spanning tree");
        }
    }

    /// Sends a message on a port: of a bond by a member that is in use, of a patch port to its peer.
    fn send_bpdu(&mut self, number: u16, bpdu: &bpdu::Bpdu, own: MacAddr) {
        let Some((_, entry)) = self.ports.numbered(number) else { return };
        let from = Some(entry.control().mac()).filter(|mac| mac.is_station()).unwrap_or(own);
        let frame = bpdu.frame(from);
        if let Some(cable) = entry.cable() {
            let peer = self.ports.get(&cable.peer()).map(Entry::number);
            self.rstp.crossing.extend(peer.ok().map(|peer| (peer, frame)));
            return;
        }
        if let Some(number) = self.way_to(entry) {
            self.send_own(number, &[frame]);
        }
    }

    /// The ports of a bridge that take part, by their numbers, and those that do not.
    fn parts_of(&self, name: &str, id: BridgeId, version: RstpVersion) -> Parts {
        let ports = self.ports.of_bridge(id).map(|(port, entry)| (port, entry.number())).gather();
        let outputs = self.mirrors.outputs(name, &ports);
        let mut parts = Parts::default();
        let Parts { links, others, listened } = &mut parts;
        let mut taking_part = Vec::new();
        for (_, entry) in self.ports.of_bridge(id) {
            let (number, options) = (entry.number(), entry.options());
            if !options.rstp.enabled || outputs.contains(number) {
                others.insert(number);
                continue;
            }
            // What comes in there is for its guard otherwise.
            if options.guard.bpdu_guard == BpduGuard::Off {
                listened.push(number);
            }
            taking_part.push(entry);
        }
        taking_part.order_by_key(|entry| entry.number());
        let asked: Vec<_> =
            taking_part.iter().map(|entry| (entry.number(), entry.options().rstp.number)).collect();
        for (entry, number) in taking_part.iter().zip(numbers(&asked)) {
            let link = entry.control().link();
            links.push(Link {
                port: entry.number(),
                settings: entry.options().rstp.settings(number, link.speed_mbps, version),
                is_up: link.up && entry.is_in_service(),
            });
        }
        parts
    }

    /// An address for a bridge: that of one of its ports which no other bridge has.
    fn free_address(&self, id: BridgeId) -> MacAddr {
        let taken = |mac: &MacAddr| self.rstp.all.values().any(|branch| branch.own == *mac);
        let macs = self.ports.of_bridge(id).map(|(_, entry)| entry.control().mac());
        let mut free = macs.filter(|mac| mac.is_station() && !taken(mac));
        free.next().unwrap_or_else(MacAddr::random_local)
    }

    /// Has ports that join a bridge discard until its tree knows them.
    pub(super) fn close_gate(&mut self, name: &str) {
        let Some(branch) = self.rstp.all.get_mut(name).filter(|branch| branch.told.is_none())
        else {
            return;
        };
        let forwarding = branch.tree.ports().map(|(number, _)| number);
        let forwarding = forwarding.chain(branch.others.iter().copied()).collect();
        let gate = Some(Arc::new(Gate { forwarding, ..Gate::default() }));
        tell(&self.mailboxes, branch.id, &BridgeChange::Gate(gate.clone()));
        branch.told = gate;
    }

    /// Tells workers of whom some are new which ports forward.
    pub(super) fn tell_gates(&self) {
        for branch in self.rstp.all.values() {
            tell(&self.mailboxes, branch.id, &BridgeChange::Gate(branch.told.clone()));
        }
    }

    fn report_rstp(&self, name: &str, branch: &Branch, now: Instant) -> RstpReport {
        let (tree, root) = (&branch.tree, branch.tree.root());
        let settings = tree.settings();
        let (times, port_name) = (tree.times(), |number| self.ports.name_of(number));
        let ports = tree.ports().filter_map(|(number, port)| {
            let turn = branch.turns.get(&number).copied().unwrap_or_default();
            Some(report_port(port_name(number)?, port, turn))
        });
        RstpReport {
            bridge: name.to_owned(),
            id: bridge_name(settings.name),
            root: bridge_name(root.root),
            root_path_cost: root.cost,
            root_port: tree.root_port().and_then(port_name).map(str::to_owned),
            max_age: times.max_age,
            hello_time: times.hello,
            forward_delay: times.forward_delay,
            is_rapid: settings.is_rapid,
            changes: tree.changes,
            since_change: branch.changed.map(|(then, _)| now.saturating_duration_since(then)),
            ports: ports.collect(),
        }
    }
}

/// Takes a frame that has come in on a port.
fn hear(tree: &mut Tree, number: u16, frame: &[u8]) {
    match bpdu::parse(frame) {
        Some(bpdu) => tree.hear(number, &bpdu),
        None => tree.hear_nonsense(number),
    }
}

fn bridge_name(name: BridgeName) -> RstpBridge {
    RstpBridge { priority: name.priority(), address: name.address() }
}

fn report_port(name: &str, port: &Port, turn: u64) -> RstpPort {
    let (known, counts) = (port.known(), port.counts);
    let is_disabled = port.role() == Role::Disabled;
    RstpPort {
        name: name.to_owned(),
        id: port.settings().id,
        role: port.role(),
        state: port.state(),
        path_cost: port.settings().cost,
        is_edge: port.is_edge() && !is_disabled,
        is_point_to_point: port.settings().point_to_point,
        is_rapid: port.sends_rstp(),
        designated: (!is_disabled).then(|| bridge_name(known.bridge)),
        designated_port: known.port,
        designated_path_cost: known.cost,
        received: counts.received,
        sent: counts.sent,
        bad: counts.bad,
        forwards: counts.forwards,
        turn,
    }
}
