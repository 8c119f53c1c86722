//! Bridges that look at groups of IGMP and MLD: what their workers hear, and are told.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use datapath::bond::way::NOBODY;
use datapath::bridge::{BridgeChange, BridgeId};
use datapath::inlet::{Heard, Inlet};
use datapath::snoop::message::{self, Response};
use datapath::snoop::stage::{LONGEST, Snoop};
use datapath::snoop::view::View;
use datapath::vlan::policy::Policy;
use eal::time::later;
use litemap::LiteMap;
use ordered::Gather as _;
use packet::{BURST, MacAddr};

use super::bonds::tagged;
use super::{Control, Switch};
use crate::bridges::tell;
use crate::ports::Entry;
use crate::report::{Group, GroupRouter, GroupTotals, GroupsReport};
use crate::snoop::snooper::{Ask, HOLD, Snooper};
use crate::snoop::{McastRouter, McastSnooping};

/// The most messages that are read at once; there are no more in the queue.
const MOST_HEARD: usize = 128;

/// The most VLANs in which a bridge asks all hosts.
const MOST_VLANS: usize = 256;

/// A bridge that looks at groups.
#[derive(Debug)]
struct Watch {
    snooper: Snooper,
    inlet: Inlet,
    heard: Receiver<Heard>,
    /// What all workers know, if they know that it does.
    view: Option<Arc<View>>,
    /// The address by which it asks.
    mac: MacAddr,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Groups(LiteMap<String, Watch>);

impl Switch {
    /// What is known of groups in all bridges that look at them, in the order of their names.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupsReport> {
        let control = self.control();
        let now = control.time.now();
        let watches = control.groups.0.iter();
        watches.map(|(name, watch)| control.groups_report(name, watch, now)).collect()
    }

    /// How many groups the same bridges know.
    #[must_use]
    pub fn group_totals(&self) -> Vec<GroupTotals> {
        let control = self.control();
        let watches = control.groups.0.iter();
        watches.map(|(name, watch)| control.group_totals(name, watch)).collect()
    }

    /// Forgets all groups and routers of a bridge, until they are heard again. Returns whether the bridge
    /// looks at them.
    pub fn flush_groups(&self, bridge: &str) -> bool {
        let mut control = self.control();
        let looks = control.groups.0.contains_key(bridge);
        control.clear_groups(bridge);
        control.update_groups();
        looks
    }
}

impl Control {
    /// Looks after all bridges that look at groups, since something has changed.
    pub(super) fn update_groups(&mut self) {
        if self.run_groups().is_some() {
            self.notes.ask();
        }
    }

    /// Does what is due in all of them; returns when there is something to do next.
    pub(super) fn run_groups(&mut self) -> Option<Instant> {
        let all = self.bridges.iter();
        let all = all.map(|(name, entry)| (name.to_owned(), entry.options().mcast_snooping));
        let all: LiteMap<String, McastSnooping> = all.gather();
        self.groups.0.retain(|name, _| all.contains_key(name));
        all.iter().filter_map(|(name, settings)| self.run_bridge(name, settings)).min()
    }

    fn run_bridge(&mut self, name: &str, settings: &McastSnooping) -> Option<Instant> {
        let id = self.bridges.get(name).ok()?.id();
        if !settings.enabled {
            if let Some(watch) = self.groups.0.remove(name) {
                tell(&self.mailboxes, id, &BridgeChange::Snoop(None));
                drop(watch);
            }
            return None;
        }
        let now = self.time.now();
        let watch = self.groups.0.entry(name.to_owned());
        let watch = watch.or_insert_with(|| {
            let (inlet, heard) = Inlet::by_port(LONGEST, MOST_HEARD, &self.pace, self.notes.once());
            let (snooper, mac) = (Snooper::new(settings), MacAddr::random_local());
            Watch { snooper, inlet, heard, view: None, mac }
        });
        let ports = self.ports.of_bridge(id);
        let ports = ports.map(|(_, entry)| (entry.number(), &entry.options().mcast_snooping));
        watch.snooper.set(settings, ports, now);
        for heard in watch.heard.try_iter().take(MOST_HEARD) {
            // Its port may have left since.
            let port = self.ports.numbered(heard.port).map(|(_, entry)| entry);
            if let Some(port) = port.filter(|entry| entry.bridge() == id) {
                let message = message::parse(heard.bytes(), heard.is_whole);
                let settings = &port.options().mcast_snooping;
                watch.snooper.hear(message, (heard.port, heard.vlan), settings, now);
            }
        }
        let mut outcome = watch.snooper.run(now);
        if self.time.until(later(now, HOLD)).is_none() {
            // The clock stands: the moment when they could be told does not come by itself.
            outcome.view = outcome.view.or_else(|| watch.snooper.take_view());
        }
        if let Some(view) = outcome.view {
            // The one so far is given up here when all workers have the new one, not by a worker.
            let groups = Arc::new(view);
            let change = match &watch.view {
                Some(_) => BridgeChange::Groups(Arc::clone(&groups)),
                None => {
                    let (groups, inlet) = (Arc::clone(&groups), watch.inlet.clone());
                    BridgeChange::Snoop(Some(Box::new(Snoop { groups, inlet })))
                }
            };
            tell(&self.mailboxes, id, &change);
            watch.view = Some(groups);
        }
        let due = watch.snooper.due();
        for ask in outcome.asks {
            self.ask_hosts(name, settings, &ask);
        }
        due
    }

