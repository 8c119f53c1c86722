//! What actions write: to the key, and so to the packet by the time that it goes out.

use openflow::action::Action;
use openflow::field::{Prerequisite, ones};
use openflow::packet_in::Reason;
use openflow::{Field, Subfield};
use packet::MacAddr;

use super::track::tells_connection;
use super::{Kind, NO_METER, State, Walk, is_tagged};
use crate::extract::NSH;
use crate::key::{FRAG_LATER, Key, Slot, TAG_PRESENT, slot};
use crate::place::place;

impl Walk<'_> {
    /// The value of some bits of a field.
    pub(super) fn read(&self, from: Subfield) -> u128 {
        let Some(slot) = place(from.field) else { return 0 };
        self.state.key.get(slot) >> from.offset & ones(from.bits)
    }

    /// Does an action that only writes, or nothing.
    pub(super) fn write_by(&mut self, action: &Action) {
        match action {
            Action::SetField { field, value, mask } => {
                if holds(field.prerequisite(), &self.state.key) {
                    self.put_field(*field, *value, *mask);
                } else {
                    self.note(
                        Kind::Warning,
                        format_args!("unmet prerequisites for {field}, set_field ignored"),
                    );
                }
            }
            Action::Load { target, value } => self.write(*target, u128::from(*value)),
            Action::Move { source, target } => {
                if holds(source.field.prerequisite(), &self.state.key) {
                    let value = self.read(*source);
                    self.write(*target, value);
                }
            }
            // What is not there is zero.
            Action::DeleteField(field) => {
                self.put_field(*field, 0, field.byte_mask());
                self.set_present(*field, false);
            }
            Action::SetVlanVid { vid, push } => self.tag(*vid, 0x0FFF, *push),
            Action::SetVlanPcp { pcp, push } => self.tag(u16::from(*pcp) << 13, 0xE000, *push),
            Action::StripVlan | Action::PopVlan => self.pop_tag(),
            Action::PushVlan { ethertype } => self.push_tag(*ethertype),
            Action::SetEthSrc(address) => self.put(slot::ETH_SRC, number(*address)),
            Action::SetEthDst(address) => self.put(slot::ETH_DST, number(*address)),
            Action::SetTunnel { id, .. } => self.put(slot::TUN_ID, u128::from(*id)),
            Action::SetQueue(queue) => self.put(slot::SKB_PRIORITY, u128::from(*queue)),
            // Packets come in without one.
            Action::PopQueue => self.put(slot::SKB_PRIORITY, 0),
            Action::SetMplsLabel(label) => self.write_label(slot::MPLS_LABEL, *label),
            Action::SetMplsTc(class) => self.write_label(slot::MPLS_TC, u32::from(*class)),
            Action::SetMplsTtl(ttl) => self.write_label(slot::MPLS_TTL, u32::from(*ttl)),
            other => self.write_above(other),
        }
    }

    /// The same, to what is above the link layer, if that is there.
    fn write_above(&mut self, action: &Action) {
        let key = &self.state.key;
        let (is_v4, is_ip) = (holds(Prerequisite::Ipv4, key), holds(Prerequisite::Ip, key));
        let has_ports = is_ip && key.get_u8(slot::IP_FRAG) & FRAG_LATER == 0;
        match action {
            Action::SetIpSrc(address) if is_v4 => {
                self.put(slot::IPV4_SRC, u128::from(u32::from(*address)));
            }
            Action::SetIpDst(address) if is_v4 => {
                self.put(slot::IPV4_DST, u128::from(u32::from(*address)));
            }
            Action::SetNwTos(tos) if is_ip => self.put(slot::IP_DSCP, u128::from(*tos >> 2)),
            Action::SetNwEcn(ecn) if is_ip => self.put(slot::IP_ECN, u128::from(*ecn)),
            Action::SetNwTtl(ttl) if is_ip => self.put(slot::IP_TTL, u128::from(*ttl)),
            Action::SetL4Src(port) if has_ports => self.put(slot::TP_SRC, u128::from(*port)),
            Action::SetL4Dst(port) if has_ports => self.put(slot::TP_DST, u128::from(*port)),
            _ => {}
        }
    }

    /// Writes to some bits of a field, if the packet has it.
    pub(super) fn write(&mut self, to: Subfield, value: u128) {
        if holds(to.field.prerequisite(), &self.state.key) {
            let value = value & ones(to.bits);
            let shifted = value.checked_shl(u32::from(to.offset)).unwrap_or_default();
            self.put_field(to.field, shifted, to.mask());
        }
    }

    /// Has there be the option that a field stands for, or not.
    fn set_present(&mut self, field: Field, is_there: bool) {
        let bit = u128::from(field.option_bit());
        self.state.key.set_masked(slot::TUN_PRESENT, if is_there { bit } else { 0 }, bit);
    }

    fn put_field(&mut self, field: Field, value: u128, mask: u128) {
        if field.is_tun_metadata() {
            self.set_present(field, true);
        }
        match (field, place(field)) {
            // In the numbers of OpenFlow 1.0.
            (Field::InPort, Some(slot)) => {
                let before = self.in_port().v10().unwrap_or_default();
                let number = before & !low(mask) | low(value) & low(mask);
                let port = openflow::PortNo::from_v10(number);
                self.store(slot, u128::from(port.0), slot.ones());
            }
            // Whoever writes the number of a tag, or its priority, has a tag.
            (Field::DlVlan, _) => self.tag(low(value), low(mask) & 0x0FFF, true),
            (Field::DlVlanPcp | Field::VlanPcp, _) => {
                self.tag(low(value) << 13, low(mask) << 13, true);
            }
            (_, Some(slot)) => self.store(slot, value, mask),
            (_, None) => {}
        }
    }

    /// Puts a value at a place.
    pub(super) fn put(&mut self, slot: Slot, value: u128) {
        self.store(slot, value, slot.ones());
    }

    #[inline]
    fn store(&mut self, slot: Slot, value: u128, mask: u128) {
        if slot.word() == slot::VLAN_TCI.word() {
            for ((_, value), (_, mask)) in slot.spread(value).zip(slot.spread(mask)) {
                self.write_tci(low(value.into()), low(mask.into()));
            }
            return;
        }
        self.state.key.set_masked(slot, value, mask);
        // What is before is no part of the packet, and what is behind not changed there.
        let headers = slot::ETH_DST.word()..=slot::MPLS_LSE.word();
        let nsh = slot::NSH_FIRST.word()..=slot::NSH_C4.word();
        let is_in_packet = |word: &usize| headers.contains(word) || nsh.contains(word);
        if !is_in_packet(&slot.word()) {
            return;
        }
        for (word, mask) in slot.spread(mask).filter(|(word, _)| is_in_packet(word)) {
            self.state.dirty.add(word, mask);
            if self.state.zone.is_some() && tells_connection(word, mask) {
                self.state.zone = None;
            }
        }
    }

    /// Writes to the outer tag; without one, to one that is put on if `push` says so.
    fn tag(&mut self, bits: u16, mask: u16, push: bool) {
        if push || is_tagged(self.state.key.get_u16(slot::VLAN_TCI)) {
            self.write_tci(bits & mask | TAG_PRESENT, mask | TAG_PRESENT);
        }
    }

    fn write_tci(&mut self, bits: u16, mask: u16) {
        let State { key, tags, .. } = &mut self.state;
        tags.write(key, bits, mask);
    }

    fn push_tag(&mut self, tpid: u16) {
        let State { key, tags, .. } = &mut self.state;
        tags.push(key, tpid);
    }

    fn pop_tag(&mut self) {
        let State { key, tags, .. } = &mut self.state;
        tags.pop(key);
    }

    /// Takes one from the time to live; returns whether the packet goes on.
    pub(super) fn dec_ttl(&mut self, ids: &[u16]) -> bool {
        let ether_type = self.state.key.get_u16(slot::ETH_TYPE);
        if !matches!(ether_type, 0x0800 | 0x86DD) {
            return true;
        }
        let ttl = self.state.key.get_u8(slot::IP_TTL);
        if ttl > 1 {
            self.put(slot::IP_TTL, u128::from(ttl - 1));
            return true;
        }
        for id in ids {
            self.controller((u16::MAX, *id), Reason::INVALID_TTL, &[], NO_METER);
        }
        let version = if ether_type == 0x0800 { 4 } else { 6 };
        self.note(Kind::Warning, format_args!("IPv{version} decrement TTL exception"));
        false
    }
}

