//! Rules that write to packets, or to the registers and metadata that go along beside them, go on to another table,
//! and do nothing else.

use arrayvec::ArrayVec;
use openflow::field::Prerequisite;
use openflow::{Action, Field, Instructions, PortNo};
use packet::MacAddr;
use packet::prefetch::prefetch_read;

use crate::key::{Key, Slot, slot};
use crate::place::place;
use crate::touched::{HEADERS, beside, words};
use crate::walk::holds;
use crate::walk::trace::bit;

/// Words that one rule writes to, at most.
const MAX_WRITES: usize = 12;

/// What they are written to has to be, at most.
const MAX_NEEDS: usize = 4;

/// Bits of a word that are written, and what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Write {
    word: u8,
    bits: u64,
    value: u64,
}

impl Write {
    /// What becomes of a word.
    pub(crate) const fn apply(self, word: u64) -> u64 {
        word & !self.bits | self.value
    }

    /// The bits that are written, and what.
    pub(crate) const fn said(self) -> (u64, u64) {
        (self.bits, self.value)
    }

    /// Whether packets are changed by it where they lie, and not what goes along beside them.
    const fn is_in_packet(self) -> bool {
        HEADERS & bit(self.word) != 0
    }
}

/// What a rule does that only writes values to packets and beside them, and has these go on to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Onward {
    table: u8,
    /// Whether that is said as an instruction, and not as an action.
    is_goto: bool,
    /// Each word once.
    writes: Box<[Write]>,
    /// What packets have to be for all of it to be written.
    needs: Box<[Prerequisite]>,
}

/// A word that two rules leave differently.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Differing {
    pub(crate) word: u8,
    /// In which bits.
    pub(crate) bits: u64,
    /// What either writes.
    pub(crate) writes: [Write; 2],
}

/// Such words, so many at most.
pub(crate) const MAX_DIFFERING: usize = 4;
pub(crate) type AllDiffering = ArrayVec<Differing, MAX_DIFFERING>;

impl Onward {
    /// That of a rule with these instructions, if they say no more than that.
    pub(crate) fn of(instructions: &Instructions) -> Option<Self> {
        let Instructions { apply, clear: false, write: None, metadata, goto_table } = instructions
        else {
            return None;
        };
        let (table, is_goto, actions) = match (goto_table, apply.split_last()) {
            (Some(table), _) => (*table, true, apply.as_slice()),
            (None, Some((last, before))) if metadata.is_none() => (goes_to(last)?, false, before),
            _ => return None,
        };
        let mut writes = ArrayVec::new();
        let mut needs = ArrayVec::<_, MAX_NEEDS>::new();
        for action in actions {
            let (slot, value, mask, need) = written(action)?;
            put(&mut writes, slot, value, mask)?;
            if !holds(need, &Key::default()) && !needs.contains(&need) {
                needs.try_push(need).ok()?;
            }
        }
        if let Some((value, mask)) = metadata {
            put(&mut writes, slot::METADATA, (*value).into(), (*mask).into())?;
        }
        let (writes, needs) = (writes.as_slice().into(), needs.as_slice().into());
        Some(Self { table, is_goto, writes, needs })
    }

    /// Whether all of it is written to every packet.
    pub(crate) const fn is_for_all(&self) -> bool {
        self.needs.is_empty()
    }

    /// Whether all of it is written to a packet that is this.
    pub(crate) fn is_for(&self, key: &Key) -> bool {
        self.needs.iter().all(|need| holds(*need, key))
    }

    /// It is going to be compared with another one.
    #[inline]
    pub(crate) fn fetch(&self) {
        prefetch_read(self.writes.as_ptr().cast());
    }

    /// Adds the words in which packets are something else behind another rule than behind this one. Returns whether that
    /// is all: not if they go elsewhere, these are too many, or other bits of packets themselves are written.
    pub(crate) fn compare(&self, other: &Self, differing: &mut AllDiffering) -> bool {
        if (self.table, self.is_goto) != (other.table, other.is_goto) {
            return false;
        }
        let mut add = |word, writes @ [own, other]: [Write; 2]| {
            let values = (own.value ^ other.value) & own.bits & other.bits;
            let others = own.bits ^ other.bits;
            let is_known = others == 0 || !Write { word, ..own }.is_in_packet();
            let bits = others | values;
            is_known && (bits == 0 || differing.try_push(Differing { word, bits, writes }).is_ok())
        };
        self.writes.iter().all(|own| add(own.word, [*own, other.write(own.word)]))
            && other.writes.iter().all(|other| match self.write(other.word) {
                none @ Write { bits: 0, .. } => add(other.word, [none, *other]),
                _ => true,
            })
    }

