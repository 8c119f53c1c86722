//! Bonds as control threads see them: who their members are, and what workers are told of them.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use datapath::bond::load::Load;
use datapath::bond::way::{BUCKETS, Fittings, Way};
use datapath::inlet::{Heard, Inlet};
use datapath::vlan::policy::Policy;
use datapath::vlan::tags::Meta;
use datapath::worker::Message;
use ethdev::{DropReason, Link, OpenPort, PortControl, PortInfo, PortStats, Stats};
use l2proto::lacp::Agent;
use litemap::LiteMap;
use ordered::Order as _;
use packet::headers::EtherType;
use packet::{BURST, MacAddr, Tag, announcement};

use super::lacp::member_lacp;
use super::monitors::is_up;
use super::{Control, Kind, Switch};
use crate::bond::group::{Group, Member, Seen};
use crate::bond::monitor::Monitor;
use crate::bond::{BOND_DEVICE, BondMode, Lacp, MAX_MEMBERS};
use crate::config::PortOptions;
use crate::error::Error;
use crate::ports::{Entry, Ports};
use crate::report::{BondPart, BondReport, MemberReport};

/// The most stations for which a new active member says that they are behind it now. Those that
/// were heard last come first; all others are found when they send something.
const MAX_ANNOUNCED: usize = 1_024;

/// What both a bond's entry and its control side know.
#[derive(Debug, Default)]
pub(crate) struct Bundle(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    link: Link,
    mac: MacAddr,
    mtu: u16,
    members: String,
    /// Of members that have left, and of those that there are by their numbers: as they came, and
    /// as they were last seen.
    past: [Stats; 2],
    counted: LiteMap<u16, [[Stats; 2]; 2]>,
}

impl Bundle {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has gone through, by all members as long as they were that.
    pub(crate) fn stats(&self) -> PortStats {
        let shown = self.shown();
        let sum = |which: fn(&[Stats; 2]) -> Stats| {
            let members = shown.counted.values().map(|[from, to]| which(to).since(&which(from)));
            vec![members.chain([which(&shown.past)]).sum()]
        };
        PortStats { rx: sum(|[rx, _]| *rx), tx: sum(|[_, tx]| *tx) }
    }

    /// Counts on: these are the members, and what has gone through each in its life.
    fn count(&self, members: impl Iterator<Item = (u16, PortStats)>) {
        let shown = &mut *self.shown();
        let mut before = std::mem::take(&mut shown.counted);
        for (port, stats) in members {
            let now = [stats.rx_total(), stats.tx_total()];
            let from = before.remove(&port).map_or(now, |[from, _]| from);
            shown.counted.insert(port, [from, now]);
        }
        for (_, [from, to]) in before {
            for ((past, from), to) in shown.past.iter_mut().zip(from).zip(to) {
                *past += to.since(&from);
            }
        }
    }
}

/// The control side of a bond.
struct BondControl(Arc<Bundle>);

impl PortControl for BondControl {
    fn info(&self) -> PortInfo {
        PortInfo { driver: "bond", rx_queues: 0, tx_queues: 0, max_mtu: u16::MAX }
    }

    fn link(&self) -> Link {
        self.0.shown().link
    }

    /// That of the first member.
    fn mac(&self) -> MacAddr {
        self.0.shown().mac
    }

    /// The smallest of those of the members.
    fn mtu(&self) -> u16 {
        self.0.shown().mtu
    }

    fn details(&self) -> Vec<(String, String)> {
        let members = self.0.shown().members.clone();
        let members = if members.is_empty() { "none".to_owned() } else { members };
        vec![("members".to_owned(), members)]
    }
}

/// A bond that is there, or a port that speaks LACP by itself.
#[derive(Debug, Default)]
pub(super) struct Bond {
    pub(super) group: Group,
    pub(super) agent: Agent,
    /// What is behind its members.
    pub(super) monitor: Monitor,
    /// The address by which it is known, unless another is given: it stays as long as the bond is
    /// there, whatever members come and go, and over restarts where the switch has an identity.
    pub(super) own: Option<MacAddr>,
    /// What each worker has sent.
    loads: Vec<Arc<Load>>,
    /// Where workers put what neighbours say, and where it is read.
    pub(super) inlet: Option<(Inlet, Receiver<Heard>)>,
    /// What workers know of it, and whether they listen.
    told: Option<(Way, bool)>,
}

