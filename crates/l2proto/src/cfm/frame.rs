//! Continuity check messages (IEEE 802.1Q-2018 clause 21.6), with Open vSwitch's extension: what is reserved
//! for ITU-T Y.1731 has an interval, a long number and whether it is in operation.

use packet::MacAddr;

/// The group that messages of the standard go to, at level 0 (clause 8.13.18).
pub const GROUP: MacAddr = MacAddr([0x01, 0x80, 0xC2, 0, 0, 0x30]);

/// That of extended ones.
pub const EXTENDED_GROUP: MacAddr = MacAddr([0x01, 0x23, 0x20, 0, 0, 0x30]);

/// Their EtherType (clause 21.1).
pub const ETHERTYPE: u16 = 0x8902;

/// Bytes of a frame, with a tag.
pub const MAX_LEN: usize = ETHERNET + TAG + LEN;

const ETHERNET: usize = 14;
const TAG: usize = 4;
const VLAN: u16 = 0x8100;

/// Bytes of a message, and of one without the end of its TLVs.
const LEN: usize = 75;
const LEAST: usize = 74;

/// The opcode of these messages.
const OPCODE: u8 = 1;

/// Where the first TLV is behind that.
const FIRST_TLV: u8 = 70;

/// The bit by which somebody says that he hears nobody, and those of the interval.
const RDI: u8 = 0x80;
const INTERVAL: u8 = 0x07;

/// The name of the maintenance association: a domain by a string, and an association by a string.
const ASSOCIATION: [u8; 10] = [4, 3, b'o', b'v', b's', 2, 3, b'o', b'v', b's'];

/// A message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Which it is of its sender.
    pub sequence: u32,
    /// The number of that.
    pub mpid: u64,
    /// The code of its interval; 0 with the extension.
    pub interval_code: u8,
    /// Its interval in milliseconds, with the extension.
    pub interval: u16,
    /// Whether it hears nobody.
    pub hears_nobody: bool,
    /// Whether it is out of operation.
    pub is_down: bool,
    /// Whether it is of our maintenance association.
    pub is_ours: bool,
}

impl Message {
    /// The frame, from `own`, with this tag.
    #[must_use]
    pub fn frame(&self, own: MacAddr, is_extended: bool, tag: Option<u16>) -> Vec<u8> {
        let mut frame = Vec::with_capacity(MAX_LEN);
        frame.extend(if is_extended { EXTENDED_GROUP.0 } else { GROUP.0 });
        frame.extend(own.0);
        if let Some(tag) = tag {
            frame.extend(VLAN.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(ETHERTYPE.to_be_bytes());
        let rdi = if self.hears_nobody { RDI } else { 0 };
        frame.extend([0, OPCODE, self.interval_code & INTERVAL | rdi, FIRST_TLV]);
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.short_mpid(is_extended).to_be_bytes());
        let mut association = [0; 48];
        association.iter_mut().zip(ASSOCIATION).for_each(|(to, byte)| *to = byte);
        frame.extend(association);
        frame.extend(self.interval.to_be_bytes());
        frame.extend(if is_extended { self.mpid } else { 0 }.to_be_bytes());
        frame.push(u8::from(is_extended && self.is_down));
        // What is left of the extension, and the end of all TLVs.
        frame.extend([0; 6]);
        frame
    }

    /// The number in 16 bits; with the extension, nobody looks at it.
    fn short_mpid(&self, is_extended: bool) -> u16 {
        let [a, b, c, d, e, f, g, h] = self.mpid.to_be_bytes();
        let low = u16::from_be_bytes([g, h]);
        if !is_extended {
            return low;
        }
        let parts = [[a, b], [c, d], [e, f]].map(u16::from_be_bytes);
        parts.into_iter().fold(low, |all, part| all ^ part)
    }
}

/// Whether a frame that begins with `head` is a message of this kind.
#[must_use]
pub fn is_message(head: &[u8], is_extended: bool) -> bool {
    let group = if is_extended { EXTENDED_GROUP } else { GROUP };
    head.starts_with(&group.0) && body(head).is_some()
}

/// What is behind the headers of a frame of the protocol.
fn body(frame: &[u8]) -> Option<&[u8]> {
    let (ether_type, rest) = frame.get(ETHERNET - 2..)?.split_first_chunk()?;
    match u16::from_be_bytes(*ether_type) {
        ETHERTYPE => Some(rest),
        VLAN => {
            let (inner, rest) = rest.get(2..)?.split_first_chunk()?;
            (u16::from_be_bytes(*inner) == ETHERTYPE).then_some(rest)
        }
        _ => None,
    }
}

/// Reads a frame; `None`: it is no message, or not all of one.
#[must_use]
pub fn parse(frame: &[u8], is_extended: bool) -> Option<Message> {
    let body = body(frame)?.get(..LEAST)?;
    let (head, rest) = body.split_first_chunk::<10>()?;
    let [_, opcode, flags, _, a, b, c, d, high, low] = *head;
    if opcode != OPCODE {
        return None;
    }
    let (association, rest) = rest.split_first_chunk::<48>()?;
    let (interval, rest) = rest.split_first_chunk::<2>()?;
    let (long, rest) = rest.split_first_chunk::<8>()?;
    let short = u64::from(u16::from_be_bytes([high, low]));
    let (name, padding) = association.split_first_chunk::<{ ASSOCIATION.len() }>()?;
    Some(Message {
        sequence: u32::from_be_bytes([a, b, c, d]),
        mpid: if is_extended { u64::from_be_bytes(*long) } else { short },
        interval_code: flags & INTERVAL,
        interval: u16::from_be_bytes(*interval),
        hears_nobody: flags & RDI != 0,
        is_down: is_extended && rest.first().is_some_and(|down| *down != 0),
        is_ours: *name == ASSOCIATION && padding.iter().all(|byte| *byte == 0),
    })
}
