//! What workers make of the settings of a guard, and of a frame's link layer.

use ethdev::DropReason;
use packet::MacAddr;
use packet::headers::EtherType;
use packet::headers::ethernet::{HEADER_LEN, MAX_TAGS, TAG_LEN};

use super::prefix::Prefix;
use super::set::Ranges;
use super::{BpduGuard, PortGuard};

/// Where messages of spanning tree go: of bridges, of provider bridges (IEEE 802.1Q table 8-1), and
/// those for each VLAN of some vendors (PVST+).
const BPDUS: [[u8; 6]; 3] =
    [[0x01, 0x80, 0xC2, 0, 0, 0], [0x01, 0x80, 0xC2, 0, 0, 8], [0x01, 0, 0x0C, 0xCC, 0xCC, 0xCD]];

/// RARP (RFC 903), by which VMMs announce where a guest is after a migration.
const RARP: EtherType = EtherType(0x8035);

/// Below this it is a length, and an LLC header follows (IEEE 802.3 clause 3.2.6).
const FIRST_ETHERTYPE: u16 = 0x0600;

/// The start of an LLC header that is followed by an organisation's code and a protocol (SNAP).
const SNAP: [u8; 3] = [0xAA, 0xAA, 0x03];

/// The organisations under whose codes the protocol is an EtherType (RFC 1042, IEEE 802.1H).
const ETHERTYPES: [[u8; 3]; 2] = [[0, 0, 0], [0, 0, 0xF8]];

/// Why a frame does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// For this reason.
    For(DropReason),
    /// It ends too soon, or cannot be read: where there is more of it, that may tell.
    Short,
}

/// The settings of a guard, made ready.
#[derive(Debug)]
pub(super) struct Rules {
    /// As 48-bit numbers.
    macs: Ranges<u64>,
    limits_macs: bool,
    pub(super) v4: Ranges<u32>,
    pub(super) v6: Ranges<u128>,
    pub(super) limits_ips: bool,
    pub(super) guards_dhcp: bool,
    pub(super) guards_ra: bool,
    guards_bpdu: bool,
    /// Whether anything behind the Ethernet header matters.
    checks_protocols: bool,
    /// Whether the port was said to have a DHCP server, or a relay: it speaks for others then.
    pub(super) trusts_dhcp: bool,
}

impl From<&PortGuard> for Rules {
    fn from(guard: &PortGuard) -> Self {
        let macs = || guard.allowed_macs.iter().copied();
        let has_v6 = guard.allowed_ips.iter().any(Prefix::is_v6);
        let own = macs().filter(|_| has_v6).map(link_local).map(|address| (address, address));
        let v6 = guard.allowed_ips.iter().filter_map(Prefix::v6);
        Self {
            macs: Ranges::new(macs().map(number).map(|mac| (mac, mac))),
            limits_macs: !guard.allowed_macs.is_empty(),
            v4: Ranges::new(guard.allowed_ips.iter().filter_map(Prefix::v4)),
            v6: Ranges::new(v6.chain(own)),
            limits_ips: !guard.allowed_ips.is_empty(),
            guards_dhcp: guard.guards_dhcp(),
            guards_ra: guard.guards_ra(),
            checks_protocols: !guard.allowed_macs.is_empty()
                || !guard.allowed_ips.is_empty()
                || guard.guards_dhcp()
                || guard.guards_ra(),
            guards_bpdu: guard.bpdu_guard != BpduGuard::Off,
            trusts_dhcp: guard.dhcp_guard == Some(false),
        }
    }
}

/// A MAC address as a 48-bit number.
pub(super) fn number(mac: MacAddr) -> u64 {
    mac.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The link-local address that is made of a MAC address (RFC 4291, appendix A).
fn link_local(mac: MacAddr) -> u128 {
    let [a, b, c, d, e, f] = mac.0;
    u128::from_be_bytes([0xFE, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xFF, 0xFE, d, e, f])
}

impl Rules {
    /// Whether a frame that begins with `head` may come in. One that is shorter than an Ethernet
    /// header is left to the bridge.
    #[inline]
    pub(super) fn check(&self, head: &[u8]) -> Result<(), Denied> {
        let Some((header, rest)) = head.split_first_chunk::<HEADER_LEN>() else { return Ok(()) };
        let [to @ .., a, b, c, d, e, f, g, h] = *header;
        if self.guards_bpdu && BPDUS.contains(&to) {
            return Err(Denied::For(DropReason::Bpdu));
        }
        let source = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        if self.limits_macs && !self.macs.contain(source) {
            return Err(Denied::For(DropReason::MacSpoofed));
        }
        if !self.checks_protocols {
            return Ok(());
        }
        match EtherType(u16::from_be_bytes([g, h])) {
            EtherType::IPV4 => self.check_ipv4(rest, source),
            kind => self.check_other(kind, rest, source),
        }
    }

    /// As `check`, of what is behind the Ethernet header.
    #[inline(never)]
    fn check_other(&self, mut kind: EtherType, mut rest: &[u8], source: u64) -> Result<(), Denied> {
        for _ in 0..MAX_TAGS {
            if kind.is_tag() {
                let (tag, behind) = rest.split_first_chunk::<TAG_LEN>().ok_or(Denied::Short)?;
                kind = EtherType(u16::from_be_bytes([tag[2], tag[3]]));
                rest = behind;
            }
        }
        match kind {
            EtherType::IPV4 => self.check_ipv4(rest, source),
            EtherType::IPV6 => self.check_ipv6(rest, source),
            EtherType::ARP | RARP => self.check_arp(rest, source),
            // Some receivers take off more tags than a bridge looks behind (CVE-2021-27853).
            kind if kind.is_tag() => Err(Denied::For(DropReason::Malformed)),
            kind if self.limits_ips || hides(kind, rest)? => {
                Err(Denied::For(DropReason::OtherProtocol))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is anything to check.
    #[inline]
    pub(super) const fn are_any(&self) -> bool {
        self.checks_protocols || self.guards_bpdu
    }

    /// Whether the port may call itself by MAC address `claimed` in a frame from `source`.
    pub(super) fn may_claim(&self, claimed: MacAddr, source: u64) -> bool {
        let claimed = number(claimed);
        if self.limits_macs { self.macs.contain(claimed) } else { claimed == source }
    }

    /// Whether the port may send from these addresses only, so that it may call itself by no other.
    pub(super) const fn limits_addresses(&self) -> bool {
        self.limits_macs || self.limits_ips
    }
}

/// Whether a frame of a kind other than IP may have IP behind an LLC header, where some receivers
/// find it (CVE-2021-27854, -27861, -27862).
fn hides(EtherType(kind): EtherType, rest: &[u8]) -> Result<bool, Denied> {
    if kind >= FIRST_ETHERTYPE {
        return Ok(false);
    }
    let [a, b, c, rest @ ..] = rest else { return Err(Denied::Short) };
    if [*a, *b, *c] != SNAP {
        return Ok(false);
    }
    let code = rest.first_chunk::<3>().ok_or(Denied::Short)?;
    Ok(ETHERTYPES.contains(code))
}

/// Checks a frame, as bytes, against a guard: for the fuzz target. Returns the name of the reason
/// for which it is dropped.
#[doc(hidden)]
#[must_use]
pub fn probe(guard: &PortGuard, frame: &[u8]) -> Option<&'static str> {
    match Rules::from(guard).check(frame) {
        Ok(()) => None,
        Err(Denied::For(reason)) => Some(reason.name()),
        Err(Denied::Short) => Some(DropReason::Malformed.name()),
    }
}
