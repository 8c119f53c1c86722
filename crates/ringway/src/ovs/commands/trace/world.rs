//! What a trace has to know of the switch.

use std::collections::BTreeSet;
use std::sync::Arc;

use ethdev::DropReason;
use flow::{Change, Depth, Frozen, Key, PacketIn, Pipeline, extract, slot};
use odp::action::Onward;
use odp::{Abilities, IntoTunnel, MirrorCopy, Normal, Outlet, Protocol, World, compose, edited};
use openflow::PortNo;
use ordered::Order as _;
use ovs::numbers::LOCAL;
use switch::{BridgeFlows, DEFAULT_BRIDGE, Decided, FdbEntry, Mirror};

use super::super::Appctl;
use super::numbers::{self, number_of};
use super::{heard, round, tunnels};

/// Tags of a frame that is told about.
const VLANS: u8 = 2;

/// The bits of a tag that are the number of a VLAN.
const MAX_VLAN_ID: u16 = 0x0fff;

/// The switch, as a trace sees it.
pub struct Sight<'s, 'a> {
    appctl: &'s mut Appctl<'a>,
    /// The packet, if there is one, and what it was when it came in.
    frame: Option<(&'s [u8], &'s Key)>,
    /// Mirrors that have a copy of the packet: none gets another.
    copied: BTreeSet<String>,
}

impl<'s, 'a> Sight<'s, 'a> {
    pub const fn new(appctl: &'s mut Appctl<'a>, frame: Option<(&'s [u8], &'s Key)>) -> Self {
        Self { appctl, frame, copied: BTreeSet::new() }
    }

    /// The same for a packet that comes again, of which mirrors may have a copy.
    pub fn resumed(self, onward: &Onward) -> Self {
        Self { copied: onward.copied.clone(), ..self }
    }

    /// What lies behind a port.
    fn behind(&self, port: &str) -> Outlet {
        if let Some((bridge, port)) = self.peer_of(port) {
            return Outlet::Patch(bridge, port);
        }
        if self.appctl.tunnel_settings(port).is_some() {
            return Outlet::Tunnel(port.to_owned());
        }
        let number = self.appctl.agent.path_numbers().of(port);
        number.map_or(Outlet::Nowhere, Outlet::Port)
    }

    /// The same, unless nothing is to be sent there.
    fn way_out(&self, bridge: &str, port: &str) -> Outlet {
        let switch = self.appctl.daemon.switch();
        let number = switch.port_number(port).ok();
        let flows = switch.flows(bridge).ok().flatten();
        let is_shut = |flows: &BridgeFlows| {
            let mut ports = flows.pipeline.ports.values();
            ports.any(|port| port.no_forward && Some(port.number) == number)
        };
        if flows.as_ref().is_some_and(is_shut) { Outlet::Shut } else { self.behind(port) }
    }

    /// The bridge and the port that a patch port leads to.
    fn peer_of(&self, port: &str) -> Option<(String, PortNo)> {
        let content = self.appctl.agent.content()?;
        let row = |name: &str| {
            let (bridge, row) = content.interface(name)?;
            (row.kind == "patch").then(|| (bridge, row.options.get("peer")))
        };
        let (_, peer) = row(port)?;
        let peer = peer?;
        let (bridge, back) = row(peer)?;
        if back? != port {
            return None;
        }
        Some((bridge.to_owned(), PortNo(self.appctl.agent.number(bridge, peer)?.into())))
    }

    /// The name of the port where a packet came in.
    fn inlet_port(&self, bridge: &str, key: &Key) -> Option<String> {
        let port = PortNo(key.get_u32(slot::IN_PORT));
        let local = (port == PortNo::LOCAL).then(|| bridge.to_owned());
        self.port_name(bridge, port).or(local)
    }

