//! Translation: packets of a connection get other addresses and ports, and so does what errors have of the
//! packets that they are about.

use std::net::IpAddr;

use conntrack::{Translation, Tuple};
use packet::Open;
use packet::checksum::update;
use packet::headers::{IpProtocol, Ipv4, Ipv6};

use super::{Covers, IPV4, Layered, SCTP};
use crate::key::{FRAG_LATER, slot};

/// The header of ICMP, behind which errors have the packet that they are about.
const ICMP_LEN: usize = 8;

/// Where in a header of ICMP the identifier is.
const IDENTIFIER: usize = 4;

/// Translates a frame whose ends were found to be those before; returns whether it could be done: what is
/// changed has to be in the head.
pub fn translate(translation: &Translation, frame: &mut Open<'_>) -> bool {
    let Translation { before, after, is_error } = *translation;
    let mut layered = Layered::new(frame);
    let addresses = layered.translate_addresses(&before, &after);
    let rest = match is_error {
        // What is behind addresses is in the first fragment.
        _ if layered.is_later() => Some(()),
        false => layered.translate_numbers(&before, &after),
        // That packet went the other way.
        true => layered.translate_inner(&before.reversed(), &after.reversed()),
    };
    (addresses, rest) == (Some(()), Some(()))
}

/// An address that is changed, if it is.
fn changed(before: IpAddr, after: IpAddr) -> Option<IpAddr> {
    (before != after).then_some(after)
}

/// Words of an address, and where each is behind its first one.
fn words_of(address: IpAddr) -> impl Iterator<Item = (usize, u16)> {
    let (bits, count) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 2_usize),
        IpAddr::V6(address) => (address.to_bits(), 8),
    };
    (0..count).map(move |at| {
        let word = bits >> (112 - at * 16) & 0xFFFF;
        (at * 2, u16::try_from(word).unwrap_or_default())
    })
}

/// What an error has of the packet that it is about: where its parts are.
struct Inner {
    source: usize,
    destination: usize,
    /// The checksum of the header.
    header_sum: Option<usize>,
    transport: usize,
    protocol: IpProtocol,
    is_v6: bool,
    /// Where the error ends: what is behind that is padding.
    end: usize,
}

impl Inner {
    fn parse(is_v6: bool, (at, end): (usize, usize), head: &[u8]) -> Option<Self> {
        let bytes = head.get(at..)?;
        if !is_v6 {
            let ip = Ipv4::parse(bytes)?;
            let transport = at + ip.header_len();
            let (source, destination) = (at + 12, at + 16);
            let (header_sum, protocol) = (Some(at + 10), ip.protocol());
            return Some(Self { source, destination, header_sum, transport, protocol, is_v6, end });
        }
        let upper = Ipv6::parse(bytes)?.upper()?;
        let transport = at + 40 + upper.extensions_len;
        let (source, destination, protocol) = (at + 8, at + 24, upper.protocol);
        Some(Self { source, destination, header_sum: None, transport, protocol, is_v6, end })
    }

    /// Where the checksum of the layer above is, and whether it is over addresses, too. Errors need not
    /// have as much of the packet (RFC 792).
    fn sum(&self) -> Option<(usize, bool)> {
        let (at, has_addresses) = match self.protocol {
            IpProtocol::TCP => (16, true),
            IpProtocol::UDP => (6, true),
            IpProtocol::ICMP if !self.is_v6 => (2, false),
            IpProtocol::ICMPV6 if self.is_v6 => (2, true),
            _ => return None,
        };
        let at = self.transport + at;
        (at + 2 <= self.end).then_some((at, has_addresses))
    }
}

impl Layered<'_, '_> {
    /// Whether it is a fragment other than the first one.
    fn is_later(&self) -> bool {
        self.key.get_u8(slot::IP_FRAG) & FRAG_LATER != 0
    }

