//! The frame by which a station tells switches where it is now (RFC 903, as VMMs use it after a
//! migration).

use crate::MacAddr;

/// A reverse ARP request of `mac` for its own address, to everybody, as long as the shortest
/// Ethernet frame.
#[must_use]
pub fn announcement(mac: MacAddr) -> [u8; 60] {
    const ETHERTYPE_RARP: [u8; 2] = [0x80, 0x35];
    // Ethernet and IPv4 addresses of 6 and 4 bytes; operation 3, "request reverse".
    const HEADER: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 3];
    let parts: [&[u8]; 8] = [
        &[0xFF; 6],
        &mac.0,
        &ETHERTYPE_RARP,
        &HEADER,
        // Sender and target: this station, whose IP address is not known here.
        &mac.0,
        &[0; 4],
        &mac.0,
        &[0; 4],
    ];
    let mut frame = [0; 60];
    for (to, byte) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *byte;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_broadcast_of_the_station() {
        let frame = announcement(MacAddr([2, 0, 0, 0, 0, 9]));
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x80, 0x35]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!(frame[22..28], frame[32..38]);
        assert_eq!(frame[42..], [0; 18]);
    }
}
