//! What a trace has to know of the switch.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use ethdev::DropReason;
use flow::{Change, Depth, Key, PacketIn, Pipeline, extract, slot};
use odp::{Normal, Outlet, World, compose};
use openflow::PortNo;
use ovs::numbers::LOCAL;
use switch::Decided;

use super::super::Appctl;

/// Tags of a frame that is told about.
const VLANS: u8 = 2;

/// Numbers of what goes on with packets that have left the datapath, by its hash, as long as there are
/// no more than this.
const MAX_CONTEXTS: usize = 65_536;

/// The switch, as a trace sees it.
pub struct Sight<'s, 'a> {
    appctl: &'s mut Appctl<'a>,
    /// The packet, if there is one.
    frame: Option<&'s [u8]>,
}

impl<'s, 'a> Sight<'s, 'a> {
    pub const fn new(appctl: &'s mut Appctl<'a>, frame: Option<&'s [u8]>) -> Self {
        Self { appctl, frame }
    }

    /// What lies behind a port.
    fn behind(&self, port: &str) -> Outlet {
        if let Some((bridge, port)) = self.peer_of(port) {
            return Outlet::Patch(bridge, port);
        }
        let number = self.appctl.agent.path_numbers().of(port);
        number.map_or(Outlet::Nowhere, Outlet::Port)
    }

    /// The bridge and the port that a patch port leads to.
    fn peer_of(&self, port: &str) -> Option<(String, PortNo)> {
        let content = self.appctl.agent.content()?;
        let row = |name: &str| {
            let mut all = content.interfaces();
            let (bridge, _, _, row) = all.find(|(_, _, found, _)| *found == name)?;
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

    fn inlet(&self, bridge: &str) -> Option<switch::FlowInlet> {
        self.appctl.daemon.switch().flows(bridge).ok()??.packets
    }
}

/// What is said of a decision.
fn notes(decided: &Decided, key: &Key) -> Vec<(bool, String)> {
    let is_group = key.get(slot::ETH_DST) >> 40 & 1 != 0;
    let note = match decided.dropped {
        None if decided.outputs.is_empty() || decided.is_flooded || is_group => {
            (false, "no learned MAC for destination, flooding".to_owned())
        }
        None => (false, "forwarding to learned port".to_owned()),
        Some(DropReason::Hairpin) => (false, "learned port is input port, dropping".to_owned()),
        Some(DropReason::ReservedMulticast) => {
            (false, "packet has reserved destination MAC, dropping".to_owned())
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

    fn normal(&mut self, bridge: &str, port: Option<u16>, key: &Key) -> Normal {
        let frame = compose(key, None);
        let switch = self.appctl.daemon.switch();
        let name = port.and_then(|port| switch.port_named(port));
        let learns = self.frame.is_some();
        let Ok(decided) = switch.decide(bridge, name.as_deref(), &frame, learns) else {
            return Normal {
                notes: vec![(true, "no input bundle, dropping".to_owned())],
                ..Normal::default()
            };
        };
        let notes = notes(&decided, key);
        let outputs = decided.outputs.iter();
        let outputs = outputs.map(|(name, frame)| (self.behind(name), with_tags_of(key, frame)));
        let mut outputs: Vec<(Outlet, Key)> = outputs.collect();
        // First those that have it as it is, and then what is alike together.
        outputs.sort_by_key(|(_, of)| (tags(of) != tags(key), tags(of)));
        Normal { notes, outputs }
    }

    fn context(&mut self, bridge: &str, about: &PacketIn) -> u32 {
        context(bridge, about)
    }

    fn controller(&mut self, bridge: &str, key: &Key, about: &Arc<PacketIn>) {
        if let Some(mut inlet) = self.inlet(bridge) {
            let frame = compose(key, self.frame.map(<[u8]>::len));
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

/// A number for what goes on with a packet: the same for the same.
fn context(bridge: &str, about: &PacketIn) -> u32 {
    static KNOWN: Mutex<Option<(RandomState, HashMap<u64, u32>)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (state, numbers) = known.get_or_insert_with(Default::default);
    let hash = state.hash_one((bridge, about.table, about.cookie, &about.key, &about.userdata));
    if numbers.len() >= MAX_CONTEXTS {
        numbers.clear();
    }
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX).saturating_add(1);
    *numbers.entry(hash).or_insert(next)
}
