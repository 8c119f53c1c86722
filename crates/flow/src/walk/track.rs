//! Connections: a packet is tracked, and a copy of it goes on with what is known then.

use std::net::IpAddr;
use std::sync::Arc;

use conntrack::{Helper, Nat, NatEnd, Request, State, Tracked};
use openflow::action::{Ct, CtZone, NatKind};
use openflow::{Action, Field, Subfield};

use super::{Kind, Step, Walk};
use crate::frozen::{Frozen, Zone};
use crate::key::{Key, PACKET_WORDS, Slot, TRACKED_WORDS, slot};
use crate::path::{Op, Track};
use crate::reads::{ORIGINAL, TRANSLATED};
use crate::rule::Rule;

/// What is written to a field: the value, and which bits.
type Written = Option<(u128, u128)>;

impl<'w> Walk<'w> {
    /// Looks up the first packet of the packet's connection.
    pub(super) fn look_up_original(&mut self, table: u8) -> Option<&'w Arc<Rule>> {
        let Some(rules) = self.pipeline.tables.table(table) else {
            self.basis.counted.insert(table);
            return None;
        };
        let before = self.swap_original()?;
        self.trace();
        let rule = rules.lookup(&self.state.key);
        self.state.key = *before;
        rule
    }

    /// Has the packet's connection be found out. What follows is as if it had not been; a copy goes on
    /// with what is known then, if a table is given.
    pub(super) fn track(&mut self, ct: &Ct) {
        let zone = match ct.zone {
            CtZone::Number(zone) => zone,
            CtZone::Field(from) => low(self.read(from)),
        };
        let (mark, label) = self.written_to_connection(&ct.actions);
        let half = |value: u128| u32::try_from(value & u128::from(u32::MAX)).unwrap_or_default();
        let mark = mark.map(|(value, mask)| (half(value), half(mask)));
        let (commit, force) = (ct.commit, ct.force);
        let nat = ct.actions.iter().find_map(nat);
        let is_translated = self.state.key.is_translated_in(zone);
        let before = self.state.zone.filter(|own| own.keeps && own.number == zone && !force);
        let before = before.and_then(|_| self.state.key.state_in(zone));
        let helper = helper(ct.alg);
        let request =
            Request { zone, commit, force, mark, label, nat, helper, is_translated, before };
        self.state.key.clear_connection();
        let own = Zone { number: zone, keeps: nat.is_none() };
        let next = ct.table.map(|table| Arc::new(self.freeze(table, own)));
        let metadata = self.state.key.get_u64(slot::METADATA);
        let packet_type = self.state.key.get_u32(slot::PACKET_TYPE);
        self.emit(Op::Track(Arc::new(Track { request, next, metadata, packet_type }), 0));
        self.note(
            Kind::Detail,
            format_args!(
                "Sets the packet to an untracked state, and clears all the conntrack fields."
            ),
        );
    }

    /// What actions write to mark and label of a connection, one after the other.
    fn written_to_connection(&mut self, actions: &[Action]) -> (Written, Written) {
        let (mut mark, mut label): (Written, Written) = (None, None);
        if actions.is_empty() {
            self.tell(|watch, key| watch.step(key, Step::Drop, true));
        }
        for action in actions {
            self.tell(|watch, key| watch.step(key, Step::Action(action), false));
            let (field, value, mask) = match *action {
                Action::SetField { field, value, mask } => (field, value, mask),
                Action::Load { target, value } => {
                    (target.field, shifted(value.into(), target), target.mask())
                }
                Action::Move { source, target } => {
                    (target.field, shifted(self.read(source), target), target.mask())
                }
                _ => continue,
            };
            let (slot, written) = match field {
                Field::CtMark => (slot::CT_MARK, &mut mark),
                Field::CtLabel => (slot::CT_LABEL, &mut label),
                _ => continue,
            };
            let (before, bits) = written.unwrap_or_default();
            *written = Some((before & !mask | value & mask, bits | mask));
            // What comes next may read it.
            self.state.key.set_masked(slot, value, mask);
            self.tell(|watch, key| watch.done(key, action));
        }
        (mark, label)
    }

    /// What the packet goes on with, in a table.
    fn freeze(&self, table: u8, zone: Zone) -> Frozen {
        let key = self.beside();
        let (stack, set) = (self.stack.clone(), self.set.clone());
        Frozen { key, stack, set, table: Some(table), rest: Vec::new(), zone: Some(zone) }
    }

    /// Forgets what is known of the packet's connection.
    pub(super) fn clear_connection(&mut self) {
        self.state.key.clear_connection();
    }

    /// Has the packet be looked up as the first one of its connection; returns what it was, if that can
    /// be.
    fn swap_original(&mut self) -> Option<Box<Key>> {
        let key = &mut self.state.key;
        let is_ip = matches!(key.get_u16(slot::ETH_TYPE), 0x0800 | 0x86DD);
        if key.get(slot::CT_NW_PROTO) == 0 || !is_ip {
            let why = format_args!("resubmit(ct) with non-tracked or non-IP packet!");
            self.note(Kind::Error, why);
            return None;
        }
        let before = Box::new(*key);
        for (own, original) in [
            (slot::IPV4_SRC, slot::CT_NW_SRC),
            (slot::IPV4_DST, slot::CT_NW_DST),
            (slot::IPV6_SRC, slot::CT_IPV6_SRC),
            (slot::IPV6_DST, slot::CT_IPV6_DST),
            (slot::IP_PROTO, slot::CT_NW_PROTO),
            (slot::TP_SRC, slot::CT_TP_SRC),
            (slot::TP_DST, slot::CT_TP_DST),
        ] {
            key.set(own, before.get(original));
            key.set(original, before.get(own));
        }
        Some(before)
    }
}

