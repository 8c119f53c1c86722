//! What becomes of a frame, in the words of `ofproto/trace`.
//!
//! - `headers`: what differs between headers

mod headers;

use std::fmt::Write as _;

use packet::MacAddr;

/// The most tags that are looked at.
const MAX_TAGS: usize = 8;

/// Types of tags (IEEE 802.1Q clause 9.5).
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// The tags of a frame, outermost first: type and content.
type Stack = Vec<(u16, u16)>;

/// The tags of a frame.
fn tags(frame: &[u8]) -> Stack {
    let words = frame.get(12..).unwrap_or_default().as_chunks::<4>().0.iter();
    let words =
        words.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
    words.take_while(|(kind, _)| TAGS.contains(kind)).take(MAX_TAGS).collect()
}

/// Actions of a datapath by which `frame` goes out as it does on each port, known by its number there:
/// `drop` where there are none. Where rules decide, it goes out in the order of `outputs`.
#[must_use]
pub fn actions(frame: &[u8], outputs: &[(String, Vec<u8>)], is_ordered: bool) -> String {
    let (mut now, mut was) = (tags(frame), frame);
    let mut places: Vec<(Stack, &str, &[u8])> = outputs
        .iter()
        .map(|(port, frame)| (tags(frame), port.as_str(), frame.as_slice()))
        .collect();
    if !is_ordered {
        // First those that have it as it came, and then what is alike together.
        let is_changed = |stack: &Stack| (*stack != now, stack.len(), stack.clone());
        places.sort_by_key(|(stack, ..)| is_changed(stack));
    }
    let mut actions = Vec::new();
    for (wanted, port, frame) in places {
        headers::change((was, now.len()), (frame, wanted.len()), &mut actions);
        change(&mut now, &wanted, &mut actions);
        actions.push(port.to_owned());
        was = frame;
    }
    if actions.is_empty() { "drop".to_owned() } else { actions.join(",") }
}

/// Adds what makes the tags `wanted` of those that are there `now`.
fn change(now: &mut Stack, wanted: &Stack, actions: &mut Vec<String>) {
    while !wanted.ends_with(now) {
        now.remove(0);
        actions.push("pop_vlan".to_owned());
    }
    let more = wanted.len().saturating_sub(now.len());
    for (kind, content) in wanted.iter().take(more).rev() {
        let (vid, pcp) = (content & 0xfff, content >> 13);
        let kind = if *kind == 0x8100 { String::new() } else { format!("tpid={kind:#06x},") };
        actions.push(format!("push_vlan({kind}vid={vid},pcp={pcp})"));
    }
    now.clone_from(wanted);
}

/// What a bridge looks at of a frame that comes in on the port of this number.
#[must_use]
pub fn describe(port: &str, frame: &[u8]) -> String {
    let mac = |at: usize| {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk::<6>());
        MacAddr(bytes.copied().unwrap_or_default())
    };
    let stack = tags(frame);
    let mut text = format!("in_port={port}");
    match stack.first() {
        None => text += ",vlan_tci=0x0000",
        Some((_, content)) => {
            let _ = write!(text, ",dl_vlan={},dl_vlan_pcp={}", content & 0xfff, content >> 13);
        }
    }
    let at = 12_usize.saturating_add(stack.len().saturating_mul(4));
    let kind = frame.get(at..).and_then(|rest| rest.first_chunk::<2>());
    let kind = kind.map_or(0, |kind| u16::from_be_bytes(*kind));
    // What is less is a length (IEEE 802.3 clause 3.2.6).
    let kind = if kind < 0x600 { 0 } else { kind };
    let _ = write!(text, ",dl_src={},dl_dst={},dl_type={kind:#06x}", mac(6), mac(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: &[(u16, u16)]) -> Vec<u8> {
        let tags = tags
            .iter()
            .flat_map(|(kind, content)| [kind.to_be_bytes(), content.to_be_bytes()].concat());
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2].into_iter().chain(tags).chain([0x08, 0x06]).collect()
    }

    #[test]
    fn tags_are_popped_and_pushed_between_outputs() {
        let (plain, ten) = (frame(&[]), frame(&[(0x8100, 0x200a)]));
        let outputs = |places: &[(&str, &Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
            places.iter().map(|(port, frame)| ((*port).to_owned(), (*frame).clone())).collect()
        };
        let all = outputs(&[("1", &plain), ("2", &ten), ("3", &plain)]);
        assert_eq!(actions(&plain, &all, false), "1,3,push_vlan(vid=10,pcp=1),2");
        assert_eq!(actions(&ten, &all, false), "2,pop_vlan,1,3");
        assert_eq!(actions(&plain, &all, true), "1,push_vlan(vid=10,pcp=1),2,pop_vlan,3");
        assert_eq!(actions(&ten, &[], false), "drop");
        let double = frame(&[(0x88a8, 5), (0x8100, 0x200a)]);
        let other = frame(&[(0x8100, 7)]);
        let pushed = "push_vlan(tpid=0x88a8,vid=5,pcp=0),1";
        assert_eq!(actions(&ten, &outputs(&[("1", &double)]), false), pushed);
        let changed = "pop_vlan,pop_vlan,push_vlan(vid=7,pcp=0),1";
        assert_eq!(actions(&double, &outputs(&[("1", &other)]), false), changed);
    }

    #[test]
    fn a_frame_is_told_by_what_a_bridge_looks_at() {
        let macs = "dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01,dl_type=0x0806";
        assert_eq!(describe("1", &frame(&[])), format!("in_port=1,vlan_tci=0x0000,{macs}"));
        let tagged = frame(&[(0x8100, 0x200a)]);
        assert_eq!(
            describe("LOCAL", &tagged),
            format!("in_port=LOCAL,dl_vlan=10,dl_vlan_pcp=1,{macs}")
        );
        assert!(describe("1", &[1]).ends_with("dl_type=0x0000"));
    }
}
