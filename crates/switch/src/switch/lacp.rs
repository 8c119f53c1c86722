//! LACP as control threads see it: what bonds, and ports by themselves, hear and say.

use std::time::Instant;

use datapath::inlet::{Heard, Inlet};
use l2proto::lacp::pdu::{self, FRAME_LEN, Flags, Info, Slow};
use l2proto::lacp::port::{Manner, Port as LacpPort, Receive, Settings};
use l2proto::lacp::{Agent, Link as LacpLink, PortLacp};
use packet::MacAddr;

use super::bonds::{Bond, bond_name, seen};
use super::monitors::is_up;
use super::traps::Line;
use super::{Control, Switch};
use crate::bond::group::{Agreement, Seen};
use crate::bond::{Bonding, Lacp, LacpManner, LacpTime, MAX_MEMBERS};
use crate::config::MAX_PORTS;
use crate::ports::Entry;
use crate::report::{BondReport, LacpReport, MemberLacp};

/// The priority of each member, so that their numbers decide.
const PORT_PRIORITY: u16 = 65_535;

/// Frames to be sent, and the member to send each by.
type Said = Vec<(u16, Vec<u8>)>;

/// What a member brings along for LACP.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    mac: MacAddr,
    lacp: PortLacp,
    /// Whether its link is up, as far as there is a carrier that could be lost: whether its peer is
    /// there, a patch port finds out as any does whose neighbour falls silent.
    has_carrier: bool,
}

impl Own {
    fn of(member: &Entry, is_up: bool) -> Self {
        let has_carrier = is_up || (member.cable().is_some() && member.is_in_service());
        Self { mac: member.control().mac(), lacp: member.options().lacp, has_carrier }
    }
}

impl Bond {
    /// Hears what members have received, and says what is to be said, as bond `number` with these
    /// members: frames, and the member to send each by. Notes which members are agreed on.
    fn speak(
        &mut self,
        (number, known): (u16, Option<MacAddr>),
        seen: &mut [Seen],
        heard: impl Iterator<Item = Heard>,
        of: impl Fn(u16) -> Own,
        now: Instant,
    ) -> (Agreement, Said) {
        let bonding = self.group.settings().clone();
        if bonding.lacp == Lacp::Off {
            self.agent = Agent::default();
            return (Agreement::None, Vec::new());
        }
        let macs = known.into_iter().chain(seen.iter().map(|seen| of(seen.port).mac));
        let own = self.identity(number, &bonding, macs);
        let from = |port| Some(of(port).mac).filter(|mac| mac.is_station()).unwrap_or(own.system);
        let mut frames = Vec::new();
        for heard in heard {
            match pdu::parse(heard.bytes(), from(heard.port)) {
                Some(Slow::Lacp(pdu)) => self.agent.hear(heard.port, &pdu, now),
                Some(Slow::Marker(answer)) => {
                    self.agent.hear_marker(heard.port);
                    frames.push((heard.port, answer));
                }
                None => self.agent.hear_nonsense(heard.port),
            }
        }
        let said = self.agent.run(&links(&bonding, seen, own, &of), now).into_iter();
        frames.extend(said.map(|(port, pdu)| (port, pdu.frame(from(port)))));
        let reached = self.agent.is_negotiated();
        let falls_back = !reached && falls_back_together(&bonding);
        for seen in seen {
            seen.is_agreed = falls_back || self.agent.is_in_use(seen.port);
        }
        (if reached { Agreement::Reached } else { Agreement::Missing }, frames)
    }

    /// What it says of itself, but the port; known by the first of these addresses that it can be.
    fn identity(
        &mut self,
        number: u16,
        bonding: &Bonding,
        macs: impl Iterator<Item = MacAddr>,
    ) -> Info {
        let mut macs = macs.filter(|mac| mac.is_station());
        let own = self.own.get_or_insert_with(|| macs.next().unwrap_or_else(MacAddr::random_local));
        Info {
            system_priority: bonding.system_priority(),
            system: bonding.system_id().unwrap_or(*own),
            key: number.saturating_add(1),
            port_priority: PORT_PRIORITY,
            port: 0,
            flags: Flags::default(),
        }
    }