    /// The mirrors of a bridge that copy to ports or a VLAN, by name.
    fn mirrors<'m>(&'m self, bridge: &'m str) -> impl Iterator<Item = (&'m str, &'m Mirror)> {
        let all = &self.appctl.daemon.state().mirrors;
        all.iter().filter_map(move |(name, mirror)| {
            let of = mirror.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE);
            (of == bridge && mirror.output_file.is_none()).then_some((name.as_str(), mirror))
        })
    }

    /// What mirrors copy of a packet that comes in on a port, or goes out there. Each copies it once.
    fn copies_at(&mut self, bridge: &str, key: &Key, port: &str, is_out: bool) -> Vec<MirrorCopy> {
        let vlan = key.get_u16(slot::VLAN_TCI) & MAX_VLAN_ID;
        let is_wanted = |mirror: &Mirror| {
            let ports = if is_out { &mirror.select_dst_port } else { &mirror.select_src_port };
            // What is in its VLAN already is a copy, as far as anybody can know.
            (mirror.select_all || ports.contains(port))
                && mirror.select_vlan.as_ref().is_none_or(|vlans| vlans.contains(vlan))
                && mirror.output_vlan.is_none_or(|own| own != vlan && !is_reserved(key))
        };
        let wanted = self.mirrors(bridge).filter(|(_, mirror)| is_wanted(mirror));
        let wanted: Vec<(String, Mirror)> =
            wanted.map(|(name, mirror)| (name.to_owned(), mirror.clone())).collect();
        let mut copies = Vec::new();
        for (name, mirror) in wanted {
            if !self.copied.insert(name.clone()) {
                continue;
            }
            let len = cut(&mirror);
            match &mirror.output_port {
                Some(to) => {
                    let outlet = self.way_out(bridge, to);
                    copies.push(MirrorCopy { outlet, key: *key, len });
                }
                None => copies.extend(self.copies_to_vlan(bridge, &name, key, len)),
            }
        }
        copies
    }

    /// The copies that a mirror sends to ports that carry its VLAN.
    fn copies_to_vlan(
        &self,
        bridge: &str,
        mirror: &str,
        key: &Key,
        len: Option<u16>,
    ) -> Vec<MirrorCopy> {
        let port = self.inlet_port(bridge, key);
        let frame = compose(key, None);
        let copies = self.appctl.daemon.switch().copies(mirror, port.as_deref(), &frame);
        let copies = copies.unwrap_or_default();
        let mut copies: Vec<MirrorCopy> = copies
            .iter()
            .map(|(to, frame)| MirrorCopy {
                outlet: self.way_out(bridge, to),
                key: with_tags_of(key, frame),
                len,
            })
            .collect();
        // Those that are alike together.
        copies.order_by_key(|copy| tags(&copy.key));
        copies
    }

    /// Where a packet's source is known to be.
    fn known(&self, bridge: &str, key: &Key) -> Vec<FdbEntry> {
        let source = key.get(slot::ETH_SRC).to_be_bytes();
        let is_it = |entry: &FdbEntry| entry.bridge == bridge && source.ends_with(&entry.mac.0);
        let mut all = self.appctl.daemon.switch().fdb();
        all.retain(is_it);
        all
    }

    fn inlet(&self, bridge: &str) -> Option<switch::FlowInlet> {
        self.appctl.daemon.switch().flows(bridge).ok()??.packets
    }
}

/// How many bytes of a packet a mirror copies, if not all.
fn cut(mirror: &Mirror) -> Option<u16> {
    mirror.snaplen.filter(|len| *len < u16::MAX)
}

/// Whether a packet is for a group that bridges keep for themselves.
fn is_reserved(key: &Key) -> bool {
    key.get(slot::ETH_DST) & !0xF == 0x0180_C200_0000
}

/// What is said of an address that has been learnt, or has moved.
fn learnt(before: &[FdbEntry], after: &[FdbEntry]) -> Vec<(bool, String)> {
    let place = |entry: &FdbEntry| (entry.vlan, entry.port.clone());
    let is_new = |entry: &&FdbEntry| !before.iter().any(|known| place(known) == place(entry));
    let said = |FdbEntry { mac, vlan, port, .. }: &FdbEntry| {
        (false, format!("learned that {mac} is on port {port} in VLAN {vlan}"))
    };
    after.iter().filter(is_new).map(said).collect()
}

