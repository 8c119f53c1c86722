//! Sets of ports.

/// The most ports that a switch can have.
pub const MAX_PORTS: usize = 1024;

/// A set of port numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet([u64; MAX_PORTS.div_ceil(64)]);

impl PortSet {
    /// All ports.
    pub(crate) const ALL: Self = Self([u64::MAX; MAX_PORTS.div_ceil(64)]);

    /// Takes `port` in.
    pub fn insert(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port / 64)) {
            *word |= 1_u64.wrapping_shl(u32::from(port));
        }
    }

    /// Whether `port` is in it.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        let word = self.0.get(usize::from(port / 64)).copied().unwrap_or(0);
        word & 1_u64.wrapping_shl(u32::from(port)) != 0
    }

    /// The ports in it, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..).take(MAX_PORTS).filter(|port| self.contains(*port))
    }

    /// Those that are in either of both.
    pub fn with(&self, other: &Self) -> Self {
        let mut all = *self;
        for (word, more) in all.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        all
    }

    /// Those of them that are not in the other one.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut all = *self;
        for (word, less) in all.0.iter_mut().zip(other.0) {
            *word &= !less;
        }
        all
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        let mut set = Self::default();
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_in_it_or_not() {
        let set: PortSet = [0, 63, 64, 1023, 1024, u16::MAX].into_iter().collect();
        let within: Vec<u16> = (0..=u16::MAX).filter(|port| set.contains(*port)).collect();
        assert_eq!(within, [0, 63, 64, 1023]);
        assert_eq!(set.iter().collect::<Vec<_>>(), within);
        let both = set.with(&[5].into_iter().collect());
        assert!(both.contains(5) && both.contains(1023) && !both.contains(6));
    }
}
