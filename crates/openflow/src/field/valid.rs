//! Which values and masks fields may have.

use super::Field;
use crate::port_no::PortNo;

impl Field {
    /// Whether it may have this value.
    #[must_use]
    pub fn is_valid(self, value: u128) -> bool {
        match self {
            Self::InPortOxm | Self::ActsetOutput => {
                u32::try_from(value).is_ok_and(|port| PortNo(port).v10().is_some())
            }
            Self::ArpOp | Self::CtState => value < 0x100,
            Self::NwTos => value & 3 == 0,
            Self::VlanVid => value < 0x2000,
            Self::NshTtl => value < 64,
            Self::NshMdtype => value == 1 || value == 2,
            // Of these, bits without a meaning are left out.
            Self::TunErspanIdx | Self::TunErspanVer | Self::TunErspanDir | Self::TunErspanHwid => {
                true
            }
            _ => value & !self.full_mask() == 0,
        }
    }

    /// Whether a match may have this mask for it.
    #[must_use]
    pub fn is_valid_mask(self, mask: u128) -> bool {
        let all = self.byte_mask();
        self.is_maskable() || mask == 0 || mask & all == all
    }
}

impl Field {
    /// Whether it travels with a packet without being in it, and is kept from table to table.
    #[must_use]
    pub fn is_pipeline(self) -> bool {
        let is_in = |first: Self, last: Self| (first..=last).contains(&self);
        let of_tunnel = is_in(Self::TunId, Self::TunGtpuMsgtype) || self.is_tun_metadata();
        let unnumbered = [Self::TunTtl, Self::TunTos].contains(&self);
        let register = is_in(Self::Reg0, Self::Xxreg3);
        let other = [Self::Metadata, Self::InPort, Self::InPortOxm, Self::PacketType];
        of_tunnel && !unnumbered || register || other.contains(&self)
    }
}
