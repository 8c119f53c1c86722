//! Which options of tunnels fields stand for, as controllers say (NXT_TLV_TABLE_MOD): `tun_metadata0` is
//! of the bridge's kind and length then. Rules may be about no others, and of those that are longer than there is a place
//! for, only that they are there.

use flow::{OptionField, Tables, slot};
use litemap::LiteMap;
use openflow::action::wire::Lengths;
use openflow::field::ones;
use openflow::matching::FieldMatch;
use openflow::message::flow_mod::FlowMod;
use openflow::message::tlv_table::{FIELDS, TlvCommand, TlvOption, TlvTable, TlvTableMod};
use openflow::{Action, ErrorCode, Field, Instructions, Match, Subfield};

/// The most bytes of all values, as in Open vSwitch.
const ROOM: usize = 256;

/// The options of a bridge, by their fields' numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlvOptions(LiteMap<u16, TlvOption>);

impl TlvOptions {
    /// Has fields stand for others, unless rules of `tables` are about those that would stand for none.
    pub fn change(&mut self, change: &TlvTableMod, tables: &Tables) -> Result<(), ErrorCode> {
        match change.command {
            TlvCommand::Add => {
                let mut next = self.clone();
                change.options.iter().try_for_each(|option| next.add(*option))?;
                *self = next;
            }
            TlvCommand::Delete => {
                // There may be thousands, and a rule is asked about each of its fields.
                let all = change.options.iter().fold(0, |all, option| all | bit(option.index));
                self.check_unused(tables, |field| all & bit(field) != 0)?;
                change.options.iter().for_each(|option| _ = self.0.remove(&option.index));
            }
            TlvCommand::Clear => {
                self.check_unused(tables, |_| true)?;
                self.0.clear();
            }
        }
        Ok(())
    }

    fn add(&mut self, option: TlvOption) -> Result<(), ErrorCode> {
        if self.0.contains_key(&option.index) {
            return Err(ErrorCode::NxttmfcAlreadyMapped);
        }
        let is_same = |other: &TlvOption| (other.class, other.kind) == (option.class, option.kind);
        if self.0.values().any(is_same) {
            return Err(ErrorCode::NxttmfcDupEntry);
        }
        if !self.has_room(&option) {
            return Err(ErrorCode::NxttmfcTableFull);
        }
        self.0.insert(option.index, option);
        Ok(())
    }

    /// Whether there is room for another one, and a place if it needs one.
    fn has_room(&self, option: &TlvOption) -> bool {
        let all = self.0.values().chain([option]);
        let used: usize = all.map(|option| usize::from(option.len).next_multiple_of(4)).sum();
        let place = |option: &TlvOption| {
            let has_one = (1..=OptionField::PLACE).contains(&option.len);
            has_one.then_some(option.index % u16::from(slot::OPTION_VALUES))
        };
        let own = place(option);
        used <= ROOM
            && option.index < u16::from(slot::OPTIONS)
            && own.is_none_or(|own| !self.0.values().any(|other| place(other) == Some(own)))
    }

    /// Whether no rule is about these fields, of those that stand for something.
    fn check_unused(&self, tables: &Tables, these: impl Fn(u16) -> bool) -> Result<(), ErrorCode> {
        let is_gone = |field: Field| {
            let index = index(field).filter(|index| self.0.contains_key(index));
            index.is_some_and(&these)
        };
        let uses = |matching: &Match, instructions: &Instructions| {
            let unused = |part: Subfield| if is_gone(part.field) { Err(()) } else { Ok(()) };
            fields(matching).any(&is_gone)
                || instructions.try_for_each_part(&mut { unused }).is_err()
        };
        let is_used = !self.0.is_empty()
            && tables.iter().any(|rule| uses(&rule.matching, &rule.instructions));
        if is_used { Err(ErrorCode::NxttmfcInvalidTlvDel) } else { Ok(()) }
    }

    /// What the table is, as a controller is told.
    pub fn table(&self) -> TlvTable {
        let options = self.0.values().copied().collect();
        TlvTable {
            room: u32::try_from(ROOM).unwrap_or_default(),
            fields: slot::OPTIONS.into(),
            options,
        }
    }

    /// The same for what forwards.
    pub fn fields(&self) -> Vec<OptionField> {
        let field = |option: &TlvOption| {
            let TlvOption { class, kind, len, index } = *option;
            Some(OptionField { field: u8::try_from(index).ok()?, class, kind, len })
        };
        self.0.values().filter_map(field).collect()
    }

