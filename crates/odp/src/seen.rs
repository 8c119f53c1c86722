//! Which bits of a packet its way depends on, as Open vSwitch counts them: those of its megaflows.
//!
//! That is more than what a path here depends on: fields that are written count, too, so that a
//! datapath need not write what is there already. It is counted only where a way is told.

use flow::place::place;
use flow::walk::{Step, holds, labels};
use flow::{Choice, Key, Slot, TAG_PRESENT, TunnelWords, WORDS, slot};
use openflow::action::{Algorithm, CtZone, HashFields, LearnSource};
use openflow::field::Prerequisite;
use openflow::{Action, Field, Subfield};

use crate::kind::{Kind, begins_with_nsh, is_later, is_tagged};
use crate::tunnel::is_tunnelled;
use tunnel::{Inherited, Settings};

/// What has been seen of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Seen(pub(crate) Key);

/// Words of a key that are no part of what comes in: metadata, registers, and what is noted meanwhile.
const NOT_OF_PACKET: std::ops::Range<usize> = slot::METADATA.word()..slot::ACTSET_OUTPUT.word();

/// What says that no label of MPLS is behind one (RFC 3032, section 2.1).
const LAST_LABEL: u128 = 1 << 8;

impl Seen {
    /// What is always looked at.
    pub(crate) fn new(key: &Key) -> Self {
        let mut seen = Self(Key::default());
        for slot in [slot::PACKET_TYPE, slot::IN_PORT, slot::ETH_TYPE, slot::RECIRC_ID] {
            seen.whole(slot);
        }
        if Kind::of(key).is_ip() {
            seen.0.set(slot::IP_FRAG, 3);
        }
        if is_tunnelled(key) {
            seen.tunnel(key);
        }
        seen
    }

    /// What tells tunnels apart.
    fn tunnel(&mut self, key: &Key) {
        let ends = match key.get(slot::TUN_DST) {
            0 => [slot::TUN_IPV6_SRC, slot::TUN_IPV6_DST],
            _ => [slot::TUN_SRC, slot::TUN_DST],
        };
        ends.into_iter().for_each(|slot| self.whole(slot));
        for slot in [slot::TUN_ID, slot::TUN_HEADER, slot::TUN_TOS] {
            self.whole(slot);
        }
        if Kind::of(key).is_ip() && key.get(slot::TUN_TOS) & 3 == 3 {
            self.whole(slot::IP_ECN);
        }
    }

    /// What of a packet goes into the header of a tunnel with these settings.
    pub(crate) fn enter_tunnel(&mut self, key: &Key, settings: &Settings) {
        if !Kind::of(key).is_ip() {
            return;
        }
        self.whole(slot::IP_ECN);
        if settings.tos == Inherited::Inner {
            self.whole(slot::IP_DSCP);
        }
        if settings.ttl == Inherited::Inner {
            self.whole(slot::IP_TTL);
        }
    }

    /// What has been seen of the tunnel.
    pub(crate) fn of_tunnel(&self) -> TunnelWords {
        self.0.tunnel()
    }

    /// Has it be known that nothing else was seen of the tunnel.
    pub(crate) fn set_of_tunnel(&mut self, words: &TunnelWords) {
        self.0.set_tunnel(words);
    }

    /// These bits.
    pub(crate) fn bits(&mut self, bits: &Key) {
        let mut words = *self.0.words();
        words.iter_mut().zip(bits.words()).for_each(|(word, bits)| *word |= bits);
        self.0 = Key::from_words(words);
    }

    pub(crate) fn whole(&mut self, slot: Slot) {
        self.0.set(slot, slot.ones());
    }

    fn part(&mut self, of: Subfield) {
        self.field(of.field, of.mask());
    }

    /// Bits of a field, and of an option of a tunnel whether it is there.
    fn field(&mut self, field: Field, mask: u128) {
        if let Some(slot) = place(field) {
            self.0.set_masked(slot, mask, mask);
        }
        let bit = u128::from(field.option_bit());
        self.0.set_masked(slot::TUN_PRESENT, bit, bit);
    }

    fn protocol(&mut self) {
        self.whole(slot::IP_PROTO);
    }