    pub(super) fn lacp_report(&self) -> Option<LacpReport> {
        let bonding = self.group.settings();
        let mut members = self.group.members().iter();
        let port = members.find_map(|member| self.agent.port(member.seen.port))?;
        let actor = port.actor();
        (bonding.lacp != Lacp::Off).then(|| LacpReport {
            is_negotiated: self.agent.is_negotiated(),
            system_priority: actor.system_priority,
            system: actor.system,
            key: actor.key,
        })
    }
}

/// Whether members are used as by `active-backup` until one has a partner; by Open vSwitch's machines,
/// that is for each to find out.
fn falls_back_together(bonding: &Bonding) -> bool {
    bonding.lacp_fallback_ab && bonding.lacp_manner == LacpManner::Standard
}

/// The members of a bond that says `own`, as LACP is to see them.
fn links(bonding: &Bonding, seen: &[Seen], own: Info, of: impl Fn(u16) -> Own) -> Vec<LacpLink> {
    let given: Vec<u16> = seen.iter().filter_map(|seen| of(seen.port).lacp.port_id).collect();
    let (manner, aggregates) = match bonding.lacp_manner {
        LacpManner::Standard => (Manner::Standard, true),
        LacpManner::OpenVswitch => {
            (Manner::OpenVswitch { falls_back: bonding.lacp_fallback_ab }, seen.len() > 1)
        }
    };
    let link = |seen: &Seen| LacpLink {
        port: seen.port,
        is_up: of(seen.port).has_carrier,
        settings: Settings {
            own: member_info(seen.port, of(seen.port).lacp, own, &given),
            aggregates,
            is_active: bonding.lacp == Lacp::Active,
            is_fast: bonding.lacp_time == LacpTime::Fast,
            manner,
        },
    };
    let mut links: Vec<LacpLink> = seen.iter().map(link).collect();
    if bonding.lacp_manner == LacpManner::OpenVswitch
        && let Some(first) = seen.first()
    {
        let key = of(first.port).lacp.aggregation_key;
        let key = key.or_else(|| links.first().map(|link| link.settings.own.port));
        links.iter_mut().for_each(|link| link.settings.own.key = key.unwrap_or_default());
    }
    links
}

/// What member `port` says of itself, as one of a bond that says `own`; `given` are the numbers that
/// members are told to have.
fn member_info(port: u16, lacp: PortLacp, own: Info, given: &[u16]) -> Info {
    Info {
        key: lacp.aggregation_key.unwrap_or(own.key),
        port_priority: lacp.port_priority.unwrap_or(own.port_priority),
        port: lacp.port_id.unwrap_or_else(|| free_id(port, given)),
        ..own
    }
}

/// A number for member `port` that no other member has: there are more to choose from than members.
fn free_id(port: u16, given: &[u16]) -> u16 {
    let first = port.saturating_add(1);
    let mut all = (first..).step_by(2 * MAX_PORTS).take(MAX_MEMBERS);
    all.find(|id| !given.contains(id)).unwrap_or(first)
}

/// The most frames of neighbours that wait, and are read at once.
const MOST_HEARD: usize = 64;

pub(super) fn member_lacp(port: &LacpPort) -> MemberLacp {
    let (actor, partner, counts) = (port.actor(), port.partner(), port.counts);
    MemberLacp {
        state: match port.receive() {
            Receive::Disabled => "disabled",
            Receive::Expired => "expired",
            Receive::Defaulted => "defaulted",
            Receive::Current => "current",
        },
        is_in_use: port.is_in_use(),
        port: actor.port,
        port_priority: actor.port_priority,
        key: actor.key,
        flags: actor.flags.0,
        partner_system: partner.system,
        partner_priority: partner.system_priority,
        partner_key: partner.key,
        partner_port: partner.port,
        partner_port_priority: partner.port_priority,
        partner_flags: partner.flags.0,
        received: counts.received,
        sent: counts.sent,
        bad: counts.bad,
        markers: counts.markers,
        expired: counts.expired,
        defaulted: counts.defaulted,
        links: counts.links,
    }
}