    fn write(&self, word: u8) -> Write {
        self.writes.iter().find(|write| write.word == word).copied().unwrap_or_default()
    }
}

/// The table that an action goes on to, as if the packet had come in there.
pub(crate) const fn goes_to(action: &Action) -> Option<u8> {
    match action {
        Action::Resubmit { port: None | Some(PortNo::IN_PORT), table, ct: false } => *table,
        _ => None,
    }
}

/// What an action writes to packets or beside them, if that is all that it does: where, what and which bits, and what
/// packets have to be for that.
fn written(action: &Action) -> Option<(Slot, u128, u128, Prerequisite)> {
    let address = |MacAddr([a, b, c, d, e, f])| u64::from_be_bytes([0, 0, a, b, c, d, e, f]).into();
    let whole = |field: Field, value| (field, value, field.full_mask());
    let (field, value, mask) = match *action {
        Action::SetField { field, value, mask } => (field, value, mask),
        Action::Load { target, value } => {
            let value = u128::from(value) & openflow::field::ones(target.bits);
            let shifted = value.checked_shl(target.offset.into()).unwrap_or_default();
            (target.field, shifted, target.mask())
        }
        Action::SetEthSrc(from) => whole(Field::EthSrc, address(from)),
        Action::SetEthDst(to) => whole(Field::EthDst, address(to)),
        Action::SetIpSrc(from) => whole(Field::IpSrc, u32::from(from).into()),
        Action::SetIpDst(to) => whole(Field::IpDst, u32::from(to).into()),
        _ => return None,
    };
    let (slot, need) = (place(field)?, field.prerequisite());
    let is_beside = words(field) & beside() != 0 && need == Prerequisite::Nothing;
    (is_beside || is_plain_header(field)).then_some((slot, value, mask, need))
}

/// Whether writing to a field of packets changes these bits of them, whatever they are, and nothing else.
const fn is_plain_header(field: Field) -> bool {
    use Field::{
        EthDst, EthSrc, IpDscp, IpDst, IpEcn, IpSrc, Ipv6Dst, Ipv6Src, NwTtl, SctpDst, SctpSrc,
        TcpDst, TcpSrc, UdpDst, UdpSrc,
    };
    matches!(
        field,
        EthDst
            | EthSrc
            | IpSrc
            | IpDst
            | Ipv6Src
            | Ipv6Dst
            | IpDscp
            | IpEcn
            | NwTtl
            | TcpSrc
            | TcpDst
            | UdpSrc
            | UdpDst
            | SctpSrc
            | SctpDst
    )
}

