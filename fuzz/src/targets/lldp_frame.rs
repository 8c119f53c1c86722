//! Frames of LLDP from a neighbour.

use std::time::Duration;

use l2proto::lldp::probe;

/// The Ethernet header of one.
const HEADER: [u8; 14] = [1, 0x80, 0xC2, 0, 0, 14, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xCC];

/// What it has to begin with: a station, a port, and for how long.
const BEGIN: [u8; 17] = [2, 7, 4, 0x52, 0x54, 0, 0, 0, 1, 4, 2, 7, b'p', 6, 2, 0, 120];

/// Plays one input: values of a frame, behind those that have to be there or not.
pub(super) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let begin = if first & 1 == 0 { &[][..] } else { &BEGIN[..] };
    let frame = [&HEADER, begin, rest].concat();
    let Some(found) = probe(&frame) else { return };
    assert!(!found.chassis.1.is_empty() && !found.port.1.is_empty());
    assert!(found.ttl <= Duration::from_secs(u64::from(u16::MAX)));
    assert!(found.addresses.len() <= 4 && found.capabilities.len() <= 16);
    let texts = [&found.port_description, &found.system_name, &found.system_description];
    for text in texts.into_iter().flatten() {
        // Each byte that is no UTF-8 becomes one character.
        assert!(text.chars().count() <= 255, "{text}");
    }
    // It says the same twice, and padding changes nothing where the list has ended.
    assert_eq!(probe(&frame), Some(found));
}
