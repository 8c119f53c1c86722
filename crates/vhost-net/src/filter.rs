//! Which frames a guest wants to receive (virtio 1.3 sections 5.1.6.5.1 to 5.1.6.5.3).

use arrayvec::ArrayVec;
use packet::MacAddr;

/// Addresses of one kind that a filter remembers; a driver that sends more gets all frames of
/// that kind, as QEMU does it.
pub const MAX_ADDRESSES: usize = 64;

/// VLAN identifiers that exist (12 bits).
const VLANS: u16 = 4096;

/// One bit per VLAN.
pub(super) type Vlans = [u64; VLANS as usize / 64];

/// A driver's receive filter. Until the driver has sent its first filter command, everything
/// passes: a back-end cannot know the guest's address before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveFilter {
    pub(super) active: bool,
    pub(super) modes: Modes,
    pub(super) mac: Option<MacAddr>,
    pub(super) unicast: Addresses,
    pub(super) multicast: Addresses,
    /// `None` while the driver does not filter VLANs.
    pub(super) vlans: Option<Box<Vlans>>,
}

bitflags::bitflags! {
    /// Receive modes, each a command of its own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Modes: u8 {
        /// Everything.
        const PROMISCUOUS = 1 << 0;
        /// Every multicast frame.
        const ALL_MULTICAST = 1 << 1;
        /// Every unicast frame.
        const ALL_UNICAST = 1 << 2;
        /// No multicast frame but broadcasts.
        const NO_MULTICAST = 1 << 3;
        /// No unicast frame.
        const NO_UNICAST = 1 << 4;
        /// No broadcast frame.
        const NO_BROADCAST = 1 << 5;
    }
}

/// A table of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub(super) list: ArrayVec<MacAddr, MAX_ADDRESSES>,
    pub(super) overflowed: bool,
}

impl Addresses {
    fn contains(&self, mac: MacAddr) -> bool {
        self.overflowed || self.list.contains(&mac)
    }
}

impl FromIterator<MacAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = MacAddr>>(addresses: I) -> Self {
        let mut table = Self::default();
        for mac in addresses {
            table.overflowed |= table.list.try_push(mac).is_err();
        }
        table
    }
}

impl Default for ReceiveFilter {
    fn default() -> Self {
        Self {
            active: false,
            modes: Modes::empty(),
            mac: None,
            unicast: Addresses::default(),
            multicast: Addresses::default(),
            vlans: None,
        }
    }
}

