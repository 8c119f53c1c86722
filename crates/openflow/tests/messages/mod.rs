//! Messages of a real switch, and of tools that spoke to it, each with what Debian's `ovs-ofctl ofp-print` says of it. The
//! last 44 are of numbers that these did not send in a version, and are made of what they sent in others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

/// Bytes of a line of digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// All of them.
pub fn messages() -> Vec<(Vec<u8>, String)> {
    let mut all: Vec<(Vec<u8>, String)> = Vec::new();
    for line in include_str!("../messages.txt").lines() {
        match (line.split_at_checked(2), all.last_mut()) {
            (Some(("= ", hex)), _) => all.push((bytes(hex), String::new())),
            (text, Some((_, said))) => {
                if !said.is_empty() {
                    said.push('\n');
                }
                *said += text.map_or("", |(_, text)| text);
            }
            _ => panic!("{line}"),
        }
    }
    all
}