impl Switch {
    /// All bonds that speak LACP, and ports that do so by themselves, as bonds of one member, in the
    /// order of their names.
    #[must_use]
    pub fn lacp(&self) -> Vec<BondReport> {
        self.control().bonds_where(|_, bond| bond.group.settings().lacp != Lacp::Off)
    }
}

impl Control {
    /// Whether a port may carry frames as far as LACP is concerned, and whoever watches its link.
    pub(super) fn is_agreed(&self, name: &str, entry: &Entry) -> bool {
        let bond = self.bonds.0.get(entry.options().bond.as_deref().unwrap_or(name));
        let spoken = bond.filter(|bond| bond.group.settings().lacp != Lacp::Off);
        let is_agreed = || spoken.is_none_or(|bond| bond.agent.is_in_use(entry.number()));
        entry.bundle().is_some() || (is_agreed() && self.watches.carries(name))
    }

    /// Has a bond hear what neighbours say by LACP, if it is to speak that.
    pub(super) fn listen_in_bond(&mut self, name: &str) {
        let Ok(entry) = self.ports.get(name) else { return };
        let (number, listens) = (entry.number(), entry.options().bonding.lacp != Lacp::Off);
        let bond = self.bonds.of(name);
        if listens != bond.inlet.is_some() {
            let inlet =
                || Inlet::new(FRAME_LEN, MOST_HEARD, &self.pace, self.notes.of_port(number));
            bond.inlet = listens.then(inlet);
        }
    }

    /// Has a bond hear and speak by LACP. Returns what has come of it, what is to be sent, and the
    /// members.
    pub(super) fn speak_in(&mut self, name: &str) -> Option<(Agreement, Said, Vec<Seen>)> {
        let entry = self.ports.get(name).ok()?;
        let (now, number) = (self.time.now(), entry.number());
        let bond = self.bonds.of(name);
        bond.group.set(&entry.options().bonding);
        let alone = self.ears.slow(number).filter(|_| entry.bundle().is_none());
        let alone = alone.into_iter().flat_map(Line::heard);
        let inlet = bond.inlet.as_ref().map(|(_, heard)| heard.try_iter().take(MOST_HEARD));
        let heard: Vec<Heard> = inlet.into_iter().flatten().chain(alone).collect();
        let mut seen = seen(&self.ports, name, entry);
        seen.iter_mut().for_each(|seen| seen.is_up &= self.watches.carries(&seen.name));
        let of = |port| {
            let member = self.ports.numbered(port).map(|(_, member)| member);
            member.map(|member| Own::of(member, is_up(member, entry))).unwrap_or_default()
        };
        let known = self.identity.mac(&format!("bond {name}"));
        let heard = heard.into_iter();
        let (agreement, frames) = bond.speak((number, known), &mut seen, heard, of, now);
        Some((agreement, frames, seen))
    }

    /// Listens no more on ports that do not speak by themselves any more; these are the bonds, and the
    /// ports that do.
    pub(super) fn end_lacp(&mut self) {
        let speaks = |number: &u16| {
            let port = self.ports.numbered(*number);
            port.is_some_and(|(name, entry)| {
                entry.bundle().is_none() && bond_name((name, entry)).is_some()
            })
        };
        let gone: Vec<u16> = self.ears.slow_ports().filter(|number| !speaks(number)).collect();
        for number in gone {
            self.listen_for_lacp(number, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_say_what_they_are_told_and_never_have_one_number() {
        let own = Info { key: 4, port_priority: PORT_PRIORITY, ..Info::default() };
        let plain = member_info(0, PortLacp::default(), own, &[]);
        assert_eq!((plain.key, plain.port_priority, plain.port), (4, PORT_PRIORITY, 1));
        let lacp = PortLacp { port_id: Some(9), port_priority: Some(2), aggregation_key: Some(3) };
        let told = member_info(0, lacp, own, &[9]);
        assert_eq!((told.key, told.port_priority, told.port), (3, 2, 9));
        assert_eq!(free_id(8, &[9]), 9 + 2_048);
        let all: Vec<u16> = (0..31).map(|n| 9 + n * 2_048).collect();
        assert_eq!(free_id(8, &all), 9 + 31 * 2_048);
    }
}
