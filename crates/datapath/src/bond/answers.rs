//! What stations answer to which a member of a bond leads, by ARP or IPv6: what workers look at.

use packet::MacAddr;
use packet::headers::{EtherType, IpProtocol};

/// Bytes of an answer that are looked at: one of IPv6 has 86 and a tag, and may have more options.
pub const ANSWER_LEN: usize = 128;

/// The type of an advertisement of a neighbour (RFC 4861 section 4.4).
const ADVERTISEMENT: u8 = 136;

/// Whether a frame that begins with `head` may be an answer to `own`: what workers look at.
pub fn may_answer(head: &[u8], own: MacAddr) -> bool {
    if !head.starts_with(&own.0) {
        return false;
    }
    let word = |at: usize| {
        let two = head.get(at..).and_then(|rest| rest.first_chunk());
        two.map(|two| EtherType(u16::from_be_bytes(*two)))
    };
    let at = if word(12) == Some(EtherType::VLAN) { 16 } else { 12 };
    let byte = |offset: usize| head.get(at + offset).copied();
    match word(at) {
        Some(EtherType::ARP) => true,
        Some(EtherType::IPV6) => {
            byte(8) == Some(IpProtocol::ICMPV6.0) && byte(42) == Some(ADVERTISEMENT)
        }
        _ => false,
    }
}
