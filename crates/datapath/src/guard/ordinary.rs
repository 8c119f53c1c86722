//! Ordinary packets of IPv4, of which all that a guard looks at is who sends them to whom: most of what
//! guests send, and mostly many of one sender together.

use packet::headers::IpProtocol;

use super::ip::DHCP;
use crate::header::Addresses;

/// `EtherType`, version and length of a header without options.
const IPV4: [u8; 3] = [0x08, 0x00, 0x45];

/// Lengths of the headers of IPv4 and UDP.
const IP_LEN: u16 = 20;
const UDP_LEN: u16 = 8;

/// What decides about such a packet: those that have the same of it all come in, or none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ordinary {
    addresses: Addresses,
    source: u32,
}

impl Ordinary {
    /// That of a frame that begins with `head`; `None` where more may have to be looked at.
    #[inline(always)]
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let start = head.first_chunk::<34>()?;
        let len = u16::from_be_bytes([start[16], start[17]]);
        if [start[12], start[13], start[14]] != IPV4 || len < IP_LEN {
            return None;
        }
        let is_first = u16::from_be_bytes([start[20], start[21]]) & 0x1FFF == 0;
        let is_udp = IpProtocol(start[23]) == IpProtocol::UDP;
        if is_udp && is_first && !is_ordinary_udp(head, len) {
            return None;
        }
        let source = u32::from_ne_bytes([start[26], start[27], start[28], start[29]]);
        Some(Self { addresses: Addresses::read(start.first_chunk()?)?, source })
    }
}

/// Whether a packet of `len` bytes has all of the header of UDP, and is for no server or client of DHCP.
#[inline(always)]
fn is_ordinary_udp(head: &[u8], len: u16) -> bool {
    let Some([.., a, b, c, d, _, _]) = head.first_chunk::<42>() else { return false };
    let (port, udp_len) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    len >= IP_LEN + UDP_LEN && udp_len >= UDP_LEN && !DHCP.contains(&port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rules::{Denied, Rules};
    use super::super::{BpduGuard, PortGuard};
    use super::*;

    /// Guards that look at all that there is.
    fn guards() -> [PortGuard; 3] {
        let macs =
            PortGuard { allowed_macs: [packet::MacAddr([2; 6])].into(), ..PortGuard::default() };
        let ips = ["192.0.2.7".parse().unwrap(), "2001:db8::/64".parse().unwrap()];
        let all =
            PortGuard { allowed_ips: ips.into(), bpdu_guard: BpduGuard::Drop, ..macs.clone() };
        let servers = PortGuard { dhcp_guard: Some(true), ..PortGuard::default() };
        [macs, all, servers]
    }

    /// Packets of UDP or TCP of few addresses, some for servers of DHCP, with some bytes changed.
    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let changes = prop::collection::vec((0..60_usize, any::<u8>()), 0..3);
        let protocol = prop::sample::select(vec![6_u8, 17]);
        let port = prop::sample::select(vec![67_u8, 68, 80]);
        let to = prop::sample::select(vec![[4; 6], [1, 0x80, 0xC2, 0, 0, 0]]);
        let parts = (to, 1..3_u8, 6..8_u8, protocol, port, 0..2_u8, changes);
        let long = prop_oneof![3 => Just(60_usize), 1 => 14..60_usize];
        (parts, long).prop_map(|((to, mac, ip, protocol, port, fragment, changes), long)| {
            let mut bytes = vec![0; 60];
            bytes[..6].copy_from_slice(&to);
            bytes[6..12].fill(mac);
            bytes[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 46]);
            (bytes[21], bytes[23]) = (fragment, protocol);
            bytes[26..30].copy_from_slice(&[192, 0, 2, ip]);
            (bytes[37], bytes[39]) = (port, 26);
            changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
            bytes.truncate(long);
            bytes
        })
    }

    proptest! {
        #[test]
        fn packets_that_look_alike_come_in_alike(first in packet(), second in packet()) {
            let [one, other] = [&first, &second].map(|bytes| Ordinary::of(bytes));
            for guard in guards() {
                let rules = Rules::from(&guard);
                let checked = [&first, &second].map(|bytes| rules.check(bytes));
                if one.is_some() && one == other {
                    prop_assert_eq!(checked[0], checked[1]);
                }
                prop_assert!(one.is_none() || checked[0] != Err(Denied::Short));
            }
        }
    }

    #[test]
    fn most_packets_are_ordinary() {
        let mut bytes = vec![0; 60];
        bytes[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 46]);
        (bytes[23], bytes[37], bytes[39]) = (17, 80, 26);
        assert!(Ordinary::of(&bytes).is_some());
        for (at, byte) in [(12, 0x81), (14, 0x46), (17, 27), (37, 67), (37, 68), (39, 7)] {
            let before = std::mem::replace(&mut bytes[at], byte);
            assert_eq!(Ordinary::of(&bytes), None, "{at}: {byte}");
            bytes[at] = before;
        }
        assert_eq!((Ordinary::of(&bytes[..41]), Ordinary::of(&bytes[..33])), (None, None));
        bytes[23] = 6;
        assert!(Ordinary::of(&bytes[..34]).is_some());
    }
}
