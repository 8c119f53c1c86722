//! What has changed in a switch since the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::control::event::{Address, Event, Membership, Moved, Router, SHUT_BY};
use daemon::{Change, Daemon, State, diff};
use ethdev::{DropReason, Peer, Stats};
use litemap::LiteMap;
use ordered::Gather as _;
use switch::{BondReport, FdbEntry, GroupsReport, PortReport, RstpReport};

/// How a switch was when it was looked at last.
#[derive(Debug)]
pub struct Watch {
    version: u64,
    state: State,
    waiting: LiteMap<String, String>,
    links: LiteMap<String, Link>,
    /// The active member of each bond, and how often that has changed.
    bonds: LiteMap<String, (Option<String>, u64)>,
    trees: Trees,
    /// What was dropped until then, on receipt and on sending, and when that was.
    drops: LiteMap<String, [Stats; 2]>,
    since: Duration,
    /// Where addresses were, if anybody wants to know.
    addresses: Option<LiteMap<Address, String>>,
    /// Members of groups, and routers, in the same way.
    groups: Option<Groups>,
}

/// What is watched of groups.
#[derive(Debug, Default)]
struct Groups {
    members: BTreeSet<Membership>,
    routers: BTreeSet<Router>,
}

impl Groups {
    fn of(bridges: Vec<GroupsReport>) -> Self {
        let mut all = Self::default();
        for GroupsReport { bridge, groups, routers, .. } in bridges {
            all.members.extend(groups.into_iter().map(|one| {
                let (bridge, vlan, group, port) = (bridge.clone(), one.vlan, one.group, one.port);
                Membership { bridge, vlan, group, port }
            }));
            all.routers.extend(routers.into_iter().map(|one| {
                let (bridge, vlan, port) = (bridge.clone(), one.vlan, one.port);
                Router { bridge, vlan, port }
            }));
        }
        all
    }
}

/// What is watched of spanning trees.
#[derive(Debug, Default)]
struct Trees {
    /// The root of each bridge, and the port of the way there.
    roots: LiteMap<String, (String, Option<String>)>,
    /// The role and state of each port of a bridge.
    ports: LiteMap<(String, String), (&'static str, &'static str)>,
}

impl Trees {
    fn of(trees: &[RstpReport]) -> Self {
        let mut all = Self::default();
        for tree in trees {
            let root = (crate::rstp::id(tree.root), tree.root_port.clone());
            all.roots.insert(tree.bridge.clone(), root);
            for port in &tree.ports {
                let key = (tree.bridge.clone(), port.name.clone());
                all.ports.insert(key, (port.role.name(), port.state.name()));
            }
        }
        all
    }
}

/// What is watched of a port at once.
#[derive(Clone, Copy, Debug)]
struct Link {
    up: bool,
    changes: u64,
    peer: Option<Peer>,
    is_shut: bool,
}

impl From<&PortReport> for Link {
    fn from(report: &PortReport) -> Self {
        let PortReport { link, peer, is_shut, .. } = report;
        Self { up: link.up, changes: link.changes, peer: *peer, is_shut: *is_shut }
    }
}

/// What a port drops in a direction.
#[derive(Clone, Debug)]
pub struct Dropping {
    pub port: String,
    pub direction: &'static str,
    /// Frames per second.
    pub rate: u64,
    reasons: BTreeMap<String, u64>,
}

impl Dropping {
    /// That it drops so many.
    pub fn event(&self) -> Event {
        Event::Drops {
            port: self.port.clone(),
            direction: self.direction.to_owned(),
            rate: self.rate,
            reasons: self.reasons.clone(),
        }
    }

    /// What was dropped between two moments.
    pub fn between(
        port: &str,
        direction: &'static str,
        (before, now): (&Stats, &Stats),
        elapsed: Duration,
    ) -> Option<Self> {
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = |count: u64| count.saturating_mul(1_000).div_ceil(milliseconds);
        let each = DropReason::ALL.iter().zip(now.drops).zip(before.drops);
        // A port that was added anew under its name begins at zero.
        let each = each.map(|((reason, now), before)| (reason, now.saturating_sub(before)));
        let dropped: Vec<_> = each.filter(|(_, count)| *count > 0).collect();
        let rate = per_second(dropped.iter().map(|(_, count)| count).sum());
        let reasons = dropped.into_iter();
        let reasons = reasons.map(|(reason, count)| (reason.name().to_owned(), per_second(count)));
        (rate > 0).then(|| Self {
            port: port.to_owned(),
            direction,
            rate,
            reasons: reasons.gather(),
        })
    }
}

