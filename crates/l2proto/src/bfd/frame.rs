//! Packets of BFD (RFC 5880, section 4.1) over UDP and IPv4 (RFC 5881, section 4).

use packet::{MacAddr, checksum::checksum};

use super::{Bfd, BfdDiag, BfdFlags, BfdState, SOURCE};

/// Where packets go, as Open vSwitch sends them.
pub const NEIGHBOUR: MacAddr = MacAddr([0x00, 0x23, 0x20, 0, 0, 0x01]);

/// The UDP port of control packets.
const PORT: u16 = 3_784;

/// What hop limit they have: one that has not passed a router (RFC 5082).
const TTL: u8 = 255;

/// Network control, as their type of service.
const TOS: u8 = 0xC0;

const VERSION: u8 = 1;
const UDP: u8 = 17;
const ETHERNET: usize = 14;
const TAG: usize = 4;
const IP: usize = 20;

/// Bytes of a control packet.
const LEN: u8 = 24;

/// Bytes of a frame with one, a tag and all options that an IP header can have.
pub const MAX_LEN: usize = ETHERNET + TAG + 60 + 8 + LEN as usize;

/// A control packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Its version of the protocol.
    pub version: u8,
    /// Why the session was not up.
    pub diag: BfdDiag,
    /// The state of it.
    pub state: BfdState,
    /// Flags.
    pub flags: BfdFlags,
    /// How many packets may be missing.
    pub mult: u8,
    /// How long it says that it is.
    pub len: u8,
    /// The number by which its sender knows the session.
    pub own: u32,
    /// That by which the other side does.
    pub other: u32,
    /// How often it sends at most, and can receive, in microseconds.
    pub min_tx: u32,
    /// How often it can receive at most, in microseconds.
    pub min_rx: u32,
}

impl Packet {
    /// One without anything, of our version.
    #[must_use]
    pub fn new() -> Self {
        Self { version: VERSION, len: LEN, ..Self::default() }
    }

    /// Why nobody may take it for one of a session (RFC 5880, section 6.8.6), as far as it says so itself.
    ///
    /// # Errors
    /// What is wrong.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.version != VERSION {
            return Err("Incorrect version");
        }
        if self.flags.has(BfdFlags::AUTH) {
            return Err("Authenticated control message with authentication disabled");
        }
        if self.len < LEN {
            return Err("Unexpected length");
        }
        if self.mult == 0 {
            return Err("Zero multiplier");
        }
        if self.flags.has(BfdFlags::MULTIPOINT) {
            return Err("Unsupported multipoint flag");
        }
        if self.own == 0 {
            return Err("NULL my_disc");
        }
        Ok(())
    }

    /// The frame that it is sent in by a session that is set so, from port `own` and UDP port `from`.
    #[must_use]
    pub fn frame(&self, settings: &Bfd, own: MacAddr, from: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET + IP + 8 + usize::from(LEN));
        frame.extend(settings.local_dst_mac.unwrap_or(NEIGHBOUR).0);
        frame.extend(settings.local_src_mac.unwrap_or(own).0);
        frame.extend([0x08, 0x00]);
        let udp_len = 8 + u16::from(LEN);
        let total = (20 + udp_len).to_be_bytes();
        let mut ip = [0; IP];
        let addresses = [settings.src_ip.octets(), settings.dst_ip.octets()];
        let head = [0x45, TOS, total[0], total[1], 0, 0, 0, 0, TTL, UDP, 0, 0];
        let all = head.into_iter().chain(addresses.into_iter().flatten());
        ip.iter_mut().zip(all).for_each(|(to, byte)| *to = byte);
        let [high, low] = checksum(&ip).to_be_bytes();
        (ip[10], ip[11]) = (high, low);
        frame.extend(ip);
        // Without a checksum, as it may be over IPv4.
        [from, PORT, udp_len, 0].iter().for_each(|part| frame.extend(part.to_be_bytes()));
        frame.extend([
            self.version << 5 | self.diag.0 & 0x1F,
            (self.state as u8) << 6 | self.flags.0 & 0x3F,
            self.mult,
            self.len,
        ]);
        let parts = [self.own, self.other, self.min_tx, self.min_rx, 0];
        parts.iter().for_each(|part| frame.extend(part.to_be_bytes()));
        frame
    }
}

/// The IP header of a frame, and what is behind it; `None`: it is no IPv4, or a later fragment.
fn ip(frame: &[u8]) -> Option<(&[u8; IP], &[u8])> {
    let (ether_type, rest) = frame.get(ETHERNET - 2..)?.split_first_chunk::<2>()?;
    let packet = match u16::from_be_bytes(*ether_type) {
        0x0800 => rest,
        0x8100 => rest.get(2..)?.strip_prefix(&[0x08, 0x00])?,
        _ => return None,
    };
    let (head, _) = packet.split_first_chunk::<IP>()?;
    let (words, offset) = (head[0] & 0xF, u16::from_be_bytes([head[6], head[7]]) & 0x1FFF);
    let behind = packet.get(usize::from(words).checked_mul(4)?..)?;
    (head[0] >> 4 == 4 && words >= 5 && offset == 0).then_some((head, behind))
}

/// Whether a frame that begins with `head` is for a session that is set so; `key` is that of the tunnel it
/// has come by, 0 if it has come by none.
#[must_use]
pub fn is_for(head: &[u8], key: u64, settings: &Bfd) -> bool {
    if settings.check_tnl_key && key != 0 {
        return false;
    }
    let is_to = settings.remote_dst_mac.is_none_or(|mac| head.starts_with(&mac.0));
    let Some((ip, behind)) = ip(head).filter(|_| is_to) else { return false };
    let is_port = behind.get(2..4) == Some(&PORT.to_be_bytes());
    let is_address = settings.src_ip == SOURCE || ip[16..] == settings.src_ip.octets();
    ip[9] == UDP && is_port && is_address
}

/// Reads a frame that [is for](is_for) a session; `None`: it is not all there, or has passed a router.
#[must_use]
pub fn parse(frame: &[u8]) -> Option<Packet> {
    let (ip, behind) = ip(frame)?;
    if ip[8] != TTL {
        return None;
    }
    let (head, rest) = behind.get(8..)?.split_first_chunk::<4>()?;
    let (words, _) = rest.split_first_chunk::<20>()?;
    let mut words = words.chunks_exact(4).map(|word| match word {
        &[a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    });
    let mut next = || words.next().unwrap_or_default();
    Some(Packet {
        version: head[0] >> 5,
        diag: BfdDiag(head[0] & 0x1F),
        state: match head[1] >> 6 {
            0 => BfdState::AdminDown,
            1 => BfdState::Down,
            2 => BfdState::Init,
            _ => BfdState::Up,
        },
        flags: BfdFlags(head[1] & 0x3F),
        mult: head[2],
        len: head[3],
        own: next(),
        other: next(),
        min_tx: next(),
        min_rx: next(),
    })
}