    /// How many bytes the fields have.
    pub fn lengths(&self) -> Lengths {
        let mut lengths = [0; FIELDS as usize];
        for option in self.0.values() {
            if let Some(len) = lengths.get_mut(usize::from(option.index)) {
                *len = option.len;
            }
        }
        lengths
    }

    /// How many bytes an option has here.
    ///
    /// # Errors
    /// `NXFMFC_INVALID_TLV_FIELD` if the field stands for nothing.
    fn len(&self, field: Field) -> Result<Option<u8>, ErrorCode> {
        let Some(index) = index(field) else { return Ok(None) };
        let option = self.0.get(&index).ok_or(ErrorCode::NxfmfcInvalidTlvField)?;
        Ok(Some(option.len))
    }

    /// How many bits there are of it to be looked at, or written to.
    ///
    /// # Errors
    /// `NXFMFC_INVALID_TLV_FIELD` if the field stands for nothing, or there is no place for so much.
    fn bits(&self, field: Field) -> Result<Option<u16>, ErrorCode> {
        match self.len(field)? {
            Some(len) if len > OptionField::PLACE => Err(ErrorCode::NxfmfcInvalidTlvField),
            len => Ok(len.map(|len| u16::from(len).saturating_mul(8))),
        }
    }

    /// Has a match be about the bits that there are. One of others would be of more packets without them,
    /// which Open vSwitch lets pass.
    ///
    /// # Errors
    /// `NXFMFC_INVALID_TLV_FIELD` for a field that stands for nothing, `OFPBMC_BAD_VALUE` and
    /// `OFPBMC_BAD_MASK` for bits that an option does not have.
    pub fn fit(&self, matching: &mut Match) -> Result<(), ErrorCode> {
        let options: Vec<Field> =
            fields(matching).filter(|field| field.is_tun_metadata()).collect();
        for field in options {
            let Some((value, mask)) = matching.get(field) else {
                // All that counts is that it is there.
                self.len(field)?;
                continue;
            };
            let entry = FieldMatch { field, value, mask };
            let Some(bits) = self.bits(field)? else { continue };
            let all = ones(bits);
            if entry.value & !all != 0 {
                return Err(ErrorCode::BmcBadValue);
            }
            match (entry.mask & all == all, entry.mask & !all == 0) {
                // It is there, and there is nothing of it.
                (true, _) if bits == 0 => matching.set_present(field),
                // All of it, however many bytes it was sent in.
                (true, _) => matching.set(entry.field, entry.value),
                (false, true) => matching.set_masked(entry.field, entry.value, entry.mask),
                (false, false) => return Err(ErrorCode::BmcBadMask),
            }
        }
        Ok(())
    }

    /// Whether actions are about bits that there are.
    fn check(&self, instructions: &Instructions) -> Result<(), ErrorCode> {
        instructions.try_for_each_part(&mut |part| {
            let Some(bits) = self.bits(part.field)? else { return Ok(()) };
            let is_within = part.offset.saturating_add(part.bits) <= bits;
            if is_within { Ok(()) } else { Err(ErrorCode::BacBadSetLen) }
        })
    }

    /// Has a change of rules be about what there is.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and `OFPBAC_BAD_SET_LEN` for actions on bits that an option does not have.
    pub fn fit_change(&self, mut change: FlowMod) -> Result<FlowMod, ErrorCode> {
        self.fit(&mut change.matching)?;
        self.check(&change.instructions)?;
        let Instructions { apply, write, .. } = &mut change.instructions;
        self.fit_actions(apply);
        self.fit_actions(write.as_deref_mut().unwrap_or_default());
        Ok(change)
    }

    /// Has actions that write all bits that there are of an option write all of it.
    fn fit_actions(&self, actions: &mut [Action]) {
        for action in actions {
            match action {
                Action::SetField { field, mask, .. } => {
                    let Ok(Some(bits)) = self.bits(*field) else { continue };
                    if *mask & ones(bits) == ones(bits) {
                        *mask = field.byte_mask();
                    }
                }
                Action::Clone(actions) => self.fit_actions(actions),
                _ => {}
            }
        }
    }
}

/// All fields that a match is about, options of which it counts that they are there among them.
fn fields(matching: &Match) -> impl Iterator<Item = Field> {
    let options = (0..64).filter_map(Field::tun_metadata);
    let present = options.filter(|field| matching.presence(*field).is_some());
    let others = matching.iter().map(|entry| entry.field);
    present.chain(others.filter(|field| !field.is_tun_metadata()))
}