impl Watch {
    /// How `daemon` is now.
    pub fn new(daemon: &Daemon) -> Self {
        let ports = daemon.switch().samples();
        Self {
            version: daemon.version(),
            state: daemon.state().clone(),
            waiting: waiting(daemon),
            links: ports.iter().map(|port| (port.name.clone(), port.into())).gather(),
            bonds: daemon.switch().bonds().iter().map(active).gather(),
            trees: Trees::of(&daemon.switch().rstp()),
            drops: drops(&ports),
            since: daemon.switch().uptime(),
            addresses: None,
            groups: None,
        }
    }

    /// What was decided otherwise, and what can or cannot be opened now.
    pub fn look_at_state(&mut self, daemon: &Daemon, found: &mut Vec<Event>) {
        let version = daemon.version();
        if version != self.version {
            self.version = version;
            let before = std::mem::replace(&mut self.state, daemon.state().clone());
            let changes = diff(&before, &self.state).changes;
            found.extend(changes.iter().map(|change| changed(version, change)));
        }
        let now = waiting(daemon);
        for (name, reason) in now.iter().filter(|(name, why)| self.waiting.get(*name) != Some(why))
        {
            found.push(Event::Waiting { name: name.clone(), reason: reason.clone() });
        }
        let gone = self.waiting.keys().filter(|name| !now.contains_key(*name));
        // What was removed is not there either.
        let opened = gone.filter(|name| self.state.has(name));
        found.extend(opened.map(|name| Event::Opened { name: name.clone() }));
        self.waiting = now;
    }

    /// Links, VMMs, and ports that are shut. Those of a port that has come are told as if it had been there without.
    pub fn look_at_links(&mut self, ports: &[PortReport], found: &mut Vec<Event>) {
        let mut now = LiteMap::new();
        for report in ports {
            let (port, link) = (&report.name, Link::from(report));
            let before = self.links.get(port).copied();
            let (was_up, changes, had) =
                before.map_or((false, 0, None), |before| (before.up, before.changes, before.peer));
            let was_shut = before.is_some_and(|before| before.is_shut);
            if link.is_shut && !was_shut {
                let reason = SHUT_BY.to_owned();
                found.push(Event::PortShut { port: port.clone(), reason });
            }
            if was_shut && !link.is_shut {
                found.push(Event::PortReopened { port: port.clone() });
            }
            let pid = |peer: Peer| peer.process;
            if had.is_some() && had != link.peer {
                found.push(Event::GuestDisconnected { port: port.clone(), pid: had.and_then(pid) });
            }
            if link.peer.is_some() && had != link.peer {
                let pid = link.peer.and_then(pid);
                found.push(Event::GuestConnected { port: port.clone(), pid });
            }
            if link.up != was_up || (before.is_some() && link.changes != changes) {
                let (up, changes) = (link.up, link.changes);
                found.push(Event::Link { port: port.clone(), up, changes });
            }
            now.insert(port.clone(), link);
        }
        self.links = now;
    }

    /// The active members of bonds. That of a bond that has come is told as if it had been there
    /// without.
    pub fn look_at_bonds(&mut self, bonds: &[BondReport], found: &mut Vec<Event>) {
        let now: LiteMap<_, _> = bonds.iter().map(active).gather();
        for (bond, (active, changes)) in &now {
            let (from, before) = self.bonds.get(bond).cloned().unwrap_or_default();
            if *changes != before {
                let (bond, active, changes) = (bond.clone(), active.clone(), *changes);
                found.push(Event::BondActive { bond, active, from, changes });
            }
        }
        self.bonds = now;
    }

    /// Roots of spanning trees, and roles and states of their ports.
    pub fn look_at_trees(&mut self, trees: &[RstpReport], found: &mut Vec<Event>) {
        let now = Trees::of(trees);
        for (bridge, root) in &now.roots {
            if self.trees.roots.get(bridge) != Some(root) {
                let (bridge, (root_id, root_port)) = (bridge.clone(), root.clone());
                found.push(Event::RstpRoot { bridge, root_id, root_port });
            }
        }
        for ((bridge, port), does) in &now.ports {
            if self.trees.ports.get(&(bridge.clone(), port.clone())) != Some(does) {
                let (role, state) = (does.0.to_owned(), does.1.to_owned());
                let (bridge, port) = (bridge.clone(), port.clone());
                found.push(Event::RstpPort { bridge, port, role, state });
            }
        }
        self.trees = now;
    }

