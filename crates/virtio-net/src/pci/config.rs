//! The network device's configuration (virtio 1.3 section 5.1.4).

use packet::MacAddr;
use virtio::Features;

use super::registers::Registers;
use crate::control_queue::{MAX_SPREAD, Spread};

const MAC: usize = 0;
const STATUS: usize = 6;
const MAX_PAIRS: usize = 8;
const MTU: usize = 10;
const SPEED: usize = 12;
const TABLE_LEN: usize = 18;
const HASH_TYPES: usize = 20;

/// `status`: the link is up.
const LINK_UP: u16 = 1;
/// `status`: the driver is to announce itself.
const ANNOUNCE: u16 = 2;

/// Hashes of addresses and ports, of IPv4 and IPv6, TCP and UDP (section 5.1.6.4.3.1).
const HASH_TYPES_USED: u32 = 0x3F;

/// What the device says that does not change, as far as the features say it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetConfig {
    /// The station's address.
    pub mac: Option<MacAddr>,
    /// Queue pairs that the device has.
    pub pairs: u16,
    /// Largest MTU in bytes.
    pub mtu: Option<u16>,
    /// Mbit/s.
    pub speed: Option<u32>,
    /// Most entries of the table that spreads flows, and what hashes there are.
    spread: Option<(u16, u32)>,
}

/// The part that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Frames pass.
    pub up: bool,
    /// The device asks the driver to announce itself.
    pub announce: bool,
}

impl NetConfig {
    /// Reads what goes with `features`.
    #[must_use]
    pub fn read(registers: &dyn Registers, features: Features) -> Self {
        let has = |feature| features.contains(feature);
        let word = |offset| {
            let mut bytes = [0; 2];
            registers.read_config(offset, &mut bytes);
            u16::from_le_bytes(bytes)
        };
        let long = |offset| {
            let mut bytes = [0; 4];
            registers.read_config(offset, &mut bytes);
            u32::from_le_bytes(bytes)
        };
        let mut mac = [0; 6];
        if has(Features::MAC) {
            registers.read_config(MAC, &mut mac);
        }
        let mac = MacAddr(mac);
        let usable = has(Features::MAC) && !mac.is_multicast() && mac != MacAddr([0; 6]);
        let several = features.intersects(Features::MQ | Features::RSS);
        // All ones say that it is not known.
        let speed = has(Features::SPEED_DUPLEX).then(|| long(SPEED));
        Self {
            mac: usable.then_some(mac),
            pairs: if several { word(MAX_PAIRS) } else { 1 },
            mtu: has(Features::MTU).then(|| word(MTU)),
            speed: speed.filter(|speed| (1..=i32::MAX.unsigned_abs()).contains(speed)),
            spread: has(Features::RSS).then(|| (word(TABLE_LEN), long(HASH_TYPES))),
        }
    }

    /// How to spread flows over `pairs` queue pairs, where the device can.
    pub(super) fn spread(&self, pairs: u16) -> Option<Spread> {
        let (len, hash_types) = self.spread?;
        // The largest power of two that is not larger.
        let entries = 1_u16.checked_shl(len.min(MAX_SPREAD).checked_ilog2()?)?;
        Some(Spread { pairs, entries, hash_types: hash_types & HASH_TYPES_USED })
    }
}

impl LinkStatus {
    /// The link now. Without STATUS it is up (section 5.1.4.2).
    pub fn read(registers: &dyn Registers, features: Features) -> Self {
        if !features.contains(Features::STATUS) {
            return Self { up: true, announce: false };
        }
        let mut bytes = [0; 2];
        registers.read_config(STATUS, &mut bytes);
        let status = u16::from_le_bytes(bytes);
        let announce = status & ANNOUNCE != 0 && features.contains(Features::GUEST_ANNOUNCE);
        Self { up: status & LINK_UP != 0, announce }
    }
}

/// Writes the address of a legacy device, which has no other way where it has no control queue
/// for that (section 5.1.4.3).
pub(super) fn write_legacy_mac(registers: &dyn Registers, mac: MacAddr) {
    registers.write_config(MAC, &mac.0);
}