/// A field among all of them.
fn bit(index: u16) -> u64 {
    1_u64.checked_shl(index.into()).unwrap_or_default()
}

/// The number of a field among those for options.
fn index(field: Field) -> Option<u16> {
    if !field.is_tun_metadata() {
        return None;
    }
    (field as u16).checked_sub(Field::TunMetadata0 as u16)
}

#[cfg(test)]
mod tests {
    use flow::Change;

    use super::*;

    fn option(kind: u8, len: u8, index: u16) -> TlvOption {
        TlvOption { class: 0xFFFF, kind, len, index }
    }

    fn changed(
        options: &mut TlvOptions,
        command: TlvCommand,
        of: &[TlvOption],
    ) -> Option<ErrorCode> {
        let change = TlvTableMod { command, options: of.to_vec() };
        options.change(&change, &Tables::default()).err()
    }

    #[test]
    fn fields_stand_for_one_option_each_and_as_many_as_there_is_room_for() {
        let mut options = TlvOptions::default();
        let mut add = |of: &[TlvOption]| changed(&mut options, TlvCommand::Add, of);
        assert_eq!(add(&[option(0, 4, 0), option(1, 8, 1)]), None);
        assert_eq!(add(&[option(2, 4, 0)]), Some(ErrorCode::NxttmfcAlreadyMapped));
        assert_eq!(add(&[option(1, 4, 2)]), Some(ErrorCode::NxttmfcDupEntry));
        let full = Some(ErrorCode::NxttmfcTableFull);
        assert_eq!(add(&[option(2, 124, 2), option(3, 124, 3)]), full);
        assert_eq!(add(&[option(2, 4, 8)]), full, "its place is that of the first");
        assert_eq!(add(&[option(2, 0, 16)]), full);
        assert_eq!(add(&[option(2, 0, 8), option(3, 124, 9), option(4, 4, 15)]), None);
        assert_eq!(add(&[option(5, 120, 10)]), full);
        assert_eq!(options.lengths()[..3], [4, 8, 0]);
        let clear = [option(2, 0, 8), option(3, 0, 9), option(4, 0, 15)];
        assert_eq!(changed(&mut options, TlvCommand::Delete, &clear), None);
        assert_eq!(options.table().options, [option(0, 4, 0), option(1, 8, 1)]);
        assert_eq!(changed(&mut options, TlvCommand::Delete, &[option(9, 0, 1)]), None);
        assert_eq!(options.table().options, [option(0, 4, 0)]);
        assert_eq!(changed(&mut options, TlvCommand::Clear, &[]), None);
        assert!(options.table().options.is_empty());
    }

    #[test]
    fn what_rules_are_about_stays() {
        let mut options = TlvOptions::default();
        changed(
            &mut options,
            TlvCommand::Add,
            &[option(0, 4, 0), option(1, 8, 1), option(2, 4, 2)],
        );
        let mut tables = Tables::default();
        let source = Subfield { field: Field::TunMetadata1, offset: 0, bits: 32 };
        let copies = Action::Move { source, target: Subfield::whole(Field::Reg0) };
        let rule = Change::add(
            0,
            Match::new().with(Field::TunMetadata0, 1),
            Instructions::apply(vec![Action::Clone(vec![copies])]),
        );
        tables.change(&rule, 0).unwrap();
        let mut delete = |command, of: &[TlvOption]| {
            let change = TlvTableMod { command, options: of.to_vec() };
            options.change(&change, &tables).err()
        };
        assert_eq!(
            delete(TlvCommand::Delete, &[option(0, 4, 0)]),
            Some(ErrorCode::NxttmfcInvalidTlvDel)
        );
        assert_eq!(
            delete(TlvCommand::Delete, &[option(1, 8, 1)]),
            Some(ErrorCode::NxttmfcInvalidTlvDel)
        );
        assert_eq!(delete(TlvCommand::Clear, &[]), Some(ErrorCode::NxttmfcInvalidTlvDel));
        assert_eq!(delete(TlvCommand::Delete, &[option(2, 4, 2)]), None);
        assert_eq!(delete(TlvCommand::Delete, &[option(9, 4, 64)]), None, "there is no such field");
    }

