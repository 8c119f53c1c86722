//! What a datapath has to do so that a packet is what rules have made of it.
//!
//! Rules write to fields as often as they like; only before a packet is handed on is it changed, and
//! only where it differs from what it was then (`commit_odp_actions` in Open vSwitch).

use flow::walk::labels;
use flow::{Key, Slot, TAG_PRESENT, WORDS, slot};

use crate::action::Action;
use crate::header::{
    ARP, ETHERNET, Header, ICMP, ICMPV6, IPV4, IPV6, ND, ND_EXTENSIONS, label, transport,
};
use crate::kind::{Kind, begins_with_nsh, is_mpls, is_tagged};
use crate::nsh;
use crate::value::Fields;

/// Has the packet be `key`, which the datapath has as `base` by now. `mask` is what has been looked at
/// or written; `encap` if a header was put on in front of all since: metadata of its own that it has. Returns whether
/// a kernel's datapath could not do that.
pub(crate) fn commit(
    base: &mut Key,
    (key, encap): (&Key, Option<&[u8]>),
    mask: &mut Key,
    actions: &mut Vec<Action>,
) -> bool {
    let mut commit = Commit { base, key, mask, actions };
    commit.outer(encap);
    if key.is_ethernet() {
        commit.header(&ETHERNET);
    }
    let was_mpls = is_mpls(commit.base);
    if was_mpls && !is_mpls(commit.key) {
        commit.mpls();
    }
    commit.nsh();
    let is_slow = commit.network() | commit.transport();
    commit.mpls();
    commit.vlan();
    commit.single("skb_priority", slot::SKB_PRIORITY);
    commit.single("skb_mark", slot::PKT_MARK);
    is_slow
}

struct Commit<'c> {
    base: &'c mut Key,
    key: &'c Key,
    mask: &'c mut Key,
    actions: &'c mut Vec<Action>,
}

