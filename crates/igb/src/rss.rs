//! Receive-side scaling: which queue a flow's frames go to (82576 datasheet, 7.1.1.7).
//!
//! The hash is Microsoft's ("Verifying the RSS Hash Calculation"), so that the queue of any frame
//! can be told beforehand.

use std::net::IpAddr;

use super::hardware::Hardware;
use super::registers::{MRQC, RETA, RSSRK, Registers, mrqc};

/// Bytes of a key.
pub const KEY_LEN: usize = 40;

/// Entries of the table from hashes to queues.
pub const TABLE_LEN: usize = 128;

/// The key that Microsoft's test vectors are for, and that nearly every driver knows.
pub const DEFAULT_KEY: [u8; KEY_LEN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// What frames are hashed by.
const FIELDS: u32 = mrqc::TCP_IPV4
    | mrqc::IPV4
    | mrqc::TCP_IPV6_EX
    | mrqc::IPV6
    | mrqc::TCP_IPV6
    | mrqc::UDP_IPV4
    | mrqc::UDP_IPV6;

/// How received frames are spread over queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The key of the hash.
    pub key: [u8; KEY_LEN],
    /// The queue for each value of the hash's last 7 bits.
    pub table: [u8; TABLE_LEN],
}

impl Spread {
    /// Over queues in the order of `pattern`, again and again; queue 0 for an empty one.
    #[must_use]
    pub fn new(key: [u8; KEY_LEN], pattern: &[u8]) -> Self {
        let mut table = [0; TABLE_LEN];
        for (entry, queue) in table.iter_mut().zip(pattern.iter().cycle()) {
            *entry = *queue;
        }
        Self { key, table }
    }

    /// The queue of frames from `source` to `destination`, of which TCP and UDP have ports. Other
    /// frames (and fragments of those) are hashed by addresses alone, and what is no IP goes to
    /// queue 0.
    #[must_use]
    pub fn queue_of(&self, source: IpAddr, destination: IpAddr, ports: Option<(u16, u16)>) -> u8 {
        let hash = toeplitz(&self.key, &hashed_bytes(source, destination, ports));
        self.table.get(hash as usize % TABLE_LEN).copied().unwrap_or(0)
    }
}

/// What is hashed of a flow: addresses, then ports, in network order.
#[must_use]
pub fn hashed_bytes(source: IpAddr, destination: IpAddr, ports: Option<(u16, u16)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(36);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    if let Some((source, destination)) = ports {
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
    }
    bytes
}

/// The Toeplitz hash: for each bit of `input` that is set, the 32 bits of `key` that start there.
/// Input past the key's length (36 bytes) has no say.
#[must_use]
pub fn toeplitz(key: &[u8; KEY_LEN], input: &[u8]) -> u32 {
    let mut bits = key.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut window = bits.by_ref().take(32).fold(0, |window, bit| window << 1 | u32::from(bit));
    let mut hash = 0;
    for byte in input {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= window;
            }
            window = window << 1 | u32::from(bits.next().unwrap_or(0));
        }
    }
    hash
}

impl<R: Registers> Hardware<R> {
    /// Spreads received frames over queues.
    pub(super) fn set_spread(&self, spread: &Spread) {
        for (index, bytes) in spread.key.chunks_exact(4).enumerate() {
            self.write(RSSRK.at(index), word(bytes));
        }
        for (index, bytes) in spread.table.chunks_exact(4).enumerate() {
            self.write(RETA.at(index), word(bytes));
        }
        self.write(MRQC, mrqc::RSS | FIELDS);
    }
}

/// The first four bytes as a register has them.
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source, destination, hash by addresses, hash by ports as well: Microsoft's vectors.
    const VECTORS: [(&str, u16, &str, u16, u32, u32); 9] = [
        ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e_8fc2, 0x51cc_c178),
        ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718_262a, 0xc626_b0ea),
        ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0_a5de, 0x5c2b_394a),
        ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x8298_9176, 0xafc7_327f),
        ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d18_09c5, 0x10e8_28a2),
        ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc1_8cd5, 0x4020_7d3d),
        ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c_461c, 0xdde5_1bbf),
        (
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            "fe80::200:f8ff:fe21:67cf",
            38024,
            0x4b61_e985,
            0x02d1_feef,
        ),
        ("0.0.0.0", 0, "0.0.0.0", 0, 0, 0),
    ];

    #[test]
    fn hashes_are_those_of_the_published_vectors() {
        for (source, from, destination, to, by_address, by_port) in &VECTORS {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let plain = hashed_bytes(source, destination, None);
            assert_eq!(toeplitz(&DEFAULT_KEY, &plain), *by_address, "{source}");
            let ports = hashed_bytes(source, destination, Some((*from, *to)));
            assert_eq!(toeplitz(&DEFAULT_KEY, &ports), *by_port, "{source}");
        }
    }

    #[test]
    fn patterns_repeat_over_the_table() {
        let spread = Spread::new(DEFAULT_KEY, &[0, 1, 2]);
        assert_eq!(spread.table[..4], [0, 1, 2, 0]);
        assert_eq!(spread.table[127], 1);
        assert_eq!(Spread::new(DEFAULT_KEY, &[]).table, [0; TABLE_LEN]);
    }
}