/// Whether these bits of a word of the key say which connection a packet is of: addresses, ports, or the protocol.
pub(super) fn tells_connection(word: usize, bits: u64) -> bool {
    const ENDS: [Slot; 7] = [
        slot::IPV4_SRC,
        slot::IPV4_DST,
        slot::IPV6_SRC,
        slot::IPV6_DST,
        slot::TP_SRC,
        slot::TP_DST,
        slot::IP_PROTO,
    ];
    let mut all = ENDS.iter().flat_map(|of| of.spread(of.ones()));
    all.any(|(own, mask)| own == word && mask & bits != 0)
}

/// Who looks at what packets carry, by the port of the protocol that an action says.
pub(crate) const fn helper(port: u16) -> Option<Helper> {
    match port {
        21 => Some(Helper::Ftp),
        69 => Some(Helper::Tftp),
        _ => None,
    }
}

/// How addresses are translated, if an action says that.
fn nat(action: &Action) -> Option<Nat> {
    let Action::Nat(nat) = action else { return None };
    let end = match nat.kind {
        NatKind::Existing => None,
        NatKind::Source => Some(NatEnd::Source),
        NatKind::Destination => Some(NatEnd::Destination),
    };
    let has = |flag: u16| nat.flags & flag != 0;
    Some(Nat {
        end,
        addresses: nat.addresses.map(|(least, largest)| (least, largest.unwrap_or(least))),
        ports: nat.ports.map(|(least, largest)| (least, largest.unwrap_or(least))),
        is_persistent: has(openflow::action::Nat::PERSISTENT),
        by_hash: has(openflow::action::Nat::HASH),
        is_random: has(openflow::action::Nat::RANDOM),
    })
}

fn low(value: u128) -> u16 {
    u16::try_from(value & 0xFFFF).unwrap_or_default()
}

/// A value where it is to be in a field.
fn shifted(value: u128, target: Subfield) -> u128 {
    value.checked_shl(target.offset.into()).unwrap_or_default()
}