    /// What is looked at to find out whether a packet has a field.
    fn prerequisite(&mut self, key: &Key, of: Field) {
        let kind = Kind::of(key);
        match of.prerequisite() {
            Prerequisite::Vlan => {
                self.0.set_masked(slot::VLAN_TCI, TAG_PRESENT.into(), TAG_PRESENT.into());
            }

            Prerequisite::Tcp | Prerequisite::Udp | Prerequisite::Sctp if kind.is_ip() => {
                self.protocol();
            }
            Prerequisite::Icmpv4 if kind == Kind::Ipv4 => self.protocol(),
            Prerequisite::Icmpv6 if kind == Kind::Ipv6 => self.protocol(),
            Prerequisite::Nd | Prerequisite::NdSolicit | Prerequisite::NdAdvert
                if kind == Kind::Ipv6 =>
            {
                self.protocol();
                if key.get_u8(slot::IP_PROTO) == 58 {
                    self.whole(slot::TP_DST);
                    if key.get(slot::TP_DST) == 0 {
                        self.whole(slot::TP_SRC);
                    }
                }
            }
            _ => {}
        }
    }

    /// What is looked at of the protocol where a field of the network layer is written.
    fn written(&mut self, key: &Key, field: Field) {
        let kind = Kind::of(key);
        let is_network = matches!(
            field,
            Field::IpSrc
                | Field::IpDst
                | Field::Ipv6Src
                | Field::Ipv6Dst
                | Field::Ipv6Label
                | Field::IpDscp
                | Field::IpEcn
                | Field::NwTtl
        );
        let is_arp = matches!(
            field,
            Field::ArpOp | Field::ArpSha | Field::ArpTha | Field::ArpSpa | Field::ArpTpa
        );
        if kind.is_ip() && is_network || kind == Kind::Arp && is_arp {
            self.protocol();
        }
    }

    /// It is sent to a port with queues.
    pub(crate) fn queue(&mut self, key: &Key, is_marked: bool) {
        self.whole(slot::SKB_PRIORITY);
        if is_marked && Kind::of(key).is_ip() {
            self.network(slot::IP_DSCP);
        }
    }

    /// What a step looks at, before it is done.
    pub(crate) fn step(&mut self, key: &Key, step: &Step<'_>) {
        let Step::Action(action) = step else { return };
        match action {
            // What is written of a connection is written there, and not of the packet.
            Action::SetField { field: Field::CtMark | Field::CtLabel, .. } => {}
            Action::Load { target, .. } if is_of_connection(target.field) => {}
            Action::SetField { field, mask, .. } => {
                self.prerequisite(key, *field);
                self.written(key, *field);
                self.field(*field, *mask);
            }
            Action::Load { target, .. } => {
                self.prerequisite(key, target.field);
                self.written(key, target.field);
                self.part(*target);
            }
            Action::Move { source, target } => {
                self.prerequisite(key, source.field);
                self.prerequisite(key, target.field);
                self.part(*target);
                self.part(*source);
            }
            Action::Push(part) | Action::OutputField { source: part, .. } => {
                self.part(*part);
            }
            Action::Ct(ct) => {
                if let CtZone::Field(source) = ct.zone {
                    self.part(source);
                }
            }
            Action::Learn(learn) => {
                for spec in &learn.specs {
                    if let LearnSource::Field { field, offset } = spec.source {
                        self.part(Subfield { field, offset, bits: spec.bits });
                    }
                }
            }
            Action::Multipath(multipath) => {
                self.hashed(key, multipath.fields);
                self.part(multipath.target);
            }
            Action::Bundle(bundle) => {
                if bundle.algorithm == Algorithm::Hrw && bundle.members.len() > 1 {
                    self.hashed(key, bundle.fields);
                }
                bundle.target.iter().for_each(|target| self.part(*target));
            }
            Action::Enqueue { .. } | Action::SetQueue(_) | Action::PopQueue => {
                self.whole(slot::SKB_PRIORITY);
            }
            other => self.header(key, other),
        }
    }