    fn translate_addresses(&mut self, before: &Tuple, after: &Tuple) -> Option<()> {
        let (source, destination) = if self.is(IPV4) { (12, 16) } else { (8, 24) };
        let ends = [
            (source, changed(before.source(), after.source())),
            (destination, changed(before.destination(), after.destination())),
        ];
        for (at, address) in ends {
            let at = self.network(at);
            for (behind, word) in address.into_iter().flat_map(words_of) {
                self.put_word(at + behind, word, Covers::Addresses)?;
            }
        }
        Some(())
    }

    /// Ports, or the identifier of ICMP.
    fn translate_numbers(&mut self, before: &Tuple, after: &Tuple) -> Option<()> {
        // How long all of the packet is, over which the checksum of SCTP is, no fragment says.
        let is_sctp = self.key.get_u8(slot::IP_PROTO) == SCTP;
        let is_part = is_sctp && self.key.get_u8(slot::IP_FRAG) != 0;
        for (at, number) in numbers(before, after) {
            let at = self.transport(at).filter(|_| !is_part)?;
            self.put_word(at, number, Covers::Transport)?;
        }
        Some(())
    }

    /// The same of the packet that an error is about, whose ends were these before.
    fn translate_inner(&mut self, before: &Tuple, after: &Tuple) -> Option<()> {
        let is_v6 = !self.is(IPV4);
        let (at, end) = (self.transport(ICMP_LEN)?, self.end()?);
        let inner = Inner::parse(is_v6, (at, end), self.frame.head())?;
        for (at, address) in [
            (inner.source, changed(before.source(), after.source())),
            (inner.destination, changed(before.destination(), after.destination())),
        ] {
            for (behind, word) in address.into_iter().flat_map(words_of) {
                self.put_inner(&inner, at + behind, word, true)?;
            }
        }
        for (at, number) in numbers(before, after) {
            self.put_inner(&inner, inner.transport + at, number, false)?;
        }
        Some(())
    }

    /// Writes a word of the packet that an error is about, an address or part of what is behind it; the
    /// checksums there are mended, and that of the error.
    fn put_inner(&mut self, inner: &Inner, at: usize, word: u16, is_address: bool) -> Option<()> {
        let old = self.word(at)?;
        self.put_word(at, word, Covers::Transport)?;
        if let Some(sum) = inner.header_sum.filter(|_| is_address) {
            let mended = update(self.word(sum)?, old, word);
            self.put_word(sum, mended, Covers::Transport)?;
        }
        let sum = inner.sum().filter(|(_, has_addresses)| *has_addresses || !is_address);
        // None may have been made (RFC 768).
        if let Some((place, sum)) = sum.and_then(|(at, _)| Some((at, self.word(at)?)))
            && !(sum == 0 && inner.protocol == IpProtocol::UDP)
        {
            let mended = match update(sum, old, word) {
                0 if inner.protocol == IpProtocol::UDP => 0xFFFF,
                mended => mended,
            };
            self.put_word(place, mended, Covers::Transport)?;
        }
        Some(())
    }

    fn word(&self, at: usize) -> Option<u16> {
        let bytes = self.frame.head().get(at..)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*bytes))
    }

    /// Writes a word; `None` if it is not in the head.
    fn put_word(&mut self, at: usize, word: u16, covers: Covers) -> Option<()> {
        self.word(at)?;
        self.put::<2>(at, 0xFFFF, word.into(), covers);
        Some(())
    }
}

/// The ports that are changed, or the identifier, and where each is in the header of the layer above.
fn numbers(before: &Tuple, after: &Tuple) -> impl Iterator<Item = (usize, u16)> {
    let all = match (before.query(), after.query()) {
        (Some((id, _)), Some((new, _))) => [(IDENTIFIER, id, new), (0, 0, 0)],
        _ => {
            let ((from, to), (new_from, new_to)) = (before.ports(), after.ports());
            [(0, from, new_from), (2, to, new_to)]
        }
    };
    let differs = |(at, old, new): (usize, u16, u16)| (old != new).then_some((at, new));
    all.into_iter().filter_map(differs)
}

#[cfg(test)]
mod tests;
