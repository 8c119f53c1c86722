//! Which ports are chosen, as Open vSwitch does it: one leads, and those that have the same partner
//! follow. A port without a partner has one, too, as long as it is still asked for: the unknown one.

use litemap::LiteMap;
use packet::MacAddr;

use super::pdu::Info;
use super::port::{Manner, Port, Receive};

/// By what the leader is found: the lowest of system priority, system, port priority and number, as the
/// side with the lower system has them.
type Rank = (u16, MacAddr, u16, u16);

fn rank(port: &Port) -> Rank {
    let (own, partner) = (port.settings().own, port.partner());
    let system = |info: &Info| (info.system_priority, info.system);
    let decides = if system(&own) < system(partner) { &own } else { partner };
    (decides.system_priority, decides.system, decides.port_priority, decides.port)
}

/// Chooses ports, and returns whether there is a leader. One that hears its partner stays it; otherwise
/// it is the first of all that are not given up, and lead to others than their own system.
pub(super) fn select(ports: &mut LiteMap<u16, Port>) -> bool {
    let is_current = |port: &&Port| port.receive() == Receive::Current && port.is_selected();
    let current = ports.values().filter(is_current).min_by_key(|port| rank(port));
    let may_lead = |port: &Port| {
        matches!(port.receive(), Receive::Current | Receive::Expired)
            && port.partner().system != port.settings().own.system
    };
    let first = || ports.values().filter(|port| may_lead(port)).min_by_key(|port| rank(port));
    let lead = current.or_else(first).map(|lead| (lead.partner().system, lead.partner().key));
    for (_, port) in ports.iter_mut() {
        let follows = may_lead(port) && Some((port.partner().system, port.partner().key)) == lead;
        let falls_back = port.settings().manner == Manner::OpenVswitch { falls_back: true };
        let stands_in = lead.is_none() && falls_back && port.receive() == Receive::Defaulted;
        port.select(follows || stands_in, lead.is_some());
    }
    lead.is_some()
}