impl Bond {
    /// How many bytes have been sent of each part of the traffic.
    fn sent(&self) -> [u64; BUCKETS] {
        self.sum(Load::bytes)
    }

    fn sum(&self, of: impl Fn(&Load) -> [u64; BUCKETS]) -> [u64; BUCKETS] {
        let mut all = [0_u64; BUCKETS];
        for load in &self.loads {
            for (sum, more) in all.iter_mut().zip(of(load)) {
                *sum = sum.wrapping_add(more);
            }
        }
        all
    }

    /// What worker `index` has of it beside its way.
    fn fittings(&mut self, index: usize) -> Fittings {
        while self.loads.len() <= index {
            self.loads.push(Arc::default());
        }
        let load = self.loads.get(index).cloned().unwrap_or_default();
        Fittings { load, inlet: self.inlet.as_ref().map(|(inlet, _)| inlet.clone()) }
    }
}

/// All bonds, by name.
#[derive(Debug, Default)]
pub(super) struct Bonds(pub(super) LiteMap<String, Bond>);

impl Bonds {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Bond> {
        self.0.values()
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Bond> {
        self.0.get_mut(name)
    }

    /// Bond `name`, which is there from now on.
    pub(super) fn of(&mut self, name: &str) -> &mut Bond {
        self.0.entry(name.to_owned()).or_default()
    }
}

impl Switch {
    /// All bonds, in the order of their names.
    #[must_use]
    pub fn bonds(&self) -> Vec<BondReport> {
        self.control().bonds_where(|entry, _| entry.bundle().is_some())
    }
}

impl Switch {
    /// Whether bond `name` divides traffic by flow at the moment.
    #[must_use]
    pub fn divides_by_flow(&self, name: &str) -> bool {
        let control = self.control();
        let bond = control.bonds.0.get(name);
        bond.is_some_and(|bond| bond.group.mode() == BondMode::BalanceTcp)
    }

    /// The 256 parts of the traffic of bond `name`; none where there is no such bond.
    #[must_use]
    pub fn bond_parts(&self, name: &str) -> Vec<BondPart> {
        let control = self.control();
        let Some(bond) = control.bonds.0.get(name) else { return Vec::new() };
        let members = bond.group.members();
        let named = |port: u16| {
            let member = members.iter().find(|member| member.seen.port == port);
            member.map(|member| member.seen.name.clone())
        };
        let (frames, bytes) = (bond.sum(Load::frames), bond.sent());
        let sent = frames.into_iter().zip(bytes);
        let parts = bond.group.table().into_iter().zip(sent);
        parts
            .map(|(port, (packets, bytes))| BondPart { member: named(port), packets, bytes })
            .collect()
    }
}

fn bond_report(
    ports: &Ports,
    (name, entry): (&str, &Entry),
    bond: &Bond,
    now: Instant,
) -> BondReport {
    let (group, sent) = (&bond.group, bond.sent());
    let left = |due: Instant| due.saturating_duration_since(now);
    let member = |member: &Member| MemberReport {
        delay: member.due.map(left),
        loads: group.loads(member.seen.port, &sent),
        ..report(ports, bond, member)
    };
    BondReport {
        name: name.to_owned(),
        bridge: entry.bridge_name().to_owned(),
        bonding: bond.group.settings().clone(),
        active: bond.group.active_name().map(str::to_owned),
        active_changes: bond.group.changes,
        lacp: bond.lacp_report(),
        moved: bond.group.moved,
        next_rebalance: group.rebalance_due().map(left),
        members: group.members().iter().map(member).collect(),
    }
}

fn report(ports: &Ports, bond: &Bond, member: &Member) -> MemberReport {
    let drops = |entry: &Entry| entry.stats().rx_total().dropped_for(DropReason::InactiveMember);
    MemberReport {
        name: member.seen.name.clone(),
        is_up: member.seen.is_up,
        is_enabled: member.is_enabled,
        is_active: bond.group.active() == Some(member.seen.port),
        delay: None,
        loads: Vec::new(),
        share: bond.group.share(member.seen.port),
        lacp: bond.agent.port(member.seen.port).map(member_lacp),
        arp: bond.monitor.found(member.seen.port),
        failures: member.failures,
        inactive_drops: ports.get(&member.seen.name).map_or(0, drops),
    }
}

impl Control {
    pub(super) fn bonds_where(&self, is_asked: impl Fn(&Entry, &Bond) -> bool) -> Vec<BondReport> {
        let reports = self.bonds.0.iter().filter_map(|(name, bond)| {
            let entry = self.ports.get(name).ok().filter(|entry| is_asked(entry, bond))?;
            Some(bond_report(&self.ports, (name, entry), bond, self.time.now()))
        });
        reports.collect()
    }