    /// What a hash of these fields is made of.
    fn hashed(&mut self, key: &Key, fields: HashFields) {
        let (kind, proto) = (Kind::of(key), key.get_u8(slot::IP_PROTO));
        let whole = |seen: &mut Self, slots: &[Slot]| {
            slots.iter().for_each(|slot| seen.whole(*slot));
        };
        let addresses = match kind {
            Kind::Ipv4 => [slot::IPV4_SRC, slot::IPV4_DST].as_slice(),
            Kind::Ipv6 => &[slot::IPV6_SRC, slot::IPV6_DST],
            _ => &[],
        };
        let ports = &[slot::TP_SRC, slot::TP_DST];
        let is_whole = key.get_u8(slot::IP_FRAG) == 0;
        match fields {
            HashFields::EthSrc => self.whole(slot::ETH_SRC),
            HashFields::NwSrc => whole(self, addresses.get(..1).unwrap_or_default()),
            HashFields::NwDst => whole(self, addresses.get(1..).unwrap_or_default()),
            HashFields::SymmetricL3 => whole(self, addresses),
            HashFields::SymmetricL4 => {
                whole(self, &[slot::ETH_SRC, slot::ETH_DST]);
                whole(self, addresses);
                if kind.is_ip() {
                    self.protocol();
                    if proto != 17 {
                        whole(self, ports);
                    }
                }
                self.0.set_masked(slot::VLAN_TCI, 0x1FFF, 0x1FFF);
                self.0.set_masked(slot::INNER_TCI, 0x1FFF, 0x1FFF);
            }
            HashFields::SymmetricL3L4 | HashFields::SymmetricL3L4Udp if kind.is_ip() => {
                whole(self, addresses);
                self.protocol();
                let with_udp = fields == HashFields::SymmetricL3L4Udp;
                if is_whole && (matches!(proto, 6 | 132) || with_udp && proto == 17) {
                    whole(self, ports);
                }
            }
            HashFields::SymmetricL3L4 | HashFields::SymmetricL3L4Udp => {}
        }
    }

    /// What a bucket of a group is chosen by.
    pub(crate) fn choice(&mut self, key: &Key, choice: Choice<'_>) {
        match choice {
            Choice::Place(_, places) => {
                let bits = u128::try_from(places.saturating_sub(1)).unwrap_or_default();
                self.0.set_masked(slot::DP_HASH, bits, bits);
            }
            Choice::Score => self.hashed(key, HashFields::SymmetricL4),
            Choice::Fields(fields) => {
                for (field, mask) in fields {
                    self.prerequisite(key, *field);
                    if holds(field.prerequisite(), key) {
                        self.field(*field, *mask);
                    }
                }
            }
        }
    }

    /// What is taken from the stack was put into a part.
    pub(crate) fn popped(&mut self, part: Subfield) {
        self.part(part);
    }

    /// Which VLAN a packet is in.
    pub(crate) fn vlan(&mut self) {
        self.0.set_masked(slot::VLAN_TCI, 0x1FFF, 0x1FFF);
    }

    /// The same, of actions that write to a certain header.
    fn header(&mut self, key: &Key, action: &Action) {
        let kind = Kind::of(key);
        let has_ports = kind.is_ip() && !is_later(key);
        match action {
            Action::SetVlanVid { .. } => self.0.set_masked(slot::VLAN_TCI, 0x1FFF, 0x1FFF),
            Action::SetVlanPcp { .. } => self.0.set_masked(slot::VLAN_TCI, 0xF000, 0xF000),
            Action::StripVlan | Action::PopVlan => self.inner_tag(key),
            Action::PushVlan { .. } if is_tagged(key) => {
                self.whole(slot::VLAN_TPID);
                self.whole(slot::VLAN_TCI);
                self.inner_tag(key);
            }
            Action::SetEthSrc(_) => self.whole(slot::ETH_SRC),
            Action::SetEthDst(_) => self.whole(slot::ETH_DST),
            Action::SetIpSrc(_) if kind == Kind::Ipv4 => self.network(slot::IPV4_SRC),
            Action::SetIpDst(_) if kind == Kind::Ipv4 => self.network(slot::IPV4_DST),
            Action::SetNwTos(_) if kind.is_ip() => self.network(slot::IP_DSCP),
            Action::SetNwEcn(_) if kind.is_ip() => self.network(slot::IP_ECN),
            Action::SetNwTtl(_) if kind.is_ip() => self.network(slot::IP_TTL),
            Action::SetL4Src(_) if has_ports => self.network(slot::TP_SRC),
            Action::SetL4Dst(_) if has_ports => self.network(slot::TP_DST),
            Action::DecTtl(_) => self.network(slot::IP_TTL),
            Action::FinTimeout { .. } => self.protocol(),
            Action::PushMpls { .. } => match labels(key).len() {
                0 if kind.is_ip() => {
                    self.whole(slot::IP_DSCP);
                    self.whole(slot::IP_TTL);
                }
                0 => {}
                count => self.labels(0, count),
            },
            Action::PopMpls { .. } => self.popped_label(key),
            Action::Encap(_) if !key.is_ethernet() => self.labels(0, labels(key).len()),
            Action::DecNshTtl if kind == Kind::Nsh => self.whole(slot::NSH_TTL),
            Action::Decap { .. } if begins_with_nsh(key) => self.whole(slot::NSH_NP),
            Action::Decap { .. } if !key.is_ethernet() => self.popped_label(key),
            Action::SetMplsLabel(_) if kind == Kind::Mpls => self.whole(slot::MPLS_LABEL),
            Action::SetMplsTc(_) if kind == Kind::Mpls => self.whole(slot::MPLS_TC),
            Action::SetMplsTtl(_) | Action::DecMplsTtl if kind == Kind::Mpls => {
                self.whole(slot::MPLS_TTL);
            }
            _ => {}
        }
    }