    /// Asks hosts of a bridge which groups they belong to.
    fn ask_hosts(&self, name: &str, settings: &McastSnooping, ask: &Ask) {
        let (Some(watch), Ok(bridge)) = (self.groups.0.get(name), self.bridges.get(name)) else {
            return;
        };
        let source = settings.querier_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let frame =
            |group: IpAddr, response: Response| message::ask(watch.mac, source, group, response);
        let has_vlans = self.have_vlans(bridge.id());
        match ask {
            Ask::Port { port, vlan, groups, response } => {
                let Some((_, entry)) = self.ports.numbered(*port) else { return };
                let frames = groups.iter().map(|group| (*vlan, frame(*group, *response)));
                self.ask_port(entry, has_vlans, frames.take(BURST));
            }
            Ask::Regularly { response } => {
                let is_silent = |vlan: &u16| !watch.snooper.table.has_router(*vlan);
                let vlans = self.vlans_of(name, bridge.id(), has_vlans);
                self.ask_all(bridge.id(), vlans.into_iter().filter(is_silent), None, |group| {
                    frame(group, *response)
                });
            }
            Ask::Others { port, response } => {
                let vlans = self.vlans_of(name, bridge.id(), has_vlans);
                self.ask_all(bridge.id(), vlans.into_iter(), Some(*port), |group| {
                    frame(group, *response)
                });
            }
        }
    }

    /// Asks hosts behind all ports of a bridge, but one, by IGMP and by MLD.
    fn ask_all(
        &self,
        id: BridgeId,
        vlans: impl Iterator<Item = u16>,
        except: Option<u16>,
        frame: impl Fn(IpAddr) -> Vec<u8>,
    ) {
        let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(frame);
        let frames: Vec<(u16, Vec<u8>)> =
            vlans.flat_map(|vlan| all.clone().map(|frame| (vlan, frame))).collect();
        let has_vlans = self.have_vlans(id);
        for (_, entry) in self.ports.of_bridge(id) {
            if except != Some(entry.number()) {
                self.ask_port(entry, has_vlans, frames.iter().cloned());
            }
        }
    }

    /// Sends frames to a port, in their VLANs as far as it carries them.
    fn ask_port(
        &self,
        entry: &Entry,
        has_vlans: bool,
        frames: impl Iterator<Item = (u16, Vec<u8>)>,
    ) {
        let Some(port) = self.way_to(entry) else { return };
        let policy = has_vlans.then(|| Policy::from(&entry.options().vlan));
        let frames: Vec<Vec<u8>> =
            frames.filter_map(|(vlan, frame)| tagged(frame, vlan, policy.as_ref())).collect();
        for burst in frames.chunks(BURST) {
            self.send_own(port, burst);
        }
    }

