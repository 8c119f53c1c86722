//! Packets that go round in Open vSwitch's datapath to find the member of a bond.

use flow::{Key, slot};
use odp::flows::Way;
use odp::{Action, Outlet, compose};
use switch::BondMode;

use super::super::Appctl;
use super::numbers::number_of;

/// Bits of a packet's hash that count: one for each part of a bond's traffic.
const PARTS: u32 = 0xFF;

/// The number by which packets for a bond come again, or by which the datapath has its table.
pub fn number(bond: &str) -> u32 {
    number_of(("bond", bond))
}

/// Whether the datapath has the tables of a bond, so that packets need not come again.
pub fn has_table(appctl: &Appctl<'_>, bond: &str) -> bool {
    let bridges = appctl.agent.content().into_iter().flat_map(|content| content.bridges.values());
    let mut ports = bridges.filter_map(|bridge| bridge.ports.get(bond));
    ports.any(|port| port.other_config.get("lb-output-action").is_some_and(|value| value == "true"))
}

/// What lies behind a member of a bond that divides traffic by flow. What goes into a patch port does not
/// go round.
pub(super) fn by_bond(appctl: &Appctl<'_>, member: &str) -> Option<Outlet> {
    let state = appctl.daemon.state();
    let port = state.ports.get(member).filter(|port| port.peer().is_none())?;
    let bond = port.bond.as_deref()?;
    let is_asked = state.ports.get(bond)?.bonding.mode == BondMode::BalanceTcp;
    if !is_asked || !appctl.daemon.switch().divides_by_flow(bond) {
        return None;
    }
    let number = number(bond);
    Some(match has_table(appctl, bond) {
        true => Outlet::ByTable(number),
        false => Outlet::Balanced(number),
    })
}

/// The part of a bond's traffic that a packet belongs to.
pub fn part(key: &Key) -> u32 {
    switch::flow_part(&compose(key, None)).into()
}

/// What becomes of a packet that has come again for a bond; `None`: there is no such bond any more.
pub fn way(appctl: &Appctl<'_>, key: &Key) -> Option<Way> {
    let asked = key.get_u32(slot::RECIRC_ID);
    let bonds = appctl.daemon.state().ports.iter();
    let mut bonds = bonds.filter(|(name, port)| port.is_bond() && number(name) == asked);
    let (bond, _) = bonds.next()?;
    let at = usize::try_from(key.get_u32(slot::DP_HASH) & PARTS).ok()?;
    let parts = appctl.daemon.switch().bond_parts(bond);
    let member = parts.get(at).and_then(|part| part.member.as_ref());
    let number = member.and_then(|member| appctl.agent.path_numbers().of(member));
    let mut mask = Key::default();
    for slot in [slot::PACKET_TYPE, slot::IN_PORT, slot::ETH_TYPE, slot::RECIRC_ID] {
        mask.set(slot, slot.ones());
    }
    mask.set(slot::DP_HASH, PARTS.into());
    if matches!(key.get_u16(slot::ETH_TYPE), 0x0800 | 0x86DD) {
        mask.set(slot::IP_FRAG, 3);
    }
    Some(Way {
        options: Vec::new(),
        is_flooded: false,
        mask,
        actions: number.map(Action::Output).into_iter().collect(),
    })
}