/// What is said of a decision.
fn notes(decided: &Decided, key: &Key) -> Vec<(bool, String)> {
    let is_group = key.get(slot::ETH_DST) >> 40 & 1 != 0;
    let note = match decided.dropped {
        None | Some(DropReason::FlowDrop)
            if decided.outputs.is_empty() || decided.is_flooded || is_group =>
        {
            (false, "no learned MAC for destination, flooding".to_owned())
        }
        None => (false, "forwarding to learned port".to_owned()),
        Some(DropReason::Hairpin) => (false, "learned port is input port, dropping".to_owned()),
        Some(DropReason::ReservedMulticast) => {
            (false, "packet has reserved destination MAC, dropping".to_owned())
        }
        Some(DropReason::InactiveMember) => {
            (false, "bonding refused admissibility, dropping".to_owned())
        }
        Some(DropReason::CameBack) => {
            (false, "SLB bond thinks this packet looped back, dropping".to_owned())
        }
        Some(DropReason::WrongVlan) => {
            (true, "disallowed VLAN VID for this input port, dropping".to_owned())
        }
        Some(reason) => (true, format!("dropped: {}", reason.name())),
    };
    vec![note]
}

impl World for Sight<'_, '_> {
    fn pipeline(&mut self, bridge: &str) -> Option<Arc<Pipeline>> {
        Some(self.appctl.daemon.switch().flows(bridge).ok()??.pipeline)
    }

    fn outlet(&mut self, _: &str, port: u16) -> Outlet {
        let name = self.appctl.daemon.switch().port_named(port);
        name.map_or(Outlet::Nowhere, |name| self.behind(&name))
    }

    fn closed_by(&mut self, bridge: &str, port: u16) -> Option<&'static str> {
        let name = self.appctl.daemon.switch().port_named(port)?;
        super::super::spanning::closed_by(self.appctl, bridge, &name)
    }

    fn has_collectors(&self, bridge: &str) -> bool {
        self.appctl.agent.exports().has_ipfix(bridge)
    }

    fn normal(&mut self, bridge: &str, port: Option<u16>, key: &Key) -> Normal {
        let frame = compose(key, None);
        let switch = self.appctl.daemon.switch();
        let name = port.and_then(|port| switch.port_named(port));
        // It learns addresses of those packets that have some.
        let learns = self.frame.is_some() && key.is_ethernet();
        let known = if learns { self.known(bridge, key) } else { Vec::new() };
        let Ok(decided) = switch.decide(bridge, name.as_deref(), &frame, learns) else {
            return Normal {
                notes: vec![(true, "no input bundle, dropping".to_owned())],
                ..Normal::default()
            };
        };
        let mut notes = notes(&decided, key);
        if learns {
            notes.splice(..0, learnt(&known, &self.known(bridge, key)));
        }
        let mut outputs: Vec<(Outlet, Key)> = Vec::new();
        let mut copies = Vec::new();
        for (name, frame) in &decided.outputs {
            let outlet = round::by_bond(self.appctl, name);
            let outlet = outlet.unwrap_or_else(|| self.way_out(bridge, name));
            outputs.push((outlet, with_tags_of(key, frame)));
            // Whoever looks for a bond does not know its members.
            let bond =
                self.appctl.daemon.state().ports.get(name).and_then(|port| port.bond.clone());
            let port = bond.as_deref().unwrap_or(name);
            copies.extend(self.copies_at(bridge, key, port, true));
        }
        // First those that have it as it is, and then what is alike together.
        outputs.order_by_key(|(_, of)| (tags(of) != tags(key), tags(of)));
        Normal { notes, outputs, copies, is_flooded: decided.is_flooded }
    }

    fn enter_tunnel(&mut self, bridge: &str, port: &str, key: &Key) -> Option<IntoTunnel> {
        tunnels::into(self.appctl, bridge, port, key)
    }

    fn out_of_tunnel(&mut self, port: u32, key: &Key) -> Option<u32> {
        tunnels::out_of(self.appctl, port, key)
    }

    fn copies(&mut self, bridge: &str, key: &Key, out: Option<u16>) -> Vec<MirrorCopy> {
        let port = match out {
            None => self.inlet_port(bridge, key),
            Some(port) => self.appctl.daemon.switch().port_named(port),
        };
        port.map(|port| self.copies_at(bridge, key, &port, out.is_some())).unwrap_or_default()
    }

    fn puts_ethernet_on(&self, bridge: &str, port: PortNo) -> bool {
        let port = self.port_name(bridge, port);
        port.is_some_and(|port| tunnels::puts_ethernet_on(self.appctl, &port))
    }

    fn copied(&self) -> BTreeSet<String> {
        self.copied.clone()
    }

    fn mirrors_vlans(&self, bridge: &str) -> bool {
        let looks = |mirror: &Mirror| mirror.select_vlan.is_some() || mirror.output_vlan.is_some();
        self.mirrors(bridge).any(|(_, mirror)| looks(mirror))
    }

    fn context(&mut self, bridge: &str, about: &PacketIn) -> u32 {
        number_of((bridge, about.table, about.cookie, &about.key, &about.userdata))
    }

    fn heard(&mut self, bridge: &str, key: &Key) -> (Option<Protocol>, Key) {
        match self.inlet_port(bridge, key) {
            Some(port) => heard::heard(self.appctl, &port, key, self.frame.map(|(frame, _)| frame)),
            None => (None, Key::default()),
        }
    }

    fn abilities(&self) -> Abilities {
        self.appctl.flows.abilities
    }

    fn packet_len(&self) -> Option<usize> {
        self.frame.map(|(frame, _)| frame.len())
    }

    fn round(&mut self, bridge: &str, frozen: &Arc<Frozen>) -> u32 {
        let copied = self.copied.clone();
        let onward =
            || Onward { bridge: bridge.to_owned(), frozen: Arc::clone(frozen), hash: None, copied };
        numbers::round(bridge, frozen, onward)
    }

    fn controller(&mut self, bridge: &str, key: &Key, about: &Arc<PacketIn>) {
        if let Some(mut inlet) = self.inlet(bridge) {
            let frame = match self.frame {
                Some((frame, was)) => edited(frame, was, key),
                None => compose(key, None),
            };
            inlet.offer_packet(about, &frame);
        }
    }

    fn learn(&mut self, bridge: &str, change: &Arc<Change>) {
        if let Some(mut inlet) = self.inlet(bridge) {
            inlet.offer_rule(change);
        }
    }

    fn port_name(&self, bridge: &str, port: PortNo) -> Option<String> {
        let number = if port == PortNo::LOCAL { LOCAL } else { u16::try_from(port.0).ok()? };
        if number == LOCAL {
            return None;
        }
        self.appctl.agent.port(bridge, number).map(str::to_owned)
    }

    fn path_name(&self, port: u32) -> Option<String> {
        self.appctl.agent.path_numbers().name(port).map(str::to_owned)
    }
}