    /// A label of MPLS is taken off, if it is known what is behind it.
    fn popped_label(&mut self, key: &Key) {
        let known = labels(key);
        let is_deeper =
            known.is_full() && known.last().is_some_and(|last| u128::from(*last) & LAST_LABEL == 0);
        self.labels(if is_deeper { known.len() } else { 1 }, known.len());
    }

    /// Labels of MPLS from one to before another, and which of them is the last one.
    fn labels(&mut self, from: usize, to: usize) {
        let places = [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2];
        for place in places.into_iter().take(to) {
            self.0.set_masked(place, LAST_LABEL, LAST_LABEL);
        }
        let meant = places.into_iter().take(to).skip(from);
        meant.for_each(|place| self.whole(place));
    }

    /// The tag behind the outer one, if there is one.
    fn inner_tag(&mut self, key: &Key) {
        if key.get_u16(slot::INNER_TCI) & TAG_PRESENT != 0 {
            self.whole(slot::INNER_TPID);
            self.whole(slot::INNER_TCI);
        }
    }

    fn network(&mut self, slot: Slot) {
        self.protocol();
        self.whole(slot);
    }

    /// What switching as usual looks at.
    pub(crate) fn normal(&mut self, key: &Key) {
        self.whole(slot::ETH_SRC);
        self.whole(slot::ETH_DST);
        self.0.set_masked(slot::VLAN_TCI, 0x1FFF, 0x1FFF);
        // Whoever announces an address, by ARP.
        let is_broadcast = key.get(slot::ETH_DST) == slot::ETH_DST.ones();
        if key.get_u16(slot::ETH_TYPE) == 0x0806 && is_broadcast {
            self.protocol();
            if key.get_u8(slot::IP_PROTO) == 1 {
                self.whole(slot::IPV4_SRC);
                self.whole(slot::IPV4_DST);
            }
        }
    }

    /// What of it is about the packet `first`, as it came in, which was `last` in the end.
    pub(crate) fn finish(mut self, first: &Key, last: &Key) -> Key {
        let keep = self
            .0
            .words()
            .iter()
            .enumerate()
            .map(|(at, word)| if NOT_OF_PACKET.contains(&at) { 0 } else { *word });
        let mut words = [0; WORDS];
        words.iter_mut().zip(keep).for_each(|(to, from)| *to = from);
        self.0 = Key::from_words(words);
        for slot in [slot::ACTSET_OUTPUT, slot::CONJ_ID] {
            self.0.set(slot, 0);
        }
        if crate::kind::is_icmp(last) {
            for slot in [slot::TP_SRC, slot::TP_DST] {
                self.0.set(slot, self.0.get(slot) & 0xFF);
            }
        }
        let tags = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
        for (tpid, tci) in tags {
            if first.get_u16(tci) & TAG_PRESENT == 0 {
                self.0.set(tpid, 0);
                self.0.set(tci, 0);
            } else if self.0.get(tci) != 0 {
                self.0.set_masked(tci, TAG_PRESENT.into(), TAG_PRESENT.into());
            }
        }
        if is_later(last) {
            self.0.set(slot::TP_SRC, 0);
            self.0.set(slot::TP_DST, 0);
        }
        if Kind::of(first) != Kind::Mpls {
            for slot in [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2] {
                self.0.set(slot, 0);
            }
        }
        if Kind::of(first) != Kind::Nsh && !begins_with_nsh(first) {
            crate::nsh::slots().for_each(|slot| self.0.set(slot, 0));
        }
        if !first.is_ethernet() {
            self.0.set(slot::ETH_SRC, 0);
            self.0.set(slot::ETH_DST, 0);
        }
        if !is_tunnelled(first) {
            self.0.set_tunnel(&TunnelWords::default());
        }
        self.0
    }
}
/// Whether a field is of a connection, and can be written there alone.
const fn is_of_connection(field: Field) -> bool {
    matches!(field, Field::CtMark | Field::CtLabel)
}
