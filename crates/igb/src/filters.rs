//! Which frames the device receives: addresses, groups, VLANs.

use packet::MacAddr;

use super::hardware::Hardware;
use super::registers::{
    CTRL, MTA, RAH_VALID, RCTL, Registers, TABLE_WORDS, VFTA, ctrl, rctl, receive_address,
};

/// Which frames to groups are received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// All of them.
    All,
    /// These, and others whose hash is that of one of these. Broadcasts are received in any case.
    Only(Vec<MacAddr>),
}

/// What becomes of VLAN tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vlans {
    /// Frames come and go as they are.
    Any,
    /// Only frames of these VLANs, and those without a tag, are received, as they are.
    Only(Vec<u16>),
    /// Only frames of this VLAN are received, without their tag; those sent get one.
    Access(u16),
}

impl Vlans {
    /// The VLAN whose tag the port takes off and puts on.
    pub(super) const fn access(&self) -> Option<u16> {
        match self {
            Self::Access(vlan) => Some(*vlan),
            Self::Any | Self::Only(_) => None,
        }
    }
}

/// What of this is kept in RCTL.
pub(super) fn receive_bits(promiscuous: bool, groups: &Groups, vlans: &Vlans) -> u32 {
    let mut bits = 0;
    if promiscuous {
        bits |= rctl::UPE | rctl::MPE;
    }
    if *groups == Groups::All {
        bits |= rctl::MPE;
    }
    if *vlans != Vlans::Any {
        bits |= rctl::VFE;
    }
    bits
}

impl<R: Registers> Hardware<R> {
    /// Makes `address` the port's own.
    pub(super) fn set_address(&self, address: MacAddr) {
        let [a, b, c, d, e, f] = address.0;
        let [low, high] = receive_address(0);
        self.write(low, u32::from_le_bytes([a, b, c, d]));
        self.write(high, u32::from_le_bytes([e, f, 0, 0]) | RAH_VALID);
    }

    /// Fills the multicast table (82576 datasheet, 7.1.2.2).
    pub(super) fn set_groups(&self, groups: &Groups) {
        let mut table = [0_u32; TABLE_WORDS];
        if let Groups::Only(addresses) = groups {
            for address in addresses {
                set_bit(&mut table, group_hash(*address));
            }
        }
        self.write_table(MTA, &table);
    }

    /// Fills the VLAN filter and says whether tags are stripped.
    pub(super) fn set_vlans(&self, vlans: &Vlans) {
        let mut table = [0_u32; TABLE_WORDS];
        let ids = match vlans {
            Vlans::Any => &[][..],
            Vlans::Only(ids) => ids,
            Vlans::Access(id) => std::slice::from_ref(id),
        };
        for id in ids {
            set_bit(&mut table, *id);
        }
        self.write_table(VFTA, &table);
        match vlans.access() {
            Some(_) => self.change(CTRL, ctrl::VME, 0),
            None => self.change(CTRL, 0, ctrl::VME),
        }
    }

    /// Changes which frames are received while the device is running.
    pub(super) fn set_receive_bits(&self, bits: u32) {
        self.change(RCTL, bits, rctl::UPE | rctl::MPE | rctl::VFE);
    }

    fn write_table(&self, first: super::registers::Register, table: &[u32; TABLE_WORDS]) {
        for (index, word) in table.iter().enumerate() {
            self.write(first.at(index), *word);
        }
    }
}

fn set_bit(table: &mut [u32; TABLE_WORDS], bit: u16) {
    if let Some(word) = table.get_mut(usize::from(bit >> 5)) {
        *word |= 1 << (bit & 31);
    }
}

/// A group address's place in the multicast table: its last 12 bits (RCTL.MO = 0).
fn group_hash(address: MacAddr) -> u16 {
    let [.., e, f] = address.0;
    u16::from_le_bytes([e, f]) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_their_place() {
        // The example of the 82576 datasheet, 7.1.2.2: the last two bytes 0x56 and 0x34.
        assert_eq!(group_hash("12:78:90:12:34:56".parse().unwrap()), 0x563);
        let mut table = [0; TABLE_WORDS];
        set_bit(&mut table, 0xFFF);
        set_bit(&mut table, 0x1000);
        assert_eq!((table[127], table[..127].iter().sum::<u32>()), (1 << 31, 0));
    }

    #[test]
    fn bits_follow_what_is_wanted() {
        let some = Groups::Only(Vec::new());
        assert_eq!(receive_bits(true, &some, &Vlans::Any), rctl::UPE | rctl::MPE);
        assert_eq!(receive_bits(false, &Groups::All, &Vlans::Any), rctl::MPE);
        assert_eq!(receive_bits(false, &some, &Vlans::Access(5)), rctl::VFE);
    }
}