    /// Adds bond `name`, whose members are those ports that say so.
    pub(super) fn add_bond(&mut self, name: &str, options: &PortOptions) -> Result<(), Error> {
        let bundle = Arc::<Bundle>::default();
        let control = Box::new(BondControl(Arc::clone(&bundle)));
        let open = OpenPort::new(name, BOND_DEVICE, control, Vec::new(), Vec::new());
        self.add_port_with(open, Kind::Bond(bundle), options)
    }

    /// Looks after all bonds, since ports have come, gone or changed.
    pub(super) fn update_bonds(&mut self) {
        if self.run_bonds().is_some() {
            self.notes.ask();
        }
    }

    /// Does what is due in all bonds; returns when there is something to do next.
    pub(super) fn run_bonds(&mut self) -> Option<Instant> {
        let names: Vec<String> = self.ports.iter().filter_map(bond_name).collect();
        self.bonds.0.retain(|name, _| names.contains(name));
        self.end_lacp();
        self.prepare_monitors(&names);
        names.iter().filter_map(|name| self.run_bond(name)).min()
    }

    fn run_bond(&mut self, name: &str) -> Option<Instant> {
        self.hear_answers(name);
        let entry = self.ports.get(name).ok()?;
        let is_alone = entry.bundle().is_none();
        if is_alone {
            self.listen_for_lacp(entry.number(), true);
        } else {
            self.listen_in_bond(name);
        }
        let (agreement, frames, mut seen) = self.speak_in(name)?;
        let entry = self.ports.get(name).ok()?;
        let (now, number) = (self.time.now(), entry.number());
        let bond = self.bonds.of(name);
        let questions = bond.monitor.run(now);
        for seen in &mut seen {
            let found = bond.monitor.found(seen.port);
            seen.is_answered = found.is_none_or(|found| found.is_answered);
        }
        let is_other = bond.group.run(seen, agreement, now);
        let sent = bond.sent();
        bond.group.rebalance(|| sent, now);
        let due = bond.group.due().into_iter().chain(bond.agent.due()).chain(bond.monitor.due());
        let due = due.min();
        let told = (bond.group.way(entry.bridge()), bond.inlet.is_some());
        if !is_alone && bond.told.as_ref() != Some(&told) {
            for (index, worker) in self.mailboxes.iter().enumerate() {
                let way = Some(Box::new((told.0.clone(), bond.fittings(index))));
                worker.ask(|done| Message::SetBond(number, way, done));
            }
            bond.told = Some(told);
        }
        for (port, frame) in frames {
            self.send_own(port, &[frame]);
        }
        for (port, questions) in questions {
            self.send_own(port, &questions);
        }
        if !is_alone {
            self.count_bond(name);
        }
        if is_other && !is_alone {
            self.tell_other(name);
            self.tell_links();
        }
        due
    }

    /// Another member is active, or none is left.
    fn tell_other(&mut self, name: &str) {
        let (Some(bond), Ok(entry)) = (self.bonds.0.get(name), self.ports.get(name)) else {
            return;
        };
        let (number, bridge) = (entry.number(), entry.bridge_name().to_owned());
        match bond.group.active_name() {
            Some(active) => {
                tracing::info!(bond = name, active, "another member is active");
                self.announce(entry, bond.group.active().unwrap_or_default());
                self.ask_others(&bridge, number);
            }
            None => {
                match bond.group.members().iter().any(|member| member.seen.is_up) {
                    true => tracing::info!(bond = name, "no member with a link may be used"),
                    false => tracing::warn!(bond = name, "no member has a link"),
                }
                // As with any link that goes down: what is behind it may be elsewhere now.
                if let Ok(fdb) = self.fdb_of(entry) {
                    fdb.write().flush(Some(number));
                }
                self.forget_groups(number);
            }
        }
    }