impl Key {
    /// Puts what is known of the packet's connection beside it.
    pub fn set_connection(&mut self, tracked: &Tracked) {
        self.clear_connection();
        let Tracked { state, zone, mark, label, original, helper: _ } = *tracked;
        self.set(slot::CT_STATE, state.0.into());
        self.set(slot::CT_ZONE, zone.into());
        self.set(slot::CT_MARK, mark.into());
        self.set(slot::CT_LABEL, label);
        let Some(original) = original else { return };
        let ends = match (original.source(), original.destination()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ends = [from, to].map(|address| u128::from(u32::from(address)));
                [slot::CT_NW_SRC, slot::CT_NW_DST].into_iter().zip(ends)
            }
            (from, to) => {
                let ends = [from, to].map(|address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().into(),
                    IpAddr::V6(address) => address.into(),
                });
                [slot::CT_IPV6_SRC, slot::CT_IPV6_DST].into_iter().zip(ends)
            }
        };
        ends.for_each(|(slot, address)| self.set(slot, address));
        // Of ICMP, the type, as the packet's own fields have it.
        let ports = original.query().map_or(original.ports(), |(_, kind)| (kind.into(), 0));
        self.set(slot::CT_NW_PROTO, original.protocol().0.into());
        self.set(slot::CT_TP_SRC, ports.0.into());
        self.set(slot::CT_TP_DST, ports.1.into());
    }

    /// Has controllers be told of the packet's connection as Open vSwitch tells them: with what kind of
    /// packet it is, and with its first packet only where it is of a connection.
    pub(super) fn tell_connection(&self, told: &mut Self) {
        const KNOWN: State = State(State::NEW.0 | State::ESTABLISHED.0 | State::REPLY.0);
        let state = self.get_u8(slot::CT_STATE);
        if state != 0 {
            told.set(slot::ETH_TYPE, self.get(slot::ETH_TYPE));
        }
        if state & KNOWN.0 == 0 {
            ORIGINAL.into_iter().for_each(|slot| told.set(slot, 0));
        }
    }

    /// What the packet is to its connection, if it was tracked in this zone.
    fn state_in(&self, zone: u16) -> Option<State> {
        let state = State(self.get_u8(slot::CT_STATE));
        let is_in = self.get(slot::CT_ZONE) == u128::from(zone);
        (is_in && state.contains(State::TRACKED)).then_some(state)
    }

    /// Whether the packet's addresses were translated when it was tracked in this zone.
    fn is_translated_in(&self, zone: u16) -> bool {
        self.state_in(zone).is_some_and(|state| u128::from(state.0) & TRANSLATED != 0)
    }

    /// Whether anything is known of the packet's connection: of one that was tracked, that it was.
    pub(crate) fn has_connection(&self) -> bool {
        self.get(slot::CT_STATE) != 0
    }

    /// A mask of all that is known of connections.
    pub(crate) fn of_connections() -> Self {
        let mut key = Self::default();
        if let Some(words) = key.0.get_mut(PACKET_WORDS..TRACKED_WORDS) {
            words.fill(u64::MAX);
        }
        key
    }

    /// Empties the words of the packet's connection.
    fn clear_connection(&mut self) {
        if let Some(words) = self.0.get_mut(PACKET_WORDS..TRACKED_WORDS) {
            words.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use openflow::Match;

    use super::*;
    use crate::walk::tests::{key, pipeline};
    use crate::walk::{Start, walk};

    const ZONE: u16 = 5;
    const STATE: State = State(State::TRACKED.0 | State::ESTABLISHED.0);

    fn set(field: Field, value: u128) -> Action {
        Action::SetField { field, value, mask: field.full_mask() }
    }

    fn ct() -> Action {
        let zone = CtZone::Number(ZONE);
        Action::Ct(Box::new(Ct { zone, table: Some(9), ..Ct::default() }))
    }

    /// What packets of UDP are said to have been to their connection, each time that they are tracked by these
    /// actions after they were tracked in the zone.
    fn said(actions: Vec<Action>) -> Vec<Option<State>> {
        let mut key = key();
        key.set(slot::ETH_TYPE, 0x0800);
        key.set(slot::IP_PROTO, 17);
        key.set(slot::CT_STATE, STATE.0.into());
        key.set(slot::CT_ZONE, ZONE.into());
        let zone = Some(Zone { number: ZONE, keeps: true });
        let beside = Box::new(key.beside());
        let (stack, set, rest) = Default::default();
        let frozen = Frozen { key: beside, stack, set, table: Some(1), rest, zone };
        let pipeline = pipeline(&[(1, 0, Match::new(), actions)]);
        let path = walk(&pipeline, &mut key, &Start::Frozen(&frozen), None);
        let tracks = path.ops.iter().filter_map(|op| match op {
            Op::Track(track, _) => Some(track.request.before),
            _ => None,
        });
        tracks.collect()
    }

    #[test]
    fn a_packet_that_may_be_of_another_connection_is_tracked_anew() {
        assert_eq!(said(vec![ct()]), [Some(STATE)]);
        let ends = [Field::IpSrc, Field::IpDst, Field::UdpSrc, Field::UdpDst];
        for field in ends {
            assert_eq!(said(vec![set(field, 7), ct()]), [None], "{field}");
            // What a copy is does not matter to the packet.
            let copy = Action::Clone(vec![set(field, 7), ct()]);
            assert_eq!(said(vec![copy, ct()]), [None, Some(STATE)], "{field}");
        }
        for field in [Field::EthDst, Field::IpDscp, Field::NwTtl, Field::Reg0] {
            assert_eq!(said(vec![set(field, 7), ct()]), [Some(STATE)], "{field}");
        }
    }
}
