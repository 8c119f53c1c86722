//! What a device knows that neither the guest's memory nor its front-end does, as a record for the
//! device where the guest arrives (DEVICE_STATE): what the driver has said over the control queue.
//!
//! The record begins with what it is and its version. Whoever reads it knows the length of each
//! part before, and takes no more than that; numbers are little-endian.

use packet::MacAddr;
use virtio::Features;

use super::filter::{Addresses, MAX_ADDRESSES, Modes, ReceiveFilter, Vlans};

/// What a record begins with, and ends with: one that has not arrived whole goes on with zeroes.
const MAGIC: [u8; 8] = *b"RWNETDEV";
/// The version that is written, and the only one until now.
const VERSION: u32 = 1;

/// Why bytes are no state of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StateError {
    #[error("it is not the state of a network device of Ringway's")]
    Foreign,
    #[error("it has version {0} of the format; this back-end knows version {VERSION} only")]
    Version(u32),
    #[error("it ends too early, or has values that none has")]
    Broken,
    #[error("its driver uses {used} queue pairs, the device has {has}; give it as many")]
    QueuePairs { used: u16, has: u16 },
}

/// The state of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Queue pairs that the driver uses.
    pub(super) queue_pairs: u16,
    /// Offloads that it wants to have left to it, where it has said so.
    pub(super) wanted: Option<Features>,
    pub(super) filter: ReceiveFilter,
}

