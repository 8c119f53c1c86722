//! A fragment: which packet it is of, and which part of that.

use std::net::IpAddr;

use packet::headers::{Ipv4, Ipv6};

use super::Fragment;
use crate::dissect::{IPV4, IPV6};

/// The most bytes that the payload of a packet has.
const MOST: usize = u16::MAX as usize;

/// What fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// What its sender has numbered it with.
    pub id: u32,
    /// Its protocol, in IPv4; in IPv6 only the first fragment says it, and this is 0.
    pub protocol: u8,
    /// Where it is tracked.
    pub zone: u16,
    /// The table that it goes on with, and one more; 0: none.
    pub next: u16,
    /// Its tags, as in [`Fragment::tags`].
    pub tags: [u32; 2],
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) whole: Whole,
    /// Its bytes in the payload that was divided.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) has_more: bool,
    /// The length of what is before that, from the header of IP on, and of all of it.
    pub(super) before: usize,
    pub(super) len: usize,
}

impl Part {
    /// Looks at a fragment. `None` if it is none, or such as nobody makes: of no bytes, cut where no other one
    /// can go on, or behind the end of all packets.
    pub(super) fn parse(fragment: &Fragment) -> Option<Self> {
        let bytes = fragment.frame.get(fragment.network..)?;
        let part = match fragment.ether_type {
            IPV4 => Self::parse_v4(bytes, fragment),
            IPV6 => Self::parse_v6(bytes, fragment),
            _ => None,
        }?;
        let Self { start, end, has_more, before, .. } = part;
        let is_right = start < end && before + end <= MOST;
        (is_right && (!has_more || (end - start).is_multiple_of(8))).then_some(part)
    }

    fn parse_v4(bytes: &[u8], &Fragment { zone, next, tags, .. }: &Fragment) -> Option<Self> {
        let ip = Ipv4::parse(bytes)?;
        let (len, before) = (usize::from(ip.total_len()), ip.header_len());
        if !ip.is_fragment() || len > bytes.len() {
            return None;
        }
        let whole = Whole {
            source: ip.source().into(),
            destination: ip.destination().into(),
            id: ip.identification().into(),
            protocol: ip.protocol().0,
            zone,
            next,
            tags,
        };
        let start = ip.fragment_offset();
        let end = start + len.checked_sub(before)?;
        Some(Self { whole, start, end, has_more: ip.more_fragments(), before, len })
    }

    fn parse_v6(bytes: &[u8], &Fragment { zone, next, tags, .. }: &Fragment) -> Option<Self> {
        let ip = Ipv6::parse(bytes)?;
        let part = ip.fragment().filter(|_| ip.is_complete())?;
        let (source, destination) = (ip.source().into(), ip.destination().into());
        let id = part.identification;
        let whole = Whole { source, destination, id, protocol: 0, zone, next, tags };
        let (start, before) = (part.offset, 40 + part.extensions_len);
        let (end, len) = (start + part.payload.len(), before + part.payload.len());
        Some(Self { whole, start, end, has_more: part.has_more, before, len })
    }
}