    /// Has the network learn that all stations of a bond's bridge are behind port `active` now.
    fn announce(&self, entry: &Entry, active: u16) {
        let Ok(fdb) = self.fdb_of(entry) else { return };
        let mut stations = fdb.list();
        stations.retain(|station| station.port != entry.number());
        stations.order_by_key(|station| station.age);
        stations.truncate(MAX_ANNOUNCED);
        let has_vlans = self.have_vlans(entry.bridge());
        let policy = has_vlans.then(|| Policy::from(&entry.options().vlan));
        let frame =
            |station: &fdb::Entry| tagged(announcement(station.mac), station.vlan, policy.as_ref());
        let frames: Vec<Vec<u8>> = stations.iter().filter_map(frame).collect();
        for burst in frames.chunks(BURST) {
            self.send_own(active, burst);
        }
        tracing::debug!(stations = frames.len(), "announced behind the new active member");
    }

    /// Has a worker send frames to a port, [`BURST`] at most; returns whether it takes any.
    pub(super) fn send_own(&self, port: u16, frames: &[Vec<u8>]) -> bool {
        let sends = |worker: &datapath::worker::Mailbox| {
            worker.ask(|sent| Message::Send(port, frames.to_vec(), sent))
        };
        self.mailboxes.iter().any(|worker| sends(worker) == Some(true))
    }

    /// The port by which frames of the switch's own go to a port: of a bond, its active member; `None`
    /// where there is none.
    pub(super) fn way_to(&self, entry: &Entry) -> Option<u16> {
        if entry.bundle().is_none() {
            return entry.cable().is_none().then(|| entry.number());
        }
        let is_it =
            |name: &&str| self.ports.get(name).is_ok_and(|of| of.number() == entry.number());
        let mut bonds = self.bonds.0.iter();
        let (_, bond) = bonds.find(|(name, _)| is_it(&name.as_str()))?;
        bond.group.active()
    }

    /// Has workers of whom some are new know all bonds.
    pub(super) fn tell_bonds(&mut self) {
        for (_, bond) in &mut self.bonds.0 {
            bond.told = None;
            bond.loads.clear();
        }
        self.update_bonds();
    }

    /// Has the workers take port `name` for a bond no more, if it is one, until they are told
    /// again.
    pub(super) fn untell_bond(&mut self, name: &str) {
        let (Some(bond), Ok(entry)) = (self.bonds.0.get_mut(name), self.ports.get(name)) else {
            return;
        };
        bond.told = None;
        for worker in &self.mailboxes {
            worker.ask(|done| Message::SetBond(entry.number(), None, done));
        }
    }

    /// Forgets bond `name`, which the workers know no more.
    pub(super) fn remove_bond(&mut self, name: &str) {
        self.bonds.0.remove(name);
    }