impl Commit<'_> {
    fn differs(&self, slot: Slot) -> bool {
        self.base.get(slot) != self.key.get(slot)
    }

    /// Sets those fields of a header that differ; returns whether there are any.
    fn header(&mut self, header: &Header) -> bool {
        if !header.fields.iter().any(|(_, slot, _)| self.differs(*slot)) {
            return false;
        }
        let mut fields = Fields::default();
        fields.add_lines(header.fields, |slot| {
            let mask = match (header.is_whole, self.mask.get(slot)) {
                (false, _) if !self.differs(slot) => 0,
                (true, _) | (_, 0) => slot.ones(),
                (_, mask) => mask,
            };
            (self.key.get(slot), mask)
        });
        self.actions.push(Action::Said(format!("set({}({}))", header.name, fields.0)));
        for (_, slot, _) in header.fields {
            if header.is_whole {
                self.mask.set(*slot, slot.ones());
            }
            self.base.set(*slot, self.key.get(*slot));
        }
        true
    }

    /// Puts a header on in front of all, or takes that of Ethernet off.
    fn outer(&mut self, encap: Option<&[u8]>) {
        let is_encap = encap.is_some();
        let [before, now] = [&*self.base, self.key].map(|key| key.get_u32(slot::PACKET_TYPE));
        if is_encap && now == 0 {
            let mut fields = Fields::default();
            fields.add_lines(ETHERNET.fields, |slot| (self.key.get(slot), slot.ones()));
            self.actions.push(Action::Said(format!("push_eth({})", fields.0)));
        } else if let Some(metadata) = encap.filter(|_| begins_with_nsh(self.key)) {
            self.actions.push(Action::Said(nsh::push(self.key, metadata)));
            self.take_packet();
        } else if is_encap {
            let (label, kind) = (label(self.key, None), self.key.get_u16(slot::ETH_TYPE));
            self.actions.push(Action::Said(format!("add_mpls({label},eth_type={kind:#x})")));
            self.take_packet();
        } else if before == 0 && now != 0 {
            self.actions.push(Action::said("pop_eth"));
        }
        for slot in [slot::PACKET_TYPE, slot::ETH_SRC, slot::ETH_DST] {
            if is_encap || before == 0 && now != 0 {
                self.base.set(slot, self.key.get(slot));
            }
        }
    }

    /// All headers are there by now.
    fn take_packet(&mut self) {
        let packet = slot::ETH_DST.word()..slot::TUN_ID.word();
        let both = self.base.words().iter().zip(self.key.words()).enumerate();
        let mut words = [0; WORDS];
        for (to, (at, (own, other))) in words.iter_mut().zip(both) {
            *to = if packet.contains(&at) { *other } else { *own };
        }
        *self.base = Key::from_words(words);
    }

    /// Writes to a network service header.
    fn nsh(&mut self) {
        let differs = || nsh::slots().any(|slot| self.differs(slot));
        if Kind::of(self.key) == Kind::Nsh && differs() {
            self.actions.push(Action::Said(nsh::set(self.key, self.mask)));
            nsh::slots().for_each(|slot| self.base.set(slot, self.key.get(slot)));
        }
    }

    fn network(&mut self) -> bool {
        if self.key.get(slot::IP_PROTO) == 0 {
            return false;
        }
        match Kind::of(self.base) {
            Kind::Ipv4 => {
                self.header(&IPV4);
                false
            }
            Kind::Ipv6 => {
                self.header(&IPV6);
                let is_icmp = self.base.get_u8(slot::IP_PROTO) == 58;
                is_icmp && (self.header(&ND_EXTENSIONS) | self.header(&ND))
            }
            Kind::Arp if self.base.get_u16(slot::ETH_TYPE) == 0x0806 => self.header(&ARP),
            _ => false,
        }
    }

    fn transport(&mut self) -> bool {
        let (kind, proto) = (Kind::of(self.base), self.key.get_u8(slot::IP_PROTO));
        match (kind, proto) {
            (Kind::Ipv4, 1) => self.header(&ICMP),
            (Kind::Ipv6, 58) => self.header(&ICMPV6),
            (Kind::Ipv4 | Kind::Ipv6, _) => {
                if let Some(header) = transport(proto) {
                    self.header(&header);
                }
                false
            }
            _ => false,
        }
    }

    fn mpls(&mut self) {
        let (before, after) = (labels(self.base), labels(self.key));
        if before == after && is_mpls(self.base) == is_mpls(self.key) {
            return;
        }
        let kind = self.key.get_u16(slot::ETH_TYPE);
        let shown = |entry: u32| {
            let mut key = Key::default();
            key.set(slot::MPLS_LSE, entry.into());
            label(&key, None)
        };
        // Those innermost that are the same stay.
        let pairs = before.iter().rev().zip(after.iter().rev());
        let mut common = pairs.take_while(|(a, b)| a == b).count();
        for left in (common + 1..=before.len()).rev() {
            if left == common + 1 && after.len() > common {
                let entry = after.iter().rev().nth(common).copied().unwrap_or_default();
                self.actions.push(Action::Said(format!("set(mpls({}))", shown(entry))));
                common += 1;
                break;
            }
            let kind = if after.is_empty() && left > 1 { 0x8847 } else { kind };
            self.actions.push(Action::Said(format!("pop_mpls(eth_type={kind:#x})")));
        }
        for entry in after.iter().rev().skip(common) {
            let label = shown(*entry);
            self.actions.push(Action::Said(format!("push_mpls({label},eth_type={kind:#x})")));
        }
        for slot in [slot::ETH_TYPE, slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2] {
            self.base.set(slot, self.key.get(slot));
        }
    }

    /// Takes tags off and puts others on: those inside that are the same stay.
    fn vlan(&mut self) {
        let tags = |key: &Key| -> Vec<(u16, u16)> {
            let outer = (key.get_u16(slot::VLAN_TPID), key.get_u16(slot::VLAN_TCI));
            let inner = (key.get_u16(slot::INNER_TPID), key.get_u16(slot::INNER_TCI));
            [inner, outer].into_iter().filter(|(_, tci)| tci & TAG_PRESENT != 0).collect()
        };
        let (before, after) = (tags(self.base), tags(self.key));
        let common = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        for depth in (common..before.len()).rev() {
            self.actions.push(Action::said("pop_vlan"));
            let is_outer = before.len() - 1 == depth;
            let (tpid, tci) = if is_outer {
                (slot::VLAN_TPID, slot::VLAN_TCI)
            } else {
                (slot::INNER_TPID, slot::INNER_TCI)
            };
            self.mask.set(tpid, tpid.ones());
            self.mask.set(tci, tci.ones());
        }
        for (tpid, tci) in after.iter().skip(common) {
            let kind = if *tpid == 0x8100 { String::new() } else { format!("tpid={tpid:#06x},") };
            let (vid, pcp) = (tci & 0xFFF, tci >> 13);
            self.actions.push(Action::Said(format!("push_vlan({kind}vid={vid},pcp={pcp})")));
        }
        for slot in [slot::VLAN_TPID, slot::VLAN_TCI, slot::INNER_TPID, slot::INNER_TCI] {
            self.base.set(slot, self.key.get(slot));
        }
        debug_assert!(is_tagged(self.base) == is_tagged(self.key));
    }

    /// Sets a field that is a header of its own.
    fn single(&mut self, name: &str, slot: Slot) {
        if !self.differs(slot) {
            return;
        }
        let (value, mask) = (self.key.get(slot), self.mask.get(slot));
        let mask = if mask == 0 { slot.ones() } else { mask };
        let text = crate::value::Style::Hex.show(value & mask, mask, slot.width());
        self.actions.push(Action::Said(format!("set({name}({text}))")));
        self.base.set(slot, value);
    }
}
