//! The Link Aggregation Control Protocol (IEEE 802.1AX-2014 clause 6.4): two systems agree on which of
//! their links are one. Nothing here reads a clock or sends anything.
//!
//! - `pdu`: frames on the wire
//! - `port`: the state machines of one port
//! - `lead`: who is chosen, as Open vSwitch does it
//! - `settings`: what a member says of itself
//!
//! Selection (clause 6.4.14) is here: of the groups of ports that lead to the same system with the
//! same key, one is used.

mod lead;
pub mod pdu;
pub mod port;
mod settings;

use std::time::Instant;

use litemap::LiteMap;
use packet::MacAddr;

use self::pdu::{Flags, Info, Pdu};
use self::port::{Manner, Port, Receive, Settings};

pub use self::settings::PortLacp;

/// What ports have in common that can be one: their own key, and the partner's system and key. One
/// that is to be alone has a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    own_key: u16,
    system_priority: u16,
    system: MacAddr,
    key: u16,
    alone: Option<u16>,
}

/// A port, as whoever runs the protocol sees it.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its number.
    pub port: u16,
    /// What it is set to.
    pub settings: Settings,
    /// Whether its link is up and it is in service.
    pub is_up: bool,
}

/// The protocol on all ports of a bond.
#[derive(Debug, Default)]
pub struct Agent {
    ports: LiteMap<u16, Port>,
    chosen: Option<Group>,
    /// Whether ports that follow Open vSwitch's machines have found a group.
    has_lead: bool,
}

impl Agent {
    /// These are the ports, at `now`; does what is due and returns what is to be sent, with the
    /// port of each.
    pub fn run(&mut self, links: &[Link], now: Instant) -> Vec<(u16, Pdu)> {
        self.ports.retain(|number, _| links.iter().any(|link| link.port == *number));
        for link in links {
            let port = self.ports.entry(link.port).or_insert_with(|| Port::new(link.settings));
            port.set(link.settings);
        }
        let mut sent = Vec::new();
        // What a port has found out about its partner decides about all of them.
        let is_up = |number: u16| links.iter().any(|link| link.port == number && link.is_up);
        for (number, port) in &mut self.ports {
            port.look(is_up(*number), now);
        }
        match links.iter().any(|link| link.settings.manner != Manner::Standard) {
            true => self.has_lead = lead::select(&mut self.ports),
            false => self.select(),
        }
        for (number, port) in &mut self.ports {
            sent.extend(port.run(now).map(|pdu| (*number, pdu)));
        }
        sent
    }

    /// A frame has come in on a port.
    pub fn hear(&mut self, port: u16, pdu: &Pdu, now: Instant) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.hear(pdu, now);
        }
    }

    /// A frame has come in on a port that makes no sense.
    pub fn hear_nonsense(&mut self, port: u16) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.counts.bad = port.counts.bad.saturating_add(1);
        }
    }

    /// A question of the marker protocol has come in on a port.
    pub fn hear_marker(&mut self, port: u16) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.counts.markers = port.counts.markers.saturating_add(1);
        }
    }

    /// Stays with the group that is in use as long as it has a port that hears its partner;
    /// otherwise takes that of the port with the lowest priority, and number.
    fn select(&mut self) {
        let groups = || {
            self.ports
                .iter()
                .filter_map(|(number, port)| Some((number, port, group(*number, port)?)))
        };
        let so_far = || groups().find(|(_, _, group)| Some(*group) == self.chosen);
        let best = || {
            let current = groups().filter(|(_, port, _)| port.receive() == Receive::Current);
            current.min_by_key(|(_, port, _)| (port.actor().port_priority, port.actor().port))
        };
        let chosen = so_far().or_else(best).map(|(_, _, group)| group);
        self.chosen = chosen;
        for (number, port) in &mut self.ports {
            let own = group(*number, port);
            port.select(own.is_some() && own == chosen, chosen.is_some());
        }
    }

    /// Whether there is a partner.
    #[cfg(test)]
    pub const fn has_partner(&self) -> bool {
        self.chosen.is_some()
    }

    /// Whether the protocol decides which ports carry frames: by the standard, once any may.
    pub fn is_negotiated(&self) -> bool {
        self.has_lead
            || self
                .ports
                .values()
                .any(|port| port.settings().manner == Manner::Standard && port.is_in_use())
    }

    /// Whether a port may carry frames.
    pub fn is_in_use(&self, port: u16) -> bool {
        self.ports.get(&port).is_some_and(Port::is_in_use)
    }

    /// A port, to look at.
    pub fn port(&self, port: u16) -> Option<&Port> {
        self.ports.get(&port)
    }

    /// When there is something to do next.
    pub fn due(&self) -> Option<Instant> {
        self.ports.values().filter_map(Port::due).min()
    }
}

/// The group that a port belongs to; `None` where no partner is known.
fn group(number: u16, port: &Port) -> Option<Group> {
    let is_known = matches!(port.receive(), Receive::Current | Receive::Expired);
    let Info { system_priority, system, key, flags, .. } = *port.partner();
    let alone = (!flags.has(Flags::AGGREGATION)).then_some(number);
    let is_there = is_known && system != MacAddr::default();
    let own_key = port.actor().key;
    is_there.then_some(Group { own_key, system_priority, system, key, alone })
}

#[cfg(test)]
mod tests;