impl State {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { queue_pairs, wanted, filter } = self;
        let mut out = Vec::with_capacity(2048);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(queue_pairs.to_le_bytes());
        out.push(wanted.is_some().into());
        out.extend(wanted.unwrap_or(Features::empty()).bits().to_le_bytes());
        out.extend([filter.active.into(), filter.modes.bits()]);
        out.push(filter.mac.is_some().into());
        out.extend(filter.mac.unwrap_or_default().0);
        for table in [&filter.unicast, &filter.multicast] {
            out.push(table.overflowed.into());
            // A table has 64 places.
            out.push(u8::try_from(table.list.len()).unwrap_or(u8::MAX));
            table.list.iter().for_each(|mac| out.extend(mac.0));
        }
        out.push(filter.vlans.is_some().into());
        if let Some(vlans) = &filter.vlans {
            vlans.iter().for_each(|word| out.extend(word.to_le_bytes()));
        }
        out.extend(MAGIC);
        out
    }

    /// The state in `bytes`, for a device with `pairs` queue pairs.
    pub(super) fn decode(bytes: &[u8], pairs: u16) -> Result<Self, StateError> {
        let mut from = Reader(bytes);
        if from.take::<8>() != Ok(MAGIC) {
            return Err(StateError::Foreign);
        }
        let version = u32::from_le_bytes(from.take()?);
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let used = u16::from_le_bytes(from.take()?);
        if !(1..=pairs).contains(&used) {
            return Err(StateError::QueuePairs { used, has: pairs });
        }
        let has_wish = from.flag()?;
        let wish = Features::from_bits(u64::from_le_bytes(from.take()?));
        let wish = wish.filter(|wish| Features::GUEST_OFFLOADS.contains(*wish));
        let wanted = has_wish.then_some(wish.ok_or(StateError::Broken)?);
        let filter = from.filter()?;
        if from.take()? != MAGIC {
            return Err(StateError::Broken);
        }
        Ok(Self { queue_pairs: used, wanted, filter })
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], StateError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(StateError::Broken)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn flag(&mut self) -> Result<bool, StateError> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(StateError::Broken),
        }
    }

    fn filter(&mut self) -> Result<ReceiveFilter, StateError> {
        let active = self.flag()?;
        let [modes] = self.take()?;
        let modes = Modes::from_bits(modes).ok_or(StateError::Broken)?;
        let (has_mac, mac) = (self.flag()?, MacAddr(self.take()?));
        let (unicast, multicast) = (self.addresses()?, self.addresses()?);
        let vlans = if self.flag()? { Some(Box::new(self.vlans()?)) } else { None };
        let mac = has_mac.then_some(mac);
        Ok(ReceiveFilter { active, modes, mac, unicast, multicast, vlans })
    }

    fn addresses(&mut self) -> Result<Addresses, StateError> {
        let (overflowed, [count]) = (self.flag()?, self.take()?);
        let mut table = Addresses { overflowed, ..Addresses::default() };
        if usize::from(count) > MAX_ADDRESSES {
            return Err(StateError::Broken);
        }
        for _ in 0..count {
            table.list.push(MacAddr(self.take()?));
        }
        Ok(table)
    }

    fn vlans(&mut self) -> Result<Vlans, StateError> {
        let mut vlans: Vlans = [0; _];
        for word in &mut vlans {
            *word = u64::from_le_bytes(self.take()?);
        }
        Ok(vlans)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAIRS: u16 = 4;

    fn mac() -> impl Strategy<Value = MacAddr> {
        any::<[u8; 6]>().prop_map(MacAddr)
    }

    /// A filter as commands make it.
    fn filters() -> impl Strategy<Value = ReceiveFilter> {
        let table = || prop::collection::vec(mac(), 0..80);
        let vlans = prop::collection::vec(0_u16..4096, 0..9);
        let modes = prop::collection::vec((0..6_u8, any::<bool>()), 0..9);
        (modes, prop::option::of(mac()), prop::option::of((table(), table())), vlans).prop_map(
            |(modes, mac, tables, vlans)| {
                let mut filter = ReceiveFilter::default();
                for (bit, on) in modes {
                    filter.set_mode(Modes::from_bits(1_u8 << bit).unwrap(), on);
                }
                mac.into_iter().for_each(|mac| filter.set_mac(mac));
                if let Some((unicast, multicast)) = tables {
                    filter
                        .set_tables(unicast.into_iter().collect(), multicast.into_iter().collect());
                }
                for vlan in vlans {
                    assert!(filter.set_vlan(vlan, true));
                }
                filter
            },
        )
    }

    fn states() -> impl Strategy<Value = State> {
        let offloads = any::<u64>()
            .prop_map(|bits| Features::from_bits_truncate(bits) & Features::GUEST_OFFLOADS);
        (1..=PAIRS, prop::option::of(offloads), filters())
            .prop_map(|(queue_pairs, wanted, filter)| State { queue_pairs, wanted, filter })
    }

    proptest! {
        #[test]
        fn a_state_is_the_same_where_it_arrives(state in states(), more in 0_usize..9) {
            let mut bytes = state.encode();
            let len = bytes.len();
            bytes.resize(len + more, 0);
            prop_assert_eq!(State::decode(&bytes, PAIRS), Ok(state));
            for short in [len - 1, len / 2, 12, 8, 7, 0] {
                prop_assert!(State::decode(&bytes[..short], PAIRS).is_err());
                bytes[short..].fill(0);
                prop_assert!(State::decode(&bytes, PAIRS).is_err());
            }
        }

        #[test]
        fn any_bytes_can_be_read(
            state in states(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        ) {
            let mut bytes = state.encode();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(state) = State::decode(&bytes, PAIRS) {
                // What was taken is one that a device can have.
                prop_assert_eq!(State::decode(&state.encode(), PAIRS), Ok(state));
            }
        }
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        let filter = ReceiveFilter::default();
        let state = State { queue_pairs: 2, wanted: None, filter };
        let bytes = state.encode();
        let reason = |bytes: &[u8], pairs| State::decode(bytes, pairs).unwrap_err().to_string();
        assert!(reason(&bytes, 1).contains("uses 2 queue pairs, the device has 1"));
        let newer = [&bytes[..8], &[9, 0, 0, 0], &bytes[12..]].concat();
        assert!(reason(&newer, 2).contains("version 9"));
        assert!(reason(&[0; 1 << 16], 2).contains("not the state"));
        // More addresses than a table has places for.
        let mut longer = bytes;
        longer[33] = 65;
        longer.resize(4096, 0);
        assert_eq!(State::decode(&longer, 2), Err(StateError::Broken));
    }
}
