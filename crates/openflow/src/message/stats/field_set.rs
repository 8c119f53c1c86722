//! Sets of fields, as tables say what they can match on and write.

use crate::field::Field;

/// Words of 64 bits, a bit for each field.
const WORDS: usize = 4;

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet([u64; WORDS]);

impl FieldSet {
    const fn place(field: Field) -> (usize, u64) {
        let at = field as usize;
        (at / 64, 1 << (at % 64))
    }

    /// Puts a field into it.
    pub fn insert(&mut self, field: Field) {
        let (word, bit) = Self::place(field);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Whether a field is in it.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        let (word, bit) = Self::place(field);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether no field is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is in this one or the other.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        self
    }

    /// What is in both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= other);
        self
    }

    /// What is not in the other.
    #[must_use]
    pub fn without(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= !other);
        self
    }

    /// Its fields, in the order in which Open vSwitch has them: options of tunnels behind what else there is of
    /// tunnels, registers before the fields of packets.
    pub fn iter(&self) -> impl Iterator<Item = Field> + '_ {
        let all = Field::all();
        let range = |from: Field, to: Option<Field>| {
            let to = to.map_or(all.len(), |to| to as usize);
            all.get(from as usize..to).unwrap_or_default()
        };
        let parts = [
            range(Field::DpHash, Some(Field::Metadata)),
            range(Field::TunMetadata0, Some(Field::Reg0)),
            range(Field::Metadata, Some(Field::EthSrc)),
            range(Field::Reg0, None),
            range(Field::EthSrc, Some(Field::TunMetadata0)),
        ];
        parts.into_iter().flatten().copied().filter(|field| self.has(*field))
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<T: IntoIterator<Item = Field>>(fields: T) -> Self {
        let mut set = Self::default();
        fields.into_iter().for_each(|field| set.insert(field));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_have_a_place() {
        let all: FieldSet = Field::all().iter().copied().collect();
        assert_eq!(all.iter().count(), Field::all().len());
        let order: Vec<Field> = all.iter().collect();
        let place = |field| order.iter().position(|one| *one == field).unwrap();
        assert!(place(Field::TunGtpuMsgtype) < place(Field::TunMetadata0));
        assert!(place(Field::TunMetadata63) < place(Field::Metadata));
        assert!(
            place(Field::CtTpDst) < place(Field::Reg0)
                && place(Field::Xxreg3) < place(Field::EthSrc)
        );
        assert!(!FieldSet::default().has(Field::Reg0) && FieldSet::default().is_empty());
    }
}