    /// Counts what has gone through a bond, and shows what it is.
    pub(super) fn count_bond(&self, name: &str) {
        let (Some(bond), Ok(entry)) = (self.bonds.0.get(name), self.ports.get(name)) else {
            return;
        };
        let Some(bundle) = entry.bundle() else { return };
        let ports = || members(&self.ports, name);
        bundle.count(ports().map(|(_, member)| (member.number(), member.stats())));
        let shown = &mut *bundle.shown();
        let up = bond.group.is_up();
        let speeds = ports().filter_map(|(_, member)| member.control().link().speed_mbps);
        shown.link = Link {
            up,
            speed_mbps: speeds.max(),
            changes: shown.link.changes.saturating_add(u64::from(up != shown.link.up)),
        };
        shown.mac = ports().next().map(|(_, member)| member.control().mac()).unwrap_or_default();
        shown.mtu = ports().map(|(_, member)| member.control().mtu()).min().unwrap_or(u16::MAX);
        let words: Vec<String> =
            bond.group.members().iter().map(|m| word(&bond.group, m)).collect();
        shown.members = words.join(", ");
    }
}

/// A member in a word or two.
fn word(group: &Group, member: &Member) -> String {
    let state = match (group.active() == Some(member.seen.port), member.is_enabled) {
        (true, _) => " (active)",
        (false, true) => "",
        (false, false) => " (down)",
    };
    format!("{}{state}", member.seen.name)
}

/// The name of a port that is a bond, or speaks LACP by itself.
pub(super) fn bond_name((name, entry): (&str, &Entry)) -> Option<String> {
    let options = entry.options();
    let speaks = options.bonding.lacp != Lacp::Off && options.bond.is_none();
    (entry.bundle().is_some() || (speaks && entry.cable().is_none())).then(|| name.to_owned())
}

/// The ports that are members of bond `name`.
pub(super) fn members<'p>(
    ports: &'p Ports,
    name: &'p str,
) -> impl Iterator<Item = (&'p str, &'p Entry)> {
    let is_member = move |entry: &Entry| entry.options().bond.as_deref() == Some(name);
    ports.iter().filter(move |(_, entry)| is_member(entry)).take(MAX_MEMBERS)
}

/// The same, as the bond needs to know them; of a port that speaks LACP by itself, that one.
pub(super) fn seen(ports: &Ports, name: &str, bond: &Entry) -> Vec<Seen> {
    let seen = |(name, entry): (&str, &Entry)| Seen {
        port: entry.number(),
        name: name.to_owned(),
        is_up: is_up(entry, bond),
        is_agreed: true,
        is_answered: true,
    };
    let alone = bond.bundle().is_none().then_some((name, bond));
    members(ports, name).chain(alone).map(seen).collect()
}

/// A frame in `vlan`, as it leaves a port with these VLAN settings; `None` where the port does not
/// carry it.
pub(super) fn tagged(
    frame: impl Into<Vec<u8>>,
    vlan: u16,
    policy: Option<&Policy>,
) -> Option<Vec<u8>> {
    let mut frame = frame.into();
    let Some(policy) = policy else { return Some(frame) };
    let tag = Tag { kind: EtherType::VLAN, control: vlan };
    let edit = policy.edit(&Meta { vlan, inner: 0, had: None, tag })?;
    if let Some(tag) = edit.push {
        frame.splice(12..12, tag.to_bytes());
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::vlan::PortVlan;

    #[test]
    fn stations_are_announced_in_their_vlans_as_far_as_the_bond_carries_them() {
        let frame = announcement(MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(tagged(frame, 0, None).unwrap(), frame);
        let trunk = PortVlan { trunks: Some("5,7".parse().unwrap()), ..PortVlan::default() };
        let trunk = Policy::from(&trunk);
        let in_five = tagged(frame, 5, Some(&trunk)).unwrap();
        assert_eq!(in_five[..12], frame[..12]);
        assert_eq!(in_five[12..16], [0x81, 0, 0, 5]);
        assert_eq!(in_five[16..], frame[12..]);
        assert_eq!(tagged(frame, 6, Some(&trunk)), None);
        let access = Policy::from(&PortVlan { tag: Some(5), ..PortVlan::default() });
        assert_eq!(tagged(frame, 5, Some(&access)).unwrap(), frame);
    }

    #[test]
    fn a_bond_goes_on_counting_when_members_come_and_go() {
        let stats = |packets| PortStats {
            rx: vec![Stats { packets, ..Stats::default() }],
            tx: vec![Stats { packets: 10 * packets, ..Stats::default() }],
        };
        let bundle = Bundle::default();
        let counted = || {
            let all = bundle.stats();
            (all.rx_total().packets, all.tx_total().packets)
        };
        bundle.count([(1, stats(100)), (2, stats(50))].into_iter());
        assert_eq!(counted(), (0, 0), "that was before they were members");
        bundle.count([(1, stats(103)), (2, stats(51))].into_iter());
        assert_eq!(counted(), (4, 40));
        bundle.count([(2, stats(52))].into_iter());
        assert_eq!(counted(), (5, 50));
        bundle.count([(1, stats(110)), (2, stats(52))].into_iter());
        assert_eq!(counted(), (5, 50));
    }
}
