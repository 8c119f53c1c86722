//! The memory layout of a packed ring (virtio 1.3 section 2.8), for both sides.
//!
//! | part | alignment | bytes |
//! |---|---|---|
//! | descriptor ring | 16 | `16 n` |
//! | driver event structure | 4 | 4 |
//! | device event structure | 4 | 4 |

/// Largest number of entries (section 2.8).
pub const MAX_SIZE: u16 = 32_768;

/// `Desc::flags`: the driver's mark; equal to its wrap counter when it made the descriptor
/// available.
pub const AVAIL: u16 = 1 << 7;
/// `Desc::flags`: the device's mark; equal to its wrap counter when it used the descriptor.
pub const USED: u16 = 1 << 15;

/// Event flags: notify always.
pub const EVENT_ENABLE: u16 = 0;
/// Event flags: never notify.
pub const EVENT_DISABLE: u16 = 1;
/// Event flags: notify when the given descriptor is reached; needs EVENT_IDX.
pub const EVENT_DESC: u16 = 2;

/// Where a position carries its wrap counter.
pub const WRAP_BIT: u16 = 1 << 15;

/// A place in the ring: a descriptor's number and the wrap counter that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Less than the ring's size.
    pub index: u16,
    /// Flips each time the ring's end is passed.
    pub wrap: bool,
}

impl Position {
    /// Where a new ring starts (section 2.8.1).
    pub const FIRST: Self = Self { index: 0, wrap: true };

    /// From the form that vhost-user and event structures use: the wrap counter in bit 15.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self { index: bits & !WRAP_BIT, wrap: bits & WRAP_BIT != 0 }
    }

    /// Index and wrap counter in one word.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.index | if self.wrap { WRAP_BIT } else { 0 }
    }

    /// The marks of a used descriptor here, in the upper 16 bits of its second half.
    #[must_use]
    #[inline]
    pub(crate) const fn used_flags(self) -> u64 {
        if self.wrap { ((AVAIL | USED) as u64) << 48 } else { 0 }
    }

    /// `steps` further in a ring of `size`; `steps` is at most `size`. Of more steps, which are from
    /// another ring, come places that mean nothing, but lie in the ring.
    #[must_use]
    #[inline]
    pub const fn after(self, steps: u16, size: u16) -> Self {
        let index = self.index.wrapping_add(steps);
        if index >= size { self.round(index, size) } else { Self { index, wrap: self.wrap } }
    }

    /// What an index stands for that has passed the end of a ring of `size`.
    #[must_use]
    #[inline]
    pub(crate) const fn round(self, passed: u16, size: u16) -> Self {
        let index = passed.wrapping_sub(size);
        Self { index: if index < size { index } else { 0 }, wrap: !self.wrap }
    }
}

/// A descriptor as it lies in memory (little endian).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Desc {
    /// Address of the buffer, as the device sees it.
    pub addr: u64,
    /// Its length in bytes; in a used descriptor, the bytes that the device wrote.
    pub len: u32,
    /// Which buffer this is: the driver's choice, given back by the device.
    pub id: u16,
    /// `DESC_*`, [`AVAIL`] and [`USED`].
    pub flags: u16,
}

const _: () = assert!(size_of::<Desc>() == 16);

impl Desc {
    /// A descriptor of the two words that it consists of.
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "takes the fields of a word apart")]
    pub const fn from_halves(addr: u64, rest: u64) -> Self {
        Self { addr, len: rest as u32, id: (rest >> 32) as u16, flags: (rest >> 48) as u16 }
    }
}

/// The position in an event structure as a number that can be compared with `need_event` against
/// positions of a side whose wrap counter is `wrap`, in a ring of `size` (section 2.8.10).
#[must_use]
#[inline]
pub const fn event_position(off_wrap: u16, wrap: bool, size: u16) -> u16 {
    let index = off_wrap & !WRAP_BIT;
    if (off_wrap & WRAP_BIT != 0) == wrap { index } else { index.wrapping_sub(size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::need_event;

    /// All places of a ring of `size`, in order, both rounds of it.
    fn places(size: u16) -> Vec<Position> {
        let round = |wrap| (0..size).map(move |index| Position { index, wrap });
        round(true).chain(round(false)).collect()
    }

    /// In rings of up to this size all places and steps are tried.
    const SIZES: std::ops::RangeInclusive<u16> = 1..=9;

    #[test]
    fn steps_lead_where_single_ones_do() {
        for size in SIZES {
            let places = places(size);
            for (from, place) in places.iter().enumerate() {
                for steps in 0..=size {
                    let to = places[(from + usize::from(steps)) % places.len()];
                    assert_eq!(place.after(steps, size), to, "{place:?} and {steps} of {size}");
                }
                assert_eq!(Position::from_bits(place.bits()), *place);
            }
        }
    }

    #[test]
    fn no_number_of_steps_leads_out_of_the_ring() {
        for size in SIZES.chain([255, 256, 32_767, MAX_SIZE]) {
            for index in [0, size / 2, size - 1] {
                for steps in 0..=u16::MAX {
                    let at = Position { index, wrap: true }.after(steps, size);
                    assert!(at.index < size, "{index} and {steps} of {size}");
                }
            }
        }
    }

    #[test]
    fn an_event_is_needed_exactly_when_its_place_was_passed() {
        for size in SIZES {
            let places = places(size);
            for old in 0..places.len() {
                for count in 0..=size {
                    let passed: Vec<Position> =
                        (0..count).map(|n| places[(old + usize::from(n)) % places.len()]).collect();
                    let new = places[(old + usize::from(count)) % places.len()];
                    for event in &places {
                        let number = event_position(event.bits(), new.wrap, size);
                        let needed = need_event(number, new.index, new.index.wrapping_sub(count));
                        let wanted = passed.contains(event);
                        assert_eq!(needed, wanted, "{event:?}: {count} to {new:?} of {size}");
                    }
                }
            }
        }
    }
}