/// The tags of a packet, the inner one first where there is one.
fn tags(key: &Key) -> [u16; 4] {
    [slot::INNER_TCI, slot::INNER_TPID, slot::VLAN_TCI, slot::VLAN_TPID]
        .map(|slot| key.get_u16(slot))
}

/// The key of a packet that has the tags of `frame`.
fn with_tags_of(key: &Key, frame: &[u8]) -> Key {
    let mut read = Key::default();
    extract(&mut read, frame, frame.len(), VLANS, Depth::Link);
    let mut key = *key;
    for slot in [slot::VLAN_TPID, slot::VLAN_TCI, slot::INNER_TPID, slot::INNER_TCI] {
        key.set(slot, read.get(slot));
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_new_or_has_moved_is_told() {
        let entry = |port: &str, vlan| FdbEntry {
            bridge: "br0".to_owned(),
            mac: packet::MacAddr([2, 0, 0, 0, 0, 1]),
            vlan,
            port: port.to_owned(),
            age: 0,
            is_static: false,
        };
        let said = |before: &[FdbEntry], after: &[FdbEntry]| -> Vec<String> {
            learnt(before, after).into_iter().map(|(_, text)| text).collect()
        };
        let new = "learned that 02:00:00:00:00:01 is on port p1 in VLAN 7";
        assert_eq!(said(&[], &[entry("p1", 7)]), [new]);
        assert_eq!(said(&[entry("p2", 7)], &[entry("p1", 7)]), [new]);
        assert_eq!(said(&[entry("p1", 7)], &[entry("p1", 7)]), [""; 0]);
    }
}
