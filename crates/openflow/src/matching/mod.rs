//! Matches: which packets a flow is for.
//!
//! Several fields may be views of one value: `vlan_vid` and `vlan_pcp` of the tag, `tcp_src` and
//! `icmp_type` of the word behind the network header, `xreg0` of `reg0` and `reg1`. A [`Match`] holds
//! each value once, by its *home*, as Open vSwitch does, so that two ways to say the same are equal.
//!
//! - `home`: which fields are views of which
//! - [`oxm`]: matches as lists of fields
//! - `prerequisite`: what a match says of packets, and whether a field can be there
//! - `text`: matches as ovs-ofctl shows them
//! - [`v10`]: the match of OpenFlow 1.0
//! - [`v11`]: matches from OpenFlow 1.1 on

mod home;
pub mod oxm;
pub(crate) mod prerequisite;
mod text;
pub mod v10;
pub mod v11;

use crate::field::Field;

pub use home::home;

/// One field of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldMatch {
    /// Which field.
    pub field: Field,
    /// The value, 0 where the mask is.
    pub value: u128,
    /// Which bits count.
    pub mask: u128,
}

/// Which packets a flow is for: values of fields, each with a mask.
///
/// Values longer than 128 bits, which only options of tunnels can have, are not possible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// By field, each at most once, all of them homes; `value` within `mask`, and that not 0.
    entries: Vec<FieldMatch>,
}

impl Match {
    /// All packets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of these that have `value` in `field`, too.
    #[must_use]
    pub fn with(mut self, field: Field, value: u128) -> Self {
        self.set(field, value);
        self
    }

    /// Those of these that have `value` in the bits of `mask` of `field`, too.
    #[must_use]
    pub fn with_masked(mut self, field: Field, value: u128, mask: u128) -> Self {
        self.set_masked(field, value, mask);
        self
    }

    /// Has `field` be `value`, whatever it was to be before.
    pub fn set(&mut self, field: Field, value: u128) {
        self.set_masked(field, value, home::full(field));
    }

    /// Has `field` be `value` in the bits of `mask`, whatever it was to be before. Without any bits in
    /// the mask it may be anything.
    pub fn set_masked(&mut self, field: Field, value: u128, mask: u128) {
        home::write(self, field, value, mask);
    }

    /// Has there be the option of a tunnel that `field` stands for, whatever it is.
    pub fn set_present(&mut self, field: Field) {
        self.remove(field);
        home::write_option(self, field, true);
    }

    /// Whether there is to be the option of a tunnel that `field` stands for, or is not to be; `None` if that does not
    /// count.
    #[must_use]
    pub fn presence(&self, field: Field) -> Option<bool> {
        let (value, mask) = self.stored(Field::TunOptions)?;
        let bit = u128::from(field.option_bit());
        (mask & bit != 0).then_some(value & bit != 0)
    }

    /// Has `field` be anything.
    pub fn remove(&mut self, field: Field) {
        self.set_masked(field, 0, 0);
    }

