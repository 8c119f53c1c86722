//! Frames from a port with a guard.

use switch::PortGuard;
use switch::guard::probe;

use crate::input::Input;

/// The sender's addresses.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const IP: [u8; 4] = [192, 0, 2, 7];

/// Plays one input: a guard, and a frame that begins well or does not.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let guard = guard(&mut input);
    let start = usize::from(input.yes()) * 12;
    let mut frame = [&[0xFF; 6], &MAC[..]].concat();
    frame.truncate(start);
    frame.extend(input.rest());
    let dropped = probe(&guard, &frame);
    check(&guard, &frame, dropped);
    // What is behind a frame that is whole is padding.
    frame.resize(frame.len() + 60, 0);
    check(&guard, &frame, probe(&guard, &frame));
}

fn guard(input: &mut Input<'_>) -> PortGuard {
    let bits = input.byte();
    let option = |bit: u8| {
        [None, Some(false), Some(true)].get(usize::from(bits >> bit & 3)).copied().flatten()
    };
    let mut guard =
        PortGuard { dhcp_guard: option(2), ra_guard: option(4), ..PortGuard::default() };
    if bits & 1 != 0 {
        guard.allowed_macs.insert(packet::MacAddr(MAC));
    }
    if bits & 2 != 0 {
        guard.allowed_ips.insert("192.0.2.7".parse().unwrap());
        guard.allowed_ips.insert("2001:db8::/64".parse().unwrap());
    }
    guard
}

/// What must never pass, whatever else is in the frame.
fn check(guard: &PortGuard, frame: &[u8], dropped: Option<&str>) {
    let Some(mac) = frame.get(6..12).filter(|_| frame.len() >= 14) else { return };
    let is_own = guard.allowed_macs.is_empty() || mac == MAC;
    assert!(is_own || dropped == Some("mac_spoofed"), "{dropped:?}");
    let ip = frame.get(26..30).filter(|_| frame[12..14] == [8, 0] && frame.len() >= 34);
    if let Some(ip) = ip.filter(|_| dropped.is_none() && !guard.allowed_ips.is_empty()) {
        // A discovery of DHCP, to all.
        let is_new = *ip == [0; 4] && frame[30..34] == [0xFF; 4] && frame[23] == 17;
        assert!(*ip == IP || is_new, "{ip:?}");
    }
}
