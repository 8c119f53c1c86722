//! Headers in front of a whole packet, put on and taken off (`encap`, `decap`): of Ethernet, and labels of
//! MPLS, or a network service header, in front of what has no header of Ethernet.
//!
//! Such a packet keeps the place of one, which says what it carries: so whatever looks at frames finds
//! their layers as always. The place is nothing of the packet: it has no addresses, does not count in its
//! length, and no port for frames of Ethernet sends it.

use openflow::action::Encap;

use super::mpls::{IPV6_EXPLICIT_NULL, Labels, TTL, forget_inside, is_mpls};
use super::nsh;
use super::tags::{self, Tags};
use super::{Kind, State, Walk, labels};
use crate::extract::LAST_LABEL;
use crate::key::{Key, NO_ETHER_TYPE, slot};
use crate::path::{Edit, Lost, Op};

/// What a packet begins with: a header of Ethernet.
const ETHERNET: u32 = 0;

/// The same: what has this EtherType.
const BY_ETHER_TYPE: u16 = 1;

/// The same: labels of MPLS.
const MPLS: u32 = 0x1_8847;
const MPLS_MULTICAST: u32 = 0x1_8848;

/// What is told where a packet has no header of Ethernet, and goes to a port that asks for one.
pub const NO_ETHERNET: &str =
    "Trying to send non-Ethernet packet through legacy L2 port. Dropping packet.";

/// Bytes of a header of Ethernet.
const HEADER: i32 = 14;

/// The EtherType of what a packet begins with, if that is said by one.
fn ether_type(packet_type: u32) -> Option<u16> {
    let of = u16::try_from(packet_type & 0xFFFF).ok()?;
    (packet_type >> 16 == u32::from(BY_ETHER_TYPE)).then_some(of)
}

/// By how much a packet is longer than its frame is here.
pub(super) fn longer(key: &Key) -> i32 {
    if key.is_ethernet() { 0 } else { -HEADER }
}

/// What a packet begins with for those who look at it anew: a type that is none (`decap()` of several labels) is an
/// EtherType for them.
pub(super) fn told_type(key: &Key) -> u32 {
    match key.get_u32(slot::PACKET_TYPE) {
        ETHERNET => ETHERNET,
        own => u32::from(BY_ETHER_TYPE) << 16 | own & 0xFFFF,
    }
}