    /// What `field` is to be, and which bits of it count; nothing if it may be anything.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<(u128, u128)> {
        home::read(self, field)
    }

    /// What `field` is to be, if all its bits count.
    #[must_use]
    pub fn exact(&self, field: Field) -> Option<u128> {
        let (value, mask) = self.get(field)?;
        (mask == home::full(field)).then_some(value)
    }

    /// All of it: values of homes ([`home()`]), in the order of the fields.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = FieldMatch> + '_ {
        self.entries.iter().copied()
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is all packets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a home.
    fn stored(&self, field: Field) -> Option<(u128, u128)> {
        let at = self.entries.binary_search_by_key(&field, |entry| entry.field).ok()?;
        self.entries.get(at).map(|entry| (entry.value, entry.mask))
    }

    /// Sets the value of a home.
    fn store(&mut self, field: Field, value: u128, mask: u128) {
        let entry = FieldMatch { field, value: value & mask, mask };
        match self.entries.binary_search_by_key(&field, |entry| entry.field) {
            Ok(at) if mask == 0 => drop(self.entries.remove(at)),
            Ok(at) => {
                if let Some(place) = self.entries.get_mut(at) {
                    *place = entry;
                }
            }
            Err(_) if mask == 0 => {}
            Err(at) => self.entries.insert(at, entry),
        }
    }

    /// Sets some bits of a home, those of `within`, and leaves its other bits.
    fn store_within(&mut self, field: Field, value: u128, mask: u128, within: u128) {
        let (old_value, old_mask) = self.stored(field).unwrap_or_default();
        let mask = mask & within;
        self.store(field, old_value & !within | value & mask, old_mask & !within | mask);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field() -> impl Strategy<Value = Field> {
        // That one says what others are.
        (0..Field::all().len())
            .prop_map(|at| Field::all()[at])
            .prop_filter("", |field| *field != Field::TunOptions)
    }

    #[test]
    fn ways_to_say_the_same_are_equal() {
        let by_vid = Match::new().with(Field::VlanVid, 0x1005).with(Field::VlanPcp, 3);
        assert_eq!(Match::new().with(Field::DlVlanPcp, 3).with(Field::DlVlan, 5), by_vid);
        assert_eq!(Match::new().with(Field::VlanTci, 0x7005), by_vid);
        let registers = Match::new().with(Field::Reg2, 1).with(Field::Reg3, 2);
        assert_eq!(Match::new().with(Field::Xreg1, 1 << 32 | 2), registers);
        assert_eq!(Match::new().with(Field::IpDscp, 10), Match::new().with(Field::NwTos, 40));
        assert_eq!(
            Match::new().with(Field::InPort, 0xFFFE).exact(Field::InPortOxm),
            Some(0xFFFF_FFFE)
        );
        assert_eq!(Match::new().with(Field::UdpSrc, 53), Match::new().with(Field::TcpSrc, 53));
        assert_eq!(Match::new().with(Field::IcmpType, 8).get(Field::TcpSrc), Some((8, 0xFFFF)));
    }

    #[test]
    fn values_are_cut_to_masks_and_masks_to_fields() {
        let only = Match::new().with_masked(Field::TunFlags, 0xFF, u128::MAX);
        assert_eq!(only.get(Field::TunFlags), Some((1, 1)));
        let mut masked = Match::new().with_masked(Field::IpSrc, 0x0A00_0001, 0xFF00_0000);
        assert_eq!(masked.get(Field::IpSrc), Some((0x0A00_0000, 0xFF00_0000)));
        assert_eq!(masked.exact(Field::IpSrc), None);
        masked.remove(Field::IpSrc);
        assert!(masked.is_empty());
    }

    #[test]
    fn an_option_that_is_something_is_there() {
        let mut matching = Match::new().with(Field::TunMetadata1, 5);
        assert_eq!(matching.presence(Field::TunMetadata1), Some(true));
        assert_eq!(matching.presence(Field::TunMetadata2), None);
        matching.set_present(Field::TunMetadata2);
        assert_eq!(matching.to_string(), "tun_metadata1=0x5,tun_metadata2");
        matching.remove(Field::TunMetadata1);
        assert_eq!((matching.to_string(), matching.len()), ("tun_metadata2".to_owned(), 1));
        matching.remove(Field::TunMetadata2);
        assert!(matching.is_empty());
    }

    #[test]
    fn a_part_of_a_tag_leaves_the_rest() {
        let mut tag = Match::new().with(Field::VlanPcp, 3).with(Field::DlVlan, 7);
        tag.remove(Field::DlVlan);
        assert_eq!(tag.get(Field::VlanTci), Some((0x7000, 0xF000)));
        let none = Match::new().with(Field::DlVlan, 0xFFFF);
        assert_eq!(none.get(Field::VlanTci), Some((0, 0xFFFF)));
        assert_eq!(none.get(Field::VlanVid), Some((0, 0x1FFF)));
    }

    proptest! {
        #[test]
        fn what_is_set_is_there(fields in proptest::collection::vec((field(), any::<u128>(), any::<u128>()), 0..20)) {
            let mut all = Match::new();
            for (field, value, mask) in &fields {
                all.set_masked(*field, *value, *mask);
                if home(*field) == *field {
                    let mask = mask & home::full(*field);
                    prop_assert_eq!(all.get(*field), (mask != 0).then_some((value & mask, mask)));
                }
            }
            for entry in all.iter() {
                prop_assert_eq!(home(entry.field), entry.field);
                prop_assert_eq!(all.get(entry.field), Some((entry.value, entry.mask)));
            }
            let mut again = Match::new();
            for entry in all.iter() {
                again.set_masked(entry.field, entry.value, entry.mask);
            }
            prop_assert_eq!(again, all);
        }

        #[test]
        fn views_read_what_was_written(field in field(), value: u128) {
            let value = value & home::full(field);
            prop_assert_eq!(Match::new().with(field, value).exact(field), Some(value));
        }
    }
}

#[cfg(test)]
pub(crate) mod codec_tests;