fn number(MacAddr([a, b, c, d, e, f]): MacAddr) -> u128 {
    u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

fn low(value: u128) -> u16 {
    u16::try_from(value & 0xFFFF).unwrap_or_default()
}

/// Whether a packet has what a field needs.
#[must_use]
pub fn holds(needs: Prerequisite, key: &Key) -> bool {
    if matches!(needs, Prerequisite::Nothing | Prerequisite::Ethernet) {
        return true;
    }
    let ether_type = key.get_u16(slot::ETH_TYPE);
    let (is_v4, is_v6) = (ether_type == 0x0800, ether_type == 0x86DD);
    let is_first = key.get_u8(slot::IP_FRAG) & FRAG_LATER == 0;
    let proto = |wanted: u8| is_first && key.get_u8(slot::IP_PROTO) == wanted;
    let is_nd = |kind: u16| {
        is_v6 && proto(58) && key.get_u16(slot::TP_DST) == 0 && key.get_u16(slot::TP_SRC) == kind
    };
    match needs {
        Prerequisite::Nothing | Prerequisite::Ethernet => true,
        Prerequisite::Arp => matches!(ether_type, 0x0806 | 0x8035),
        Prerequisite::Vlan => is_tagged(key.get_u16(slot::VLAN_TCI)),
        Prerequisite::Ipv4 => is_v4,
        Prerequisite::Ipv6 => is_v6,
        Prerequisite::Ip => is_v4 || is_v6,
        Prerequisite::Mpls => matches!(ether_type, 0x8847 | 0x8848),
        Prerequisite::Tracked => key.get(slot::CT_STATE) != 0,
        Prerequisite::Nsh => ether_type == NSH,
        Prerequisite::Tcp => (is_v4 || is_v6) && proto(6),
        Prerequisite::Udp => (is_v4 || is_v6) && proto(17),
        Prerequisite::Sctp => (is_v4 || is_v6) && proto(132),
        Prerequisite::Icmpv4 => is_v4 && proto(1),
        Prerequisite::Icmpv6 => is_v6 && proto(58),
        Prerequisite::Nd => is_nd(135) || is_nd(136),
        Prerequisite::NdSolicit => is_nd(135),
        Prerequisite::NdAdvert => is_nd(136),
    }
}
