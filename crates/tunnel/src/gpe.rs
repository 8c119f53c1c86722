//! What VXLAN's header says of what is inside: the generic protocol extension (draft-ietf-nvo3-vxlan-gpe).

use packet::headers::EtherType;

use crate::meta::Inner;

/// The flag P: what is inside is said.
pub(crate) const NEXT: u8 = 0x04;

/// The flags of a version, and that the packet is for the end of the tunnel itself.
const VERSION: u8 = 0x30;
const OAM: u8 = 0x01;

/// EtherType of the network service header (RFC 8300).
const NSH: EtherType = EtherType(0x894F);

/// The numbers of what is inside.
const KNOWN: [(u8, Inner); 4] = [
    (1, Inner::Bare(EtherType::IPV4)),
    (2, Inner::Bare(EtherType::IPV6)),
    (3, Inner::Ethernet),
    (4, Inner::Bare(NSH)),
];

/// What is inside by these flags, and by this number; `None`: nobody knows.
pub(crate) fn inner(flags: u8, next: u8) -> Option<Inner> {
    let found = KNOWN.iter().find(|(number, _)| *number == next);
    found.filter(|_| flags & (VERSION | OAM) == 0).map(|(_, inner)| *inner)
}

/// The number of what is inside; `None`: it has none.
pub(crate) fn next(inner: Inner) -> Option<u8> {
    KNOWN.iter().find(|(_, known)| *known == inner).map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_has_a_number() {
        for (number, known) in KNOWN {
            assert_eq!((inner(0x0C, number), next(known)), (Some(known), Some(number)));
        }
        assert_eq!(next(Inner::Bare(EtherType(0x8847))), None);
        for (flags, number) in [(0x0C, 0), (0x0C, 5), (0x1C, 1), (0x0D, 1)] {
            assert_eq!(inner(flags, number), None, "{flags:#x}, {number}");
        }
    }
}