/// Adds what is written at a place, behind what was written before.
fn put(
    writes: &mut ArrayVec<Write, MAX_WRITES>,
    slot: Slot,
    value: u128,
    mask: u128,
) -> Option<()> {
    for ((at, value), (_, bits)) in slot.spread(value & mask).zip(slot.spread(mask)) {
        let word = u8::try_from(at).ok()?;
        if bits == 0 {
            continue;
        }
        match writes.iter_mut().find(|write| write.word == word) {
            Some(write) => {
                (write.bits, write.value) = (write.bits | bits, write.value & !bits | value);
            }
            None => writes.try_push(Write { word, bits, value }).ok()?,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openflow::Subfield;
    use proptest::prelude::*;

    use super::*;
    use crate::key::WORDS;
    use crate::pipeline::Pipeline;
    use crate::tables::Change;
    use crate::touched::{BESIDE, touched};
    use crate::walk::{Start, walk};

    const FIELDS: [Field; 8] = [
        Field::Metadata,
        Field::Reg0,
        Field::Reg1,
        Field::Xreg0,
        Field::Xxreg0,
        Field::Reg15,
        Field::EthDst,
        Field::EthSrc,
    ];

    fn write() -> impl Strategy<Value = Action> {
        let field = || prop::sample::select(&FIELDS[..]);
        let bits = 0_u128..8;
        prop_oneof![
            (field(), bits.clone(), bits).prop_map(|(field, value, mask)| Action::SetField {
                field,
                value,
                mask
            }),
            (field(), 0..20_u16, 1..12_u16, 0..64_u64).prop_map(|(field, offset, bits, value)| {
                Action::Load { target: Subfield { field, offset, bits }, value }
            }),
        ]
    }

    fn instructions() -> impl Strategy<Value = Instructions> {
        let metadata = prop::option::weighted(0.3, (0..8_u64, 0..8_u64));
        (prop::collection::vec(write(), 0..4), metadata, 1..3_u8).prop_map(
            |(mut apply, metadata, table)| {
                let goto_table = metadata.map(|_| table);
                if metadata.is_none() {
                    apply.push(Action::resubmit_table(table));
                }
                Instructions { metadata, goto_table, ..Instructions::apply(apply) }
            },
        )
    }

    /// A packet of which all bits that may be written are set or not.
    fn packet(ones: bool) -> Key {
        let mut key = Key::default();
        if ones {
            let beside = slot::METADATA.word()..slot::METADATA.word() + BESIDE;
            beside.for_each(|at| key.0[at] = u64::MAX);
            [slot::ETH_DST, slot::ETH_SRC].into_iter().for_each(|slot| key.set(slot, slot.ones()));
        }
        key
    }

    /// What it is behind a rule.
    fn behind(instructions: &Instructions, ones: bool) -> Key {
        let mut pipeline = Pipeline::default();
        let rule = Change::add(0, openflow::Match::new(), instructions.clone());
        pipeline.tables.change(&rule, 0).unwrap();
        let mut key = packet(ones);
        walk(&pipeline, &mut key, &Start::Table, None);
        key
    }

    proptest! {
        /// Compared with what a walk does by them.
        #[test]
        fn it_is_said_what_differs_behind_rules(all in prop::array::uniform2(instructions())) {
            let [own, other] = all.each_ref().map(|all| Onward::of(all).unwrap());
            let mut differing = AllDiffering::new();
            if !own.compare(&other, &mut differing) {
                let is_other = (own.table, own.is_goto) != (other.table, other.is_goto);
                let in_packet = |of: &Onward| {
                    let writes = of.writes.iter().filter(|write| write.is_in_packet());
                    writes.map(|write| (write.word, write.bits)).collect::<BTreeMap<_, _>>()
                };
                let is_other = is_other || in_packet(&own) != in_packet(&other);
                prop_assert!(is_other || own.writes.len() + other.writes.len() > MAX_DIFFERING);
                return Ok(());
            }
            for ones in [false, true] {
                let keys = all.each_ref().map(|all| behind(all, ones));
                for at in 0..WORDS {
                    let of = differing.iter().find(|of| usize::from(of.word) == at);
                    let bits = of.map_or(0, |of| of.bits);
                    prop_assert_eq!((keys[0].0[at] ^ keys[1].0[at]) & !bits, 0);
                    let before = packet(ones).0[at];
                    if let Some(of) = of {
                        let values = of.writes.map(|write| write.apply(before));
                        prop_assert_eq!(values, [keys[0].0[at], keys[1].0[at]]);
                    }
                    let is_touched = touched(&all[0]) & 1 << at != 0;
                    let may_be_other = (HEADERS | beside()) & 1 << at != 0;
                    prop_assert!(is_touched || !may_be_other || keys[0].0[at] == before);
                }
            }
        }
    }

    #[test]
    fn rules_that_do_more_are_none() {
        let set = |field| Action::SetField { field, value: 1, mask: 1 };
        let on = || Action::resubmit_table(1);
        let none = [
            vec![],
            vec![set(Field::VlanTci), on()],
            vec![set(Field::TunId), on()],
            vec![set(Field::PktMark), on()],
            vec![Action::DecTtl(None), on()],
            vec![set(Field::Reg0), Action::output(PortNo(1)), on()],
            vec![on(), set(Field::Reg0)],
            vec![Action::Resubmit { port: Some(PortNo(1)), table: Some(1), ct: false }],
            vec![Action::Resubmit { port: None, table: Some(1), ct: true }],
            vec![Action::Resubmit { port: None, table: None, ct: false }],
        ];
        for actions in none {
            assert_eq!(Onward::of(&Instructions::apply(actions.clone())), None, "{actions:?}");
        }
        let clear = Instructions { clear: true, ..Instructions::apply(vec![on()]) };
        let metadata = Instructions { metadata: Some((1, 1)), ..Instructions::apply(vec![on()]) };
        assert_eq!((Onward::of(&clear), Onward::of(&metadata)), (None, None));
    }
}
