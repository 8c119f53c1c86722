//! What is said of a frame that was mirrored into a tunnel: ERSPAN of types II and III
//! (draft-foschiano-erspan-03), which Open vSwitch calls versions 1 and 2.

use crate::meta::Meta;

/// What GRE says of what follows.
const TYPES: [u16; 2] = [0x88BE, 0x22EB];

/// The header of both versions begins with a version, a VLAN and a session.
pub(crate) const BASE: usize = 4;

/// What of its second half is behind it in the second version: 8 bytes more that a platform has defined.
pub(crate) const HAS_MORE: u8 = 1;

/// The largest session.
pub(crate) const MAX_SESSION: u64 = 0x3FF;

/// What is said of a mirrored frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Erspan {
    /// 1 or 2; what the other one has is 0.
    pub version: u8,
    /// Of version 1: where the frame was mirrored, 20 bits.
    pub index: u32,
    /// Of version 2: 0 of what came in there, 1 of what went out.
    pub direction: u8,
    /// Of version 2: what has mirrored it, 6 bits.
    pub hardware: u8,
}

impl Erspan {
    /// The largest index.
    pub const MAX_INDEX: u32 = 0xF_FFFF;

    /// The largest number of hardware.
    pub const MAX_HARDWARE: u8 = 0x3F;

    /// The version that GRE announces by this.
    pub(crate) fn announced(ether_type: u16) -> Option<u8> {
        match TYPES.iter().position(|own| *own == ether_type)? {
            0 => Some(1),
            _ => Some(2),
        }
    }

    /// What GRE says of it; `None` if there is no such version.
    pub(crate) fn ether_type(self) -> Option<u16> {
        let [first, second] = TYPES;
        match self.version {
            1 => Some(first),
            2 => Some(second),
            _ => None,
        }
    }

    /// The header, as long as its version has it, in a session, and without a time.
    pub(crate) fn header(self, session: u64) -> Option<([u8; 12], usize)> {
        let [.., high, low] = session.to_be_bytes();
        let first = [self.version << 4, 0, high & 3, low];
        let [_, a, b, c] = (self.index & Self::MAX_INDEX).to_be_bytes();
        let (upper, lower) = (self.hardware >> 4 & 3, self.hardware << 4);
        let [d, e, f, g] = first;
        match self.version {
            1 => Some(([d, e, f, g, 0, a, b, c, 0, 0, 0, 0], 8)),
            2 => {
                let last = lower | (self.direction & 1) << 3;
                Some(([d, e, f, g, 0, 0, 0, 0, 0, 0, upper, last], 12))
            }
            _ => None,
        }
    }

    /// Notes what the first half of a header of this version says; `None` if it is of another.
    pub(crate) fn base(
        version: u8,
        [first, _, high, low]: [u8; BASE],
        meta: &mut Meta,
    ) -> Option<()> {
        meta.key = Some(u16::from_be_bytes([high & 3, low]).into());
        (first >> 4 == version).then_some(())
    }

    /// What the second half of the first version says.
    pub(crate) const fn first(half: [u8; 4]) -> Self {
        let index = u32::from_be_bytes(half) & Self::MAX_INDEX;
        Self { version: 1, index, direction: 0, hardware: 0 }
    }

    /// What the second half of the second version says.
    pub(crate) const fn second([.., upper, lower]: [u8; 8]) -> Self {
        let (direction, hardware) = (lower >> 3 & 1, (upper & 3) << 4 | lower >> 4);
        Self { version: 2, index: 0, direction, hardware }
    }
}

/// What a port says of frames that go into its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErspanSettings {
    /// The version.
    pub version: Said,
    /// The index.
    pub index: Said,
    /// The direction.
    pub direction: Said,
    /// The number of hardware.
    pub hardware: Said,
}

impl ErspanSettings {
    /// The first version, and nothing else.
    pub const USUAL: Self = {
        let none = Said::Is(0);
        Self { version: Said::Is(1), index: none, direction: none, hardware: none }
    };

    /// What is said where rules have said this.
    #[must_use]
    pub(crate) fn of(&self, wish: Erspan) -> Erspan {
        let byte =
            |said: Said, wished: u8| u8::try_from(said.of(wished.into())).unwrap_or_default();
        let version = byte(self.version, wish.version);
        let of = |own: u8| version == own;
        Erspan {
            version,
            index: if of(1) { self.index.of(wish.index) } else { 0 },
            direction: if of(2) { byte(self.direction, wish.direction) } else { 0 },
            hardware: if of(2) { byte(self.hardware, wish.hardware) } else { 0 },
        }
    }
}

/// A part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// This.
    Is(u32),
    /// Whatever rules say.
    Flow,
}

impl Said {
    const fn of(self, wished: u32) -> u32 {
        match self {
            Self::Is(own) => own,
            Self::Flow => wished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_draft() {
        let one = Erspan { version: 1, index: 0x12345, ..Erspan::default() };
        assert_eq!(one.header(0x27B).unwrap().0[..8], [0x10, 0, 2, 0x7B, 0, 1, 0x23, 0x45]);
        assert_eq!(Erspan::first([0xFF, 0xF1, 0x23, 0x45]), one);
        let two = Erspan { version: 2, direction: 1, hardware: 0x17, ..Erspan::default() };
        let (header, len) = two.header(0x237).unwrap();
        assert_eq!((header, len), ([0x20, 0, 2, 0x37, 0, 0, 0, 0, 0, 0, 1, 0x78], 12));
        assert_eq!(Erspan::second([1, 2, 3, 4, 5, 6, 1, 0x78]), two);
        assert_eq!(Erspan { version: 3, ..two }.header(1), None);
        assert_eq!((one.ether_type(), Erspan::announced(0x22EB)), (Some(0x88BE), Some(2)));
    }

    #[test]
    fn a_port_says_what_it_is_set_to_or_what_rules_say() {
        let wish = Erspan { version: 2, index: 5, direction: 1, hardware: 7 };
        let usual = ErspanSettings::USUAL;
        assert_eq!(usual.of(wish), Erspan { version: 1, ..Erspan::default() });
        let index = ErspanSettings { index: Said::Flow, ..usual };
        assert_eq!(index.of(wish), Erspan { version: 1, index: 5, ..Erspan::default() });
        let flow = ErspanSettings {
            version: Said::Flow,
            index: Said::Flow,
            direction: Said::Flow,
            hardware: Said::Is(9),
        };
        assert_eq!(flow.of(wish), Erspan { index: 0, hardware: 9, ..wish });
    }
}