    /// The VLANs of a bridge in which it asks all hosts: those of ports that are in one alone, and
    /// those of groups that are known.
    fn vlans_of(&self, name: &str, id: BridgeId, has_vlans: bool) -> BTreeSet<u16> {
        if !has_vlans {
            return BTreeSet::from([0]);
        }
        let own = self.ports.of_bridge(id);
        let own = own.map(|(_, entry)| entry.options().vlan.tag.unwrap_or(0));
        let watch = self.groups.0.get(name);
        let known = watch.into_iter().flat_map(|watch| watch.snooper.table.groups());
        let all: BTreeSet<u16> = own.chain(known.map(|((vlan, _), _)| vlan)).gather();
        all.into_iter().take(MOST_VLANS).gather()
    }

    /// Forgets what is known of groups behind port `number`.
    pub(super) fn forget_groups(&mut self, number: u16) {
        self.groups.0.iter_mut().for_each(|(_, watch)| watch.snooper.forget_port(number));
    }

    /// Forgets what is known of groups behind ports of a bridge, or behind all where none are given, since
    /// what is behind them may be elsewhere now, and has all hosts asked (RFC 4541, section 2.1.1). Where
    /// whatever is for a group goes everywhere, there is nothing to be asked.
    pub(super) fn forget_groups_behind(&mut self, bridge: &str, numbers: &[u16]) {
        let Some(watch) = self.groups.0.get(bridge) else { return };
        let holds_back = watch.snooper.holds_back();
        if numbers.is_empty() {
            self.clear_groups(bridge);
        }
        numbers.iter().for_each(|number| self.forget_groups(*number));
        if holds_back {
            self.ask_others(bridge, NOBODY);
        }
    }

    /// Forgets all groups of a bridge.
    pub(super) fn clear_groups(&mut self, bridge: &str) {
        if let Some(watch) = self.groups.0.get_mut(bridge) {
            watch.snooper.table.clear();
        }
    }

    /// Has all hosts of a bridge asked but those behind port `number`, which leads elsewhere now.
    pub(super) fn ask_others(&mut self, bridge: &str, number: u16) {
        if let Some(watch) = self.groups.0.get_mut(bridge) {
            watch.snooper.ask_others(number);
        }
    }

    /// Has workers of whom some are new know all groups.
    pub(super) fn tell_groups(&mut self) {
        for (_, watch) in &mut self.groups.0 {
            watch.view = None;
            watch.snooper.tell_again();
        }
        self.update_groups();
    }

    fn group_totals(&self, name: &str, watch: &Watch) -> GroupTotals {
        let table = &watch.snooper.table;
        let named = |(number, count)| Some((self.ports.name_of(number)?.to_owned(), count));
        GroupTotals {
            bridge: name.to_owned(),
            limit: self.snooping_of(name).table_size,
            groups: table.len().0,
            routers: table.router_count(),
            ports: table.of_ports().filter_map(named).collect(),
            counts: table.counts,
        }
    }

    /// What a bridge does about groups.
    fn snooping_of(&self, name: &str) -> McastSnooping {
        let bridge = self.bridges.get(name).ok();
        bridge.map(|bridge| bridge.options().mcast_snooping).unwrap_or_default()
    }

    fn groups_report(&self, name: &str, watch: &Watch, now: Instant) -> GroupsReport {
        let port = |number: u16| self.ports.name_of(number).map(str::to_owned);
        let age = |heard: Instant| now.saturating_duration_since(heard).as_secs();
        let table = &watch.snooper.table;
        let groups = table.groups().flat_map(|((vlan, group), members)| {
            let members = members.iter();
            members.map(move |(number, member)| (vlan, group, *number, member.heard))
        });
        let groups = groups.filter_map(|(vlan, group, number, heard)| {
            Some(Group { vlan, group, port: port(number)?, age: age(heard) })
        });
        let heard = table.routers().filter_map(|(vlan, number, heard)| {
            Some(GroupRouter { vlan: Some(vlan), port: port(number)?, age: Some(age(heard)) })
        });
        let bridge = self.bridges.get(name).ok();
        let own = bridge.into_iter().flat_map(|bridge| self.ports.of_bridge(bridge.id()));
        let set =
            own.filter(|(_, port)| port.options().mcast_snooping.router == McastRouter::Always);
        let set = set.map(|(name, _)| GroupRouter { vlan: None, port: name.to_owned(), age: None });
        GroupsReport {
            bridge: name.to_owned(),
            settings: self.snooping_of(name),
            groups: groups.collect(),
            routers: set.chain(heard).collect(),
            counts: table.counts,
        }
    }
}