impl ReceiveFilter {
    /// Whether anything is filtered at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        (self.active && !self.modes.contains(Modes::PROMISCUOUS)) || self.vlans.is_some()
    }

    /// The driver's own address, if it has told one.
    #[must_use]
    pub const fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// Switches one receive mode.
    pub fn set_mode(&mut self, mode: Modes, on: bool) {
        self.active = true;
        self.modes.set(mode, on);
    }

    /// Sets the driver's own address.
    pub fn set_mac(&mut self, mac: MacAddr) {
        self.active = true;
        self.mac = Some(mac);
    }

    /// Replaces both address tables.
    pub fn set_tables(&mut self, unicast: Addresses, multicast: Addresses) {
        self.active = true;
        (self.unicast, self.multicast) = (unicast, multicast);
    }

    /// Lets frames of a VLAN pass, or no longer; returns `false` when there is no such VLAN.
    /// The first such command makes the filter refuse every other VLAN.
    pub fn set_vlan(&mut self, vlan: u16, on: bool) -> bool {
        if vlan >= VLANS {
            return false;
        }
        let vlans = self.vlans.get_or_insert_with(|| Box::new([0; VLANS as usize / 64]));
        if let Some(word) = vlans.get_mut(usize::from(vlan / 64)) {
            let bit = 1 << (vlan % 64);
            *word = if on { *word | bit } else { *word & !bit };
        }
        true
    }

    /// Whether the driver wants the frame that starts with the bytes of `head`.
    #[must_use]
    pub fn accepts(&self, head: &[u8]) -> bool {
        let Some((destination, rest)) = head.split_first_chunk::<6>() else { return false };
        self.accepts_vlan(rest) && self.accepts_address(MacAddr(*destination))
    }

    fn accepts_address(&self, to: MacAddr) -> bool {
        let modes = self.modes;
        if !self.active || modes.contains(Modes::PROMISCUOUS) {
            true
        } else if to.is_broadcast() {
            !modes.contains(Modes::NO_BROADCAST)
        } else if to.is_multicast() {
            !modes.contains(Modes::NO_MULTICAST)
                && (modes.contains(Modes::ALL_MULTICAST) || self.multicast.contains(to))
        } else {
            // Before the driver has told its address, any could be it.
            !modes.contains(Modes::NO_UNICAST)
                && (modes.contains(Modes::ALL_UNICAST)
                    || self.mac.is_none_or(|mac| mac == to)
                    || self.unicast.contains(to))
        }
    }

    /// `rest` is what follows the destination address.
    fn accepts_vlan(&self, rest: &[u8]) -> bool {
        let (Some(vlans), Some([0x81, 0x00, high, low])) = (&self.vlans, rest.get(6..10)) else {
            return true;
        };
        let vlan = u16::from_be_bytes([*high, *low]) & (VLANS - 1);
        vlans.get(usize::from(vlan / 64)).is_some_and(|word| word & (1 << (vlan % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const GROUP: MacAddr = MacAddr([1, 0, 0x5E, 0, 0, 1]);

    fn frame(to: MacAddr, tag: &[u8]) -> Vec<u8> {
        [&to.0[..], &[2; 6], tag, &[8, 0, 0]].concat()
    }

    fn accepted(filter: &ReceiveFilter) -> Vec<MacAddr> {
        let all = [OWN, OTHER, GROUP, MacAddr::BROADCAST];
        all.into_iter().filter(|to| filter.accepts(&frame(*to, &[]))).collect()
    }

    #[test]
    fn everything_passes_until_the_driver_says_otherwise() {
        let mut filter = ReceiveFilter::default();
        assert!(!filter.is_active());
        assert_eq!(accepted(&filter).len(), 4);
        filter.set_mac(OWN);
        assert!(filter.is_active());
        assert_eq!(accepted(&filter), [OWN, MacAddr::BROADCAST]);
    }

    #[test]
    fn modes_add_and_take_away() {
        let mut filter = ReceiveFilter::default();
        filter.set_mac(OWN);
        filter.set_mode(Modes::ALL_MULTICAST, true);
        assert_eq!(accepted(&filter), [OWN, GROUP, MacAddr::BROADCAST]);
        filter.set_mode(Modes::NO_MULTICAST, true);
        filter.set_mode(Modes::NO_BROADCAST, true);
        filter.set_mode(Modes::ALL_UNICAST, true);
        assert_eq!(accepted(&filter), [OWN, OTHER]);
        filter.set_mode(Modes::NO_UNICAST, true);
        assert_eq!(accepted(&filter), []);
        filter.set_mode(Modes::PROMISCUOUS, true);
        assert!(!filter.is_active());
        assert_eq!(accepted(&filter).len(), 4);
    }

    #[test]
    fn tables_hold_further_addresses_and_give_up_when_full() {
        let mut filter = ReceiveFilter::default();
        filter.set_mac(OWN);
        filter.set_tables([OTHER].into_iter().collect(), [GROUP].into_iter().collect());
        assert_eq!(accepted(&filter).len(), 4);
        filter.set_tables(Addresses::default(), Addresses::default());
        assert_eq!(accepted(&filter), [OWN, MacAddr::BROADCAST]);
        let many = (0..100).map(|n| MacAddr([2, 1, 0, 0, 0, n]));
        filter.set_tables(many.collect(), Addresses::default());
        assert_eq!(accepted(&filter), [OWN, OTHER, MacAddr::BROADCAST]);
    }

    #[test]
    fn vlans_pass_when_they_were_added() {
        let mut filter = ReceiveFilter::default();
        let tagged = frame(OWN, &[0x81, 0, 0x20, 5]);
        assert!(filter.accepts(&tagged));
        assert!(filter.set_vlan(7, true));
        assert!(!filter.accepts(&tagged) && filter.accepts(&frame(OWN, &[])));
        assert!(filter.set_vlan(5, true));
        assert!(filter.accepts(&tagged), "the priority bits do not count");
        assert!(filter.set_vlan(5, false));
        assert!(!filter.accepts(&tagged));
        assert!(!filter.set_vlan(4096, true));
    }

    #[test]
    fn short_frames_are_refused() {
        assert!(!ReceiveFilter::default().accepts(&[1, 2, 3]));
    }
}