impl Walk<'_> {
    /// Puts a header in front of all.
    pub(super) fn encap(&mut self, encap: &Encap) {
        // What was changed until now is behind it.
        self.flush();
        match (encap.packet_type, ether_type(encap.packet_type)) {
            (ETHERNET, _) => self.encap_ethernet(),
            (MPLS | MPLS_MULTICAST, Some(ether_type)) => self.encap_mpls(ether_type),
            (nsh::PACKET_TYPE, _) => self.encap_nsh(encap),
            _ => {}
        }
    }

    fn encap_ethernet(&mut self) {
        if ether_type(self.state.key.get_u32(slot::PACKET_TYPE)).is_none() {
            return self.lose(format_args!(
                "Dropping packet as encap(ethernet) is not supported for packet type ethernet."
            ));
        }
        self.state.key.set(slot::PACKET_TYPE, ETHERNET.into());
        self.state.grown = self.state.grown.saturating_add(HEADER);
        self.put(slot::ETH_SRC, 0);
        self.put(slot::ETH_DST, 0);
    }

    /// Puts a label on: the first of all, or a copy of the outermost.
    fn encap_mpls(&mut self, ether_type: u16) {
        let key = &self.state.key;
        let own = key.get_u16(slot::ETH_TYPE);
        let has_labels = !key.is_ethernet() && is_mpls(own) && !labels(key).is_empty();
        if has_labels && labels(key).is_full() {
            return self.too_many("an encap MPLS action", "would have");
        }
        let label = if own == 0x86DD { IPV6_EXPLICIT_NULL } else { 0 };
        let entry = match has_labels {
            true => key.get_u32(slot::MPLS_LSE) & !LAST_LABEL,
            // As Open vSwitch has it, whatever is behind it.
            false => label << 12 | LAST_LABEL | TTL,
        };
        if key.is_ethernet() {
            self.ops.push(Op::Edit(Edit::PushEthernet { ether_type }));
        }
        if !has_labels {
            self.begin_anew();
        }
        let State { key, labels, .. } = &mut self.state;
        key.set_packet_type(u32::from(BY_ETHER_TYPE) << 16 | u32::from(ether_type));
        labels.put(key, entry, ether_type);
    }

    /// Nothing is known of the packet behind its first header any more.
    pub(super) fn begin_anew(&mut self) {
        let State { key, tags, labels, .. } = &mut self.state;
        forget_inside(key);
        for slot in [slot::VLAN_TPID, slot::VLAN_TCI, slot::INNER_TPID, slot::INNER_TCI] {
            key.set(slot, 0);
        }
        for slot in [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2, slot::INSIDE] {
            key.set(slot, 0);
        }
        for slot in [slot::ETH_TYPE, slot::NSH_FIRST, slot::NSH_C1_C2, slot::NSH_C3_C4] {
            key.set(slot, 0);
        }
        (*tags, *labels) = (Tags::new(key), Labels::new(key));
    }

    /// Takes the first header off; `wanted` says what is behind labels. Returns whether the packet goes on
    /// as it is, and need not be looked at anew.
    pub(super) fn decap(&mut self, wanted: u32) -> bool {
        self.flush();
        let key = &self.state.key;
        match key.get_u32(slot::PACKET_TYPE) {
            ETHERNET if tags::count(key) > 0 => {
                let note = "Dropping packet, cannot decap Ethernet if VLAN is present.";
                self.lose(format_args!("{note}"));
            }
            ETHERNET if key.get_u16(slot::ETH_TYPE) == NO_ETHER_TYPE => {
                let note = "Dropping packet, cannot decap Ethernet in front of what has no type.";
                self.lose(format_args!("{note}"));
            }
            ETHERNET => {
                let own = key.get_u32(slot::ETH_TYPE);
                self.ops.push(Op::Edit(Edit::EmptyEthernet));
                self.state.key.set_packet_type(u32::from(BY_ETHER_TYPE) << 16 | own);
                self.state.grown = self.state.grown.saturating_sub(HEADER);
            }
            MPLS | MPLS_MULTICAST => return self.decap_mpls(wanted),
            nsh::PACKET_TYPE => return self.decap_nsh(),
            other => self.lose(format_args!(
                "Dropping packet as the decap() does not support packet type ({},{:#x})",
                other >> 16,
                other & 0xFFFF
            )),
        }
        true
    }

    fn decap_mpls(&mut self, wanted: u32) -> bool {
        let known = labels(&self.state.key);
        if known.is_full() && known.last().is_some_and(|last| last & LAST_LABEL == 0) {
            self.too_many("an MPLS decap", "has");
            return true;
        }
        if known.is_empty() {
            self.lose(format_args!("Dropping packet as the decap() finds no label"));
            return true;
        }
        let is_said = wanted == ETHERNET || ether_type(wanted).is_some();
        let kind = wanted & 0xFFFF;
        let wanted = match (is_said, known.len()) {
            (true, _) => wanted,
            // It has that EtherType when it is looked at anew.
            (false, 1) => u32::from(BY_ETHER_TYPE) << 16 | kind,
            (false, count) => {
                self.decap_to_unknown(count, wanted);
                return true;
            }
        };
        let ether_type = ether_type(wanted);
        self.state.key.set_packet_type(wanted);
        if let Some(ether_type) = ether_type.filter(|of| is_mpls(*of) && known.len() > 1) {
            self.state.labels.take(&mut self.state.key, 1, ether_type);
            return true;
        }
        let ether_type = ether_type.unwrap_or_default();
        self.ops.push(Op::Edit(Edit::PopMpls { tags: 0, ether_type }));
        if wanted == ETHERNET {
            self.ops.push(Op::Edit(Edit::PopEthernet));
        }
        self.go_again();
        false
    }

    /// Takes several labels off, of which it is not said what is behind them. As in Open vSwitch, the packet goes on
    /// with a type that nothing has, and is not looked at anew.
    fn decap_to_unknown(&mut self, count: usize, wanted: u32) {
        let kind = u16::try_from(wanted & 0xFFFF).unwrap_or_default();
        let inner = std::iter::repeat_n(0x8847, count.saturating_sub(1));
        let kinds = inner.chain([kind]);
        self.ops.extend(kinds.map(|ether_type| Op::Edit(Edit::PopMpls { tags: 0, ether_type })));
        self.begin_anew();
        let State { key, labels, grown, .. } = &mut self.state;
        *grown = grown.saturating_sub(i32::try_from(count * 4).unwrap_or_default());
        key.set_packet_type(wanted);
        key.set(slot::ETH_TYPE, kind.into());
        *labels = Labels::new(key);
    }

    /// Does not send a packet that has no header of Ethernet.
    pub(super) fn refuse_without_ethernet(&mut self) {
        self.note(Kind::Warning, format_args!("{NO_ETHERNET}"));
    }

    /// Drops the packet, since it is of a kind for which an action is not.
    pub(super) fn lose(&mut self, note: std::fmt::Arguments<'_>) {
        self.note(Kind::Detail, note);
        self.error = Some(Lost::PacketType);
    }
}
