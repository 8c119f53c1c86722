//! What rules write to the registers and metadata that go along beside packets; and rules that do that, go on to
//! another table, and nothing else.

use arrayvec::ArrayVec;
use openflow::field::Prerequisite;
use openflow::{Action, Field, Instructions, PortNo};

use crate::key::{Slot, slot};
use crate::place::place;
use crate::walk::trace::bit;

/// How many words there are beside packets that rules can write what they like to: metadata and registers.
const BESIDE: usize = 9;

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
}

/// What a rule does that only writes values beside packets, and has these go on to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Onward {
    table: u8,
    /// Whether that is said as an instruction, and not as an action.
    is_goto: bool,
    /// Each word once.
    writes: Box<[Write]>,
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
        for action in actions {
            let (slot, value, mask) = written(action)?;
            put(&mut writes, slot, value, mask)?;
        }
        if let Some((value, mask)) = metadata {
            put(&mut writes, slot::METADATA, (*value).into(), (*mask).into())?;
        }
        Some(Self { table, is_goto, writes: writes.as_slice().into() })
    }

    /// In which words packets are something else behind another rule than behind this one; `None` if they go
    /// elsewhere, or these are too many.
    pub(crate) fn differing(&self, other: &Self) -> Option<AllDiffering> {
        if (self.table, self.is_goto) != (other.table, other.is_goto) {
            return None;
        }
        let mut differing = AllDiffering::new();
        let mut add = |word, writes @ [own, other]: [Write; 2]| {
            let values = (own.value ^ other.value) & own.bits & other.bits;
            let bits = own.bits ^ other.bits | values;
            bits == 0 || differing.try_push(Differing { word, bits, writes }).is_ok()
        };
        let are_few = self.writes.iter().all(|own| add(own.word, [*own, other.write(own.word)]))
            && other.writes.iter().all(|other| match self.write(other.word) {
                none @ Write { bits: 0, .. } => add(other.word, [none, *other]),
                _ => true,
            });
        are_few.then_some(differing)
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

/// What an action writes beside packets, if that is all that it does: where, what and which bits.
fn written(action: &Action) -> Option<(Slot, u128, u128)> {
    let (field, value, mask) = match *action {
        Action::SetField { field, value, mask } => (field, value, mask),
        Action::Load { target, value } => {
            let value = u128::from(value) & openflow::field::ones(target.bits);
            let shifted = value.checked_shl(target.offset.into()).unwrap_or_default();
            (target.field, shifted, target.mask())
        }
        _ => return None,
    };
    let slot = place(field)?;
    let is_beside = words(field) != 0 && field.prerequisite() == Prerequisite::Nothing;
    is_beside.then_some((slot, value, mask))
}

/// Adds what is written at a place, behind what was written before.
fn put(writes: &mut ArrayVec<Write, BESIDE>, slot: Slot, value: u128, mask: u128) -> Option<()> {
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

/// The words beside packets that instructions may write to, a bit for each.
pub(crate) fn touched(instructions: &Instructions) -> u64 {
    let Instructions { apply, write, metadata, .. } = instructions;
    let by_actions = touched_by(apply) | touched_by(write.as_deref().unwrap_or_default());
    by_actions | metadata.map_or(0, |_| words(Field::Metadata))
}

fn touched_by(actions: &[Action]) -> u64 {
    actions.iter().fold(0, |all, action| {
        all | match action {
            Action::SetField { field, .. } | Action::DeleteField(field) => words(*field),
            Action::Load { target, .. }
            | Action::Move { target, .. }
            | Action::Pop(target)
            | Action::CheckPktLarger { target, .. } => words(target.field),
            Action::Learn(learn) => learn.result.map_or(0, |target| words(target.field)),
            Action::Multipath(multipath) => words(multipath.target.field),
            Action::Bundle(bundle) => bundle.target.map_or(0, |target| words(target.field)),
            Action::Clone(actions) => touched_by(actions),
            _ => 0,
        }
    })
}

/// Those of them that a field is in.
fn words(field: Field) -> u64 {
    let Some(slot) = place(field) else { return 0 };
    let beside = slot::METADATA.word()..slot::METADATA.word() + BESIDE;
    let words = slot.spread(0).map(|(word, _)| word).filter(|word| beside.contains(word));
    words.filter_map(|word| u8::try_from(word).ok()).fold(0, |all, word| all | bit(word))
}

#[cfg(test)]
mod tests {
    use openflow::Subfield;
    use proptest::prelude::*;

    use super::*;
    use crate::key::{Key, WORDS};
    use crate::pipeline::Pipeline;
    use crate::tables::Change;
    use crate::walk::{Start, walk};

    const FIELDS: [Field; 6] =
        [Field::Metadata, Field::Reg0, Field::Reg1, Field::Xreg0, Field::Xxreg0, Field::Reg15];

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

    /// What a packet, of which all bits beside it are set or not, is behind a rule.
    fn behind(instructions: &Instructions, ones: bool) -> Key {
        let mut pipeline = Pipeline::default();
        let rule = Change::add(0, openflow::Match::new(), instructions.clone());
        pipeline.tables.change(&rule, 0).unwrap();
        let mut key = Key::default();
        let beside = slot::METADATA.word()..slot::METADATA.word() + BESIDE;
        beside.for_each(|at| key.0[at] = if ones { u64::MAX } else { 0 });
        walk(&pipeline, &mut key, &Start::Table, None);
        key
    }

    proptest! {
        /// Compared with what a walk does by them.
        #[test]
        fn it_is_said_what_differs_behind_rules(all in prop::array::uniform2(instructions())) {
            let [own, other] = all.each_ref().map(|all| Onward::of(all).unwrap());
            let Some(differing) = own.differing(&other) else {
                let is_other = (own.table, own.is_goto) != (other.table, other.is_goto);
                prop_assert!(is_other || own.writes.len() + other.writes.len() > MAX_DIFFERING);
                return Ok(());
            };
            for ones in [false, true] {
                let keys = all.each_ref().map(|all| behind(all, ones));
                for at in 0..WORDS {
                    let of = differing.iter().find(|of| usize::from(of.word) == at);
                    let bits = of.map_or(0, |of| of.bits);
                    prop_assert_eq!((keys[0].0[at] ^ keys[1].0[at]) & !bits, 0);
                    let before = if ones { u64::MAX } else { 0 };
                    if let Some(of) = of {
                        let values = of.writes.map(|write| write.apply(before));
                        prop_assert_eq!(values, [keys[0].0[at], keys[1].0[at]]);
                    }
                    let is_touched = touched(&all[0]) & 1 << at != 0;
                    let may_be_other = (slot::METADATA.word()..slot::METADATA.word() + BESIDE)
                        .contains(&at);
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
            vec![set(Field::EthDst), on()],
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
        let inner = Action::Clone(vec![set(Field::Metadata), set(Field::Reg3)]);
        let own = |slot: Slot| bit(u8::try_from(slot.word()).unwrap());
        let words = own(slot::METADATA) | own(slot::reg(3));
        assert_eq!(touched(&Instructions::apply(vec![inner])), words);
    }
}
