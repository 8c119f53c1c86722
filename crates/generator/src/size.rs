//! Frame sizes and mixes of them.

use std::str::FromStr;

/// Smallest test frame in bytes: the smallest Ethernet frame, without frame check sequence.
pub const MIN_SIZE: usize = 60;

/// Largest frame in bytes that a frame made of private memory can have.
const MAX_SIZE: u16 = u16::MAX;

/// Largest sum of all weights of a mix: it is kept as a list of that many sizes.
const MAX_WEIGHT: usize = 1000;

/// The "simple IMIX" of 64, 594 and 1518 bytes in the ratio 7:4:1, whose sizes count the frame
/// check sequence, which ours do not.
const IMIX: &str = "60:7,590:4,1514:1";

/// Frame sizes in the order in which they are sent, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeMix(Vec<u16>);

impl FromStr for SizeMix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text.eq_ignore_ascii_case("imix") { IMIX } else { text };
        let parts: Vec<(u16, usize)> = text.split(',').map(parse_part).collect::<Result<_, _>>()?;
        let total: usize = parts.iter().map(|(_, weight)| *weight).fold(0, usize::saturating_add);
        if total > MAX_WEIGHT {
            return Err(format!("the weights add up to {total}, expected at most {MAX_WEIGHT}"));
        }
        Ok(Self(interleave(&parts, total)))
    }
}

fn parse_part(part: &str) -> Result<(u16, usize), String> {
    let (size, weight) = part.split_once(':').unwrap_or((part, "1"));
    let size = size.trim().parse().ok().filter(|size| usize::from(*size) >= MIN_SIZE);
    let weight = weight.trim().parse().ok().filter(|weight| *weight > 0);
    size.zip(weight).ok_or_else(|| {
        format!(
            "'{part}': expected {MIN_SIZE} to {MAX_SIZE} bytes, as in 64, a mix as in 64:7,1500:1, \
             or imix"
        )
    })
}

/// Spreads the sizes over the list as evenly as their weights allow: at each place goes the one
/// that is furthest behind its share.
fn interleave(parts: &[(u16, usize)], total: usize) -> Vec<u16> {
    let mut given = vec![0_usize; parts.len()];
    let mut sizes = Vec::with_capacity(total);
    for place in 1..=total {
        let behind =
            parts.iter().zip(&given).enumerate().max_by_key(|(index, ((_, weight), given))| {
                // At most MAX_WEIGHT squared: no overflow. The earlier part wins a tie.
                let share = place.saturating_mul(*weight);
                let had = given.saturating_mul(total);
                (share.wrapping_sub(had).cast_signed(), std::cmp::Reverse(*index))
            });
        let Some((index, ((size, _), _))) = behind else { break };
        sizes.push(*size);
        if let Some(count) = given.get_mut(index) {
            *count = count.saturating_add(1);
        }
    }
    sizes
}

impl SizeMix {
    /// Frames of one size.
    pub fn of(size: u16) -> Self {
        Self(vec![size])
    }

    /// The sizes in bytes in the order of sending; there is at least one.
    pub fn sizes(&self) -> &[u16] {
        &self.0
    }

    /// The smallest size in bytes.
    pub fn smallest(&self) -> usize {
        self.0.iter().copied().min().map_or(MIN_SIZE, usize::from)
    }

    /// The largest size in bytes.
    pub fn largest(&self) -> usize {
        self.0.iter().copied().max().map_or(MIN_SIZE, usize::from)
    }

    /// The mean size in bytes.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.0.iter().copied().map(f64::from).sum();
        sum / crate::approximate(self.0.len().max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_mix_of_one() {
        let mix: SizeMix = "64".parse().unwrap();
        assert_eq!((mix.sizes(), mix.largest()), (&[64][..], 64));
    }

    #[test]
    fn imix_has_its_weights_spread() {
        let mix: SizeMix = "IMIX".parse().unwrap();
        let count = |size| mix.sizes().iter().filter(|other| **other == size).count();
        assert_eq!((mix.sizes().len(), count(60), count(590), count(1514)), (12, 7, 4, 1));
        assert!(!mix.sizes().windows(4).any(|four| four == [60; 4]), "{:?}", mix.sizes());
        assert!((mix.mean() - (60.0 * 7.0 + 590.0 * 4.0 + 1514.0) / 12.0).abs() < 1e-9);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "59", "70000", "64:0", "64:x", "a", "64,", "64:999,1500:2"] {
            assert!(bad.parse::<SizeMix>().is_err(), "{bad}");
        }
    }
}
