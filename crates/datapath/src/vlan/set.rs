//! Sets of VLANs.

use std::fmt;
use std::str::FromStr;

/// The largest VLAN id; 4095 is reserved (IEEE 802.1Q table 9-2).
pub const MAX_VLAN: u16 = 4094;

/// Numbers in one word of the set.
const WORD: usize = u64::BITS as usize;

/// Words of a set.
const WORDS: usize = (MAX_VLAN as usize + 1).div_ceil(WORD);

/// A set of VLAN ids, 0 to [`MAX_VLAN`]. VLAN 0 is that of frames without a tag where a port has no
/// other for them.
///
/// ```
/// use datapath::vlan::VlanSet;
///
/// let set: VlanSet = "10,20-22".parse()?;
/// assert!(set.contains(21) && !set.contains(11));
/// assert_eq!(set.to_string(), "10,20-22");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VlanSet(Box<[u64; WORDS]>);

impl VlanSet {
    /// A set without VLANs.
    #[must_use]
    pub fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Adds a VLAN; returns whether there is such a one.
    pub fn insert(&mut self, vlan: u16) -> bool {
        let (word, bit) = place(vlan);
        match self.0.get_mut(word).filter(|_| vlan <= MAX_VLAN) {
            Some(word) => {
                *word |= bit;
                true
            }
            None => false,
        }
    }

    /// Adds all VLANs of another set.
    pub fn extend(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(other.0.iter()) {
            *word |= more;
        }
    }

    /// Whether the VLAN is in the set.
    #[must_use]
    #[inline]
    pub fn contains(&self, vlan: u16) -> bool {
        let (word, bit) = place(vlan);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether no VLAN is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// All VLANs in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..=MAX_VLAN).filter(|vlan| self.contains(*vlan))
    }

    /// The set as ranges of neighbours, in order.
    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for vlan in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if vlan.checked_sub(1) == Some(*last) => *last = vlan,
                _ => ranges.push((vlan, vlan)),
            }
        }
        ranges
    }
}

/// The word of a VLAN, and its bit there.
#[inline]
const fn place(vlan: u16) -> (usize, u64) {
    (vlan as usize / WORD, 1_u64.wrapping_shl(vlan as u32 % u64::BITS))
}

impl Default for VlanSet {
    fn default() -> Self {
        Self::new()
    }
}

impl FromStr for VlanSet {
    type Err = String;

    /// Parses ids and ranges of them, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = Self::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (parse_vlan(first.trim())?, parse_vlan(last.trim())?);
            if first > last {
                return Err(format!("VLANs {part}: the range ends before it begins"));
            }
            for vlan in first..=last {
                set.insert(vlan);
            }
        }
        Ok(set)
    }
}

/// Parses a VLAN id.
///
/// # Errors
/// It is none; the message says what was expected.
pub fn parse_vlan(text: &str) -> Result<u16, String> {
    let vlan = text.parse::<u16>().ok().filter(|vlan| *vlan <= MAX_VLAN);
    vlan.ok_or_else(|| format!("VLAN '{text}': expected a number from 0 to {MAX_VLAN}"))
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VlanSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_are_read() {
        for text in ["0", "4094", "1-3,5,7-8", "0-4094", "63-64"] {
            assert_eq!(text.parse::<VlanSet>().unwrap().to_string(), text);
        }
        let set: VlanSet = " 7, 5 - 6,5".parse().unwrap();
        assert_eq!((set.to_string().as_str(), set.iter().count()), ("5-7", 3));
        assert!(
            set.contains(5) && !set.contains(4) && !set.contains(4095) && !set.contains(u16::MAX)
        );
    }

    #[test]
    fn what_is_no_vlan_is_refused_by_name() {
        let error = |text: &str| text.parse::<VlanSet>().unwrap_err();
        for bad in ["4095", "", "1,", "-", "1-", "x", "1-2-3", "70000", "-1"] {
            assert!(error(bad).contains("expected a number from 0 to 4094"), "{bad}");
        }
        assert_eq!(error("4095"), "VLAN '4095': expected a number from 0 to 4094");
        assert_eq!(error("9-8"), "VLANs 9-8: the range ends before it begins");
        assert!(!VlanSet::new().insert(4095) && VlanSet::new().is_empty());
    }
}