    /// What ports have dropped since the last look, `uptime` after the start.
    pub fn look_at_drops(&mut self, ports: &[PortReport], uptime: Duration) -> Vec<Dropping> {
        let elapsed = uptime.saturating_sub(self.since);
        self.since = uptime;
        let now = drops(ports);
        let before = std::mem::replace(&mut self.drops, now);
        let mut all = Vec::new();
        for (port, [rx, tx]) in &self.drops {
            let [rx_before, tx_before] = before.get(port).copied().unwrap_or_default();
            for (direction, sides) in [("rx", (&rx_before, rx)), ("tx", (&tx_before, tx))] {
                all.extend(Dropping::between(port, direction, sides, elapsed));
            }
        }
        all
    }

    /// Where addresses are now, if anybody wants to know.
    pub fn look_at_addresses(&mut self, entries: Option<Vec<FdbEntry>>, found: &mut Vec<Event>) {
        let Some(entries) = entries else {
            self.addresses = None;
            return;
        };
        // The port is a value here, so that an address that moves is the same key.
        let now: LiteMap<Address, String> = entries
            .into_iter()
            .filter(|entry| !entry.is_static)
            .map(|entry| {
                let (bridge, mac, vlan) = (entry.bridge, entry.mac.to_string(), entry.vlan);
                (Address { bridge, mac, vlan, port: String::new() }, entry.port)
            })
            .gather();
        let with =
            |address: &Address, port: &String| Address { port: port.clone(), ..address.clone() };
        if let Some(before) = &self.addresses {
            for (address, port) in &now {
                match before.get(address) {
                    None => found.push(Event::Learned(with(address, port))),
                    Some(from) if from != port => {
                        let (address, from) = (with(address, port), from.clone());
                        found.push(Event::Moved(Moved::new(address, from)));
                    }
                    Some(_) => {}
                }
            }
            let gone = before.iter().filter(|(address, _)| !now.contains_key(*address));
            found.extend(gone.map(|(address, port)| Event::Forgotten(with(address, port))));
        }
        self.addresses = Some(now);
    }

    /// Members of groups and routers now, if anybody wants to know.
    pub fn look_at_groups(&mut self, bridges: Option<Vec<GroupsReport>>, found: &mut Vec<Event>) {
        let now = bridges.map(Groups::of);
        if let (Some(before), Some(now)) = (&self.groups, &now) {
            let (one, other) = (&before.members, &now.members);
            found.extend(one.difference(other).cloned().map(Event::GroupLeft));
            found.extend(other.difference(one).cloned().map(Event::GroupJoined));
            let (one, other) = (&before.routers, &now.routers);
            found.extend(one.difference(other).cloned().map(Event::RouterLost));
            found.extend(other.difference(one).cloned().map(Event::RouterFound));
        }
        self.groups = now;
    }
}

fn active(bond: &BondReport) -> (String, (Option<String>, u64)) {
    (bond.name.clone(), (bond.active.clone(), bond.active_changes))
}

fn waiting(daemon: &Daemon) -> LiteMap<String, String> {
    daemon.waiting().map(|(name, reason)| (name.to_owned(), reason.to_owned())).gather()
}

fn drops(ports: &[PortReport]) -> LiteMap<String, [Stats; 2]> {
    let of = |port: &PortReport| [port.stats.rx_total(), port.stats.tx_total()];
    ports.iter().map(|port| (port.name.clone(), of(port))).gather()
}

fn changed(version: u64, change: &Change) -> Event {
    let (kind, name, what) = match change {
        Change::Forget { port, .. } => ("address", Some(port), "removed"),
        Change::Remember { port, .. } => ("address", Some(port), "added"),
        Change::Workers { .. } => ("workers", None, "changed"),
        Change::Idle { .. } => ("idle", None, "changed"),
        Change::AddBridge { name, .. } => ("bridge", Some(name), "added"),
        Change::RemoveBridge { name, .. } => ("bridge", Some(name), "removed"),
        Change::SetBridge { name, .. } => ("bridge", Some(name), "changed"),
        Change::Set { name, .. } | Change::Exchange { name, .. } => ("port", Some(name), "changed"),
        Change::AddPort { name, .. } => ("port", Some(name), "added"),
        Change::RemovePort { name, .. } => ("port", Some(name), "removed"),
        Change::AddVdpa { name, .. } => ("vdpa", Some(name), "added"),
        Change::RemoveVdpa { name, .. } => ("vdpa", Some(name), "removed"),
        Change::Mirror { name, from: None, .. } => ("mirror", Some(name), "added"),
        Change::Mirror { name, to: None, .. } => ("mirror", Some(name), "removed"),
        Change::Mirror { name, .. } => ("mirror", Some(name), "changed"),
    };
    Event::Changed {
        version,
        kind: kind.to_owned(),
        name: name.cloned(),
        change: what.to_owned(),
        text: change.to_string(),
    }
}