    #[test]
    fn matches_are_about_the_bits_that_there_are() {
        let mut options = TlvOptions::default();
        changed(&mut options, TlvCommand::Add, &[option(0, 4, 0), option(1, 8, 1)]);
        let fitted = |field, value, mask| {
            let mut matching = Match::new().with_masked(field, value, mask);
            options.fit(&mut matching).map(|()| (matching.exact(field), matching.get(field)))
        };
        let (exact, _) = fitted(Field::TunMetadata0, 5, ones(32)).unwrap();
        assert_eq!(exact, Some(5));
        let (exact, masked) = fitted(Field::TunMetadata1, 5, ones(32)).unwrap();
        assert_eq!((exact, masked), (None, Some((5, ones(32)))));
        let unknown = fitted(Field::TunMetadata2, 5, ones(32));
        assert_eq!(unknown, Err(ErrorCode::NxfmfcInvalidTlvField));
    }

    #[test]
    fn of_long_and_of_empty_options_it_counts_that_they_are_there() {
        let mut options = TlvOptions::default();
        changed(&mut options, TlvCommand::Add, &[option(0, 124, 0), option(1, 0, 1)]);
        let fitted = |field, value, mask| {
            let mut matching = Match::new().with_masked(field, value, mask);
            options.fit(&mut matching).map(|()| matching.to_string())
        };
        assert_eq!(fitted(Field::TunMetadata1, 0, u128::MAX), Ok("tun_metadata1".to_owned()));
        assert_eq!(fitted(Field::TunMetadata1, 1, u128::MAX), Err(ErrorCode::BmcBadValue));
        let long = fitted(Field::TunMetadata0, 5, u128::MAX);
        assert_eq!(long, Err(ErrorCode::NxfmfcInvalidTlvField));
        let mut there = Match::new();
        there.set_present(Field::TunMetadata0);
        assert_eq!(options.fit(&mut there), Ok(()));
        let mut tables = Tables::default();
        tables.change(&Change::add(0, there.clone(), Instructions::default()), 0).unwrap();
        let delete = TlvTableMod { command: TlvCommand::Clear, options: vec![] };
        assert_eq!(options.change(&delete, &tables), Err(ErrorCode::NxttmfcInvalidTlvDel));
        there.set_present(Field::TunMetadata2);
        assert_eq!(options.fit(&mut there), Err(ErrorCode::NxfmfcInvalidTlvField));
    }

    /// Without these bits it would be of packets that were not meant.
    #[test]
    fn matches_on_bits_that_an_option_has_not_are_refused() {
        let mut options = TlvOptions::default();
        changed(&mut options, TlvCommand::Add, &[option(0, 4, 0)]);
        let fitted = |value, mask| {
            let mut matching = Match::new().with_masked(Field::TunMetadata0, value, mask);
            options.fit(&mut matching).map(|()| matching.get(Field::TunMetadata0))
        };
        let all = fitted(5, ones(32)).unwrap();
        assert!(all.is_some());
        assert_eq!(fitted(5, ones(64)), Ok(all), "all of it, in more bytes");
        assert_eq!(fitted(5, u128::MAX), Ok(all));
        assert_eq!(fitted(5, 0xF), Ok(Some((5, 0xF))));
        assert_eq!(fitted(1 << 32, 0xFF << 32), Err(ErrorCode::BmcBadValue));
        assert_eq!(fitted(1 << 32 | 5, u128::MAX), Err(ErrorCode::BmcBadValue));
        assert_eq!(fitted(0, 0xFF << 32), Err(ErrorCode::BmcBadMask));
        assert_eq!(fitted(5, 0xF << 32 | 0xF), Err(ErrorCode::BmcBadMask));
    }

    /// What is written to all of an option is shown without a mask, however it was sent.
    #[test]
    fn actions_write_whole_options() {
        let mut options = TlvOptions::default();
        changed(&mut options, TlvCommand::Add, &[option(0, 4, 0)]);
        let write = |bits| {
            let set = Action::SetField { field: Field::TunMetadata0, value: 5, mask: ones(bits) };
            let instructions = Instructions::apply(vec![set.clone(), Action::Clone(vec![set])]);
            options.fit_change(FlowMod { instructions, ..FlowMod::default() }).unwrap()
        };
        let text = |bits| write(bits).instructions.to_string();
        assert_eq!(text(32), "set_field:0x5->tun_metadata0,clone(set_field:0x5->tun_metadata0)");
        let part = "set_field:0x5/0xffff->tun_metadata0";
        assert_eq!(text(16), format!("{part},clone({part})"));
    }
}
