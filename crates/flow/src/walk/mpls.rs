//! Labels of MPLS (RFC 3032): three of them are looked at, as in Open vSwitch.
//!
//! Like tags they are put on and taken off once the packet is handed on, and only those that are not
//! there already. So a label that is put on and taken off again is none, whatever the packet was to be
//! then: it is what it was.
//!
//! What is behind the last label is in the key all the time, though no rule can see it as long as the
//! EtherType says MPLS: so a packet whose labels are taken off need not be looked at again.

use arrayvec::ArrayVec;
use openflow::field::Prerequisite;
use openflow::packet_in::Reason;
use openflow::{Action, Field};

use super::{Kind, NO_METER, State, Walk, tags};
use crate::extract::LAST_LABEL;
use crate::key::{INSIDE, Key, Slot, slot};
use crate::path::{Edit, Lost};

/// The places of labels, the outermost first.
const LABELS: [Slot; 3] = [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2];

/// Labels that say what is behind them (RFC 3032, section 2.1).
pub(super) const IPV6_EXPLICIT_NULL: u32 = 2;

/// The time to live of a label in front of what has none.
pub(super) const TTL: u32 = 64;

pub(super) const fn is_mpls(ether_type: u16) -> bool {
    matches!(ether_type, 0x8847 | 0x8848)
}

/// The labels of a packet, with all that belongs to them, the outermost first: three at most.
#[must_use]
pub fn labels(key: &Key) -> ArrayVec<u32, 3> {
    if !is_mpls(key.get_u16(slot::ETH_TYPE)) {
        return ArrayVec::new();
    }
    let mut entries = ArrayVec::from(LABELS.map(|slot| key.get_u32(slot)));
    match entries.iter().position(|entry| entry & LAST_LABEL != 0) {
        Some(last) => entries.truncate(last + 1),
        None => entries.retain(|entry| *entry != 0),
    }
    entries
}

/// What a packet had when it was last made to be what its key says.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    before: ArrayVec<u32, 3>,
    /// What it carried.
    ether_type: u16,
    /// Some were put on, or taken off, since then.
    is_other: bool,
}

impl Labels {
    /// Those that a packet comes with.
    pub(super) fn new(key: &Key) -> Self {
        Self { before: labels(key), ether_type: key.get_u16(slot::ETH_TYPE), is_other: false }
    }

    /// Puts one on, in front of all.
    pub(super) fn put(&mut self, key: &mut Key, entry: u32, ether_type: u16) {
        let [first, second, third] = LABELS;
        key.set(third, key.get(second));
        key.set(second, key.get(first));
        key.set(first, entry.into());
        key.set(slot::ETH_TYPE, ether_type.into());
        self.is_other = true;
    }

    /// Takes so many off.
    pub(super) fn take(&mut self, key: &mut Key, count: usize, ether_type: u16) {
        let before = labels(key);
        LABELS.into_iter().for_each(|slot| key.set(slot, 0));
        for (slot, entry) in LABELS.into_iter().zip(before.into_iter().skip(count)) {
            key.set(slot, entry.into());
        }
        key.set(slot::ETH_TYPE, ether_type.into());
        self.is_other = true;
    }

    /// By how many bytes the packet is to grow, and by how many to shrink.
    pub(super) fn growth(&self, key: &Key) -> (u32, u32) {
        if !self.is_other {
            return (0, 0);
        }
        let bytes = |labels: usize| u32::try_from(labels * 4).unwrap_or_default();
        let (before, now) = (self.before.len(), labels(key).len());
        (bytes(now.saturating_sub(before)), bytes(before.saturating_sub(now)))
    }

    /// The changes that make the packet's labels those of its key: innermost ones that are the same stay.
    /// Nothing if none was put on or taken off.
    pub(super) fn edits(&mut self, key: &Key) -> Option<ArrayVec<Edit, 6>> {
        if !self.is_other {
            return None;
        }
        let (now, ether_type) = (labels(key), key.get_u16(slot::ETH_TYPE));
        let pairs = self.before.iter().rev().zip(now.iter().rev());
        let mut kept = pairs.take_while(|(a, b)| a == b).count();
        let (mut edits, tags) = (ArrayVec::new(), tags::count(key));
        for left in (kept..self.before.len()).rev() {
            if let Some(entry) = now.iter().rev().nth(kept).filter(|_| left == kept) {
                edits.push(set_outermost(*entry));
                kept += 1;
                continue;
            }
            let ether_type = if now.is_empty() && left > 0 { 0x8847 } else { ether_type };
            edits.push(Edit::PopMpls { tags, ether_type });
        }
        let new = now.iter().rev().skip(kept);
        edits.extend(new.map(|entry| Edit::PushMpls { tags, ether_type, entry: *entry }));
        let is_put = |edit: &Edit| !matches!(edit, Edit::Set { .. });
        if edits.iter().any(is_put) {
            self.ether_type = ether_type;
        }
        (self.before, self.is_other) = (now, false);
        Some(edits)
    }
}

fn set_outermost(entry: u32) -> Edit {
    let word = u8::try_from(slot::MPLS_LSE.word()).unwrap_or_default();
    Edit::Set { word, mask: u64::from(u32::MAX) << 32, value: u64::from(entry) << 32 }
}

impl Walk<'_> {
    /// Puts a label on: a copy of the outermost, or one that says what is behind it.
    pub(super) fn push_mpls(&mut self, ether_type: u16) {
        let key = &self.state.key;
        let count = labels(key).len();
        if count == LABELS.len() {
            return self.too_many("an MPLS push action", "would have");
        }
        let entry = match count {
            0 => first_label(key),
            _ => key.get_u32(slot::MPLS_LSE) & !LAST_LABEL,
        };
        if count == 0 {
            self.flush();
        }
        let State { key, labels, .. } = &mut self.state;
        if count == 0 {
            let own = key.get_u16(slot::ETH_TYPE);
            let inside = INSIDE.iter().skip(1).position(|kind| *kind == own);
            key.set(slot::INSIDE, inside.map_or(0, |at| at as u128 + 1));
        }
        labels.put(key, entry, ether_type);
    }

    /// Takes the outermost label off, if there is one; all of them, where no label follows by what the
    /// packet is to be then.
    pub(super) fn pop_mpls(&mut self, ether_type: u16) {
        let before = labels(&self.state.key);
        let Some(last) = before.last() else { return };
        let is_last = last & LAST_LABEL != 0;
        if before.is_full() && !is_last {
            // The one behind it is not known.
            return self.too_many("an MPLS pop action", "has");
        }
        let State { key, labels, .. } = &mut self.state;
        let count = if is_mpls(ether_type) { 1 } else { before.len() };
        labels.take(key, count, ether_type);
        if !is_mpls(ether_type) {
            self.see_inside(ether_type, is_last);
        }
    }

    /// Makes the packet what it is without labels: `ether_type`, if that is so, and no more is behind
    /// them; or what it was if it had none.
    fn see_inside(&mut self, ether_type: u16, is_all: bool) {
        let own = self.state.labels.before.is_empty().then_some(self.state.labels.ether_type);
        self.flush();
        let key = &mut self.state.key;
        let inside = INSIDE.get(usize::from(key.get_u8(slot::INSIDE)));
        match own {
            Some(own) => key.set(slot::ETH_TYPE, own.into()),
            None if !is_all || inside != Some(&ether_type) => forget_inside(key),
            None => {}
        }
        key.set(slot::INSIDE, 0);
        self.state.is_uncovered = true;
    }

    /// Whether the packet is looked at anew before something asks what is behind its tags: as Open vSwitch does once
    /// labels are gone. That finds what is known here, unless there are more tags than rules see.
    pub(super) fn must_look(&mut self) -> bool {
        if !std::mem::take(&mut self.state.is_uncovered) {
            return false;
        }
        self.settle();
        tags::count(&self.state.key) > self.pipeline.vlans.tags()
    }

    pub(super) fn too_many(&mut self, what: &str, has: &str) {
        self.note(
            Kind::Error,
            format_args!(
                "dropping packet on which {what} can't be performed as it {has} more MPLS LSEs \
                 than the {} supported.",
                LABELS.len()
            ),
        );
        self.error = Some(Lost::TooManyLabels);
    }

    /// Writes to the outermost label, if there is one.
    pub(super) fn write_label(&mut self, slot: Slot, value: u32) {
        if is_mpls(self.state.key.get_u16(slot::ETH_TYPE)) {
            self.put(slot, value.into());
        }
    }

    /// Takes one from its time to live; returns whether the packet goes on.
    pub(super) fn dec_mpls_ttl(&mut self) -> bool {
        if !is_mpls(self.state.key.get_u16(slot::ETH_TYPE)) {
            return true;
        }
        let ttl = self.state.key.get_u8(slot::MPLS_TTL);
        if ttl > 1 {
            self.put(slot::MPLS_TTL, u128::from(ttl - 1));
            return true;
        }
        self.controller((u16::MAX, 0), Reason::INVALID_TTL, &[], NO_METER);
        false
    }
}

/// Whether an action may ask what is behind tags: for Open vSwitch, all but what only sends packets or writes what is before
/// that.
pub(super) fn looks_inside(action: &Action) -> bool {
    use Action::{Enqueue, Group, Load, Output, OutputField, OutputTruncated, SetField};
    use Action::{SetEthDst, SetEthSrc, SetQueue, SetTunnel, SetVlanPcp, SetVlanVid};
    use Prerequisite::{Ethernet, Mpls, Nothing, Tracked, Vlan};
    let is_behind =
        |field: Field| !matches!(field.prerequisite(), Nothing | Ethernet | Vlan | Mpls | Tracked);
    match action {
        Output { .. } | OutputTruncated { .. } | OutputField { .. } | Enqueue { .. } => false,
        SetVlanVid { .. } | SetVlanPcp { .. } | SetEthSrc(_) | SetEthDst(_) => false,
        SetTunnel { .. } | SetQueue(_) | Group(_) => false,
        SetField { field, .. } => is_behind(*field),
        Load { target, .. } => is_behind(target.field),
        _ => true,
    }
}

/// The label of a packet that has none yet: its class and time to live are the packet's.
fn first_label(key: &Key) -> u32 {
    let ether_type = key.get_u16(slot::ETH_TYPE);
    let label = if ether_type == 0x86DD { IPV6_EXPLICIT_NULL } else { 0 };
    let (mut class, mut ttl) = (0, TTL);
    if matches!(ether_type, 0x0800 | 0x86DD) {
        // As Open vSwitch has it: the lower half of the service code point.
        class = key.get_u32(slot::IP_DSCP) & 7;
        ttl = Some(key.get_u32(slot::IP_TTL)).filter(|ttl| *ttl != 0).unwrap_or(TTL);
    }
    label << 12 | class << 9 | LAST_LABEL | ttl
}

/// What was behind the labels is not what it is said to be: none of its fields is there.
pub(super) fn forget_inside(key: &mut Key) {
    let slots = [
        slot::IPV4_SRC,
        slot::IPV4_DST,
        slot::TP_SRC,
        slot::TP_DST,
        slot::TCP_FLAGS,
        slot::IP_PROTO,
        slot::IP_TOS,
        slot::IP_TTL,
        slot::IPV6_LABEL,
        slot::ND_RESERVED,
        slot::IPV6_SRC,
        slot::IPV6_DST,
        slot::ND_TARGET,
        slot::ARP_SHA,
        slot::ARP_THA,
        slot::ND_OPTIONS_TYPE,
        slot::IP_FRAG,
    ];
    slots.into_iter().for_each(|slot| key.set(slot, 0));
}

#[cfg(test)]
mod tests {
    use openflow::Match;

    use super::*;
    use crate::extract::{Depth, extract};
    use crate::path::Op;
    use crate::rewrite::rewrite;
    use crate::walk::tests::{output, pipeline};
    use crate::walk::{Start, walk};
    use packet::{EditRoom, Frame};

    const PUSH: Action = Action::PushMpls { ethertype: 0x8847 };

    /// A datagram with some labels in front of it: of each its number and time to live.
    fn frame(labels: &[(u32, u8)]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(if labels.is_empty() { [0x08, 0x00] } else { [0x88, 0x47] });
        for (at, (label, ttl)) in labels.iter().enumerate() {
            let last = if at + 1 == labels.len() { LAST_LABEL } else { 0 };
            frame.extend((label << 12 | last | u32::from(*ttl)).to_be_bytes());
        }
        let ip = [0x45, 0xB8, 0, 32, 0, 0, 0, 0, 9, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut ip = ip.to_vec();
        let sum = packet::checksum::checksum(&ip).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        frame.extend(ip);
        frame.extend([0, 7, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
        frame
    }

    /// What comes out of a port of a frame, by rules of the first two tables.
    fn sent(rules: &[(u8, u16, Match, Vec<Action>)], frame: &[u8]) -> Option<Vec<u8>> {
        all_sent(rules, frame).pop()
    }

    /// All that comes out.
    fn all_sent(rules: &[(u8, u16, Match, Vec<Action>)], frame: &[u8]) -> Vec<Vec<u8>> {
        let mut key = Key::default();
        key.set(slot::IN_PORT, 1);
        extract(&mut key, frame, frame.len(), 1, Depth::All);
        key.set_frame_len(frame.len());
        let pipeline = pipeline(rules);
        let path = walk(&pipeline, &mut key, &Start::Table, None);
        let mut room = EditRoom::default();
        let mut editing = room.begin();
        let mut open = editing.open(&Frame::from_bytes(frame)).unwrap();
        let mut all = Vec::new();
        for op in &path.ops {
            match op {
                Op::Edit(edit) => assert!(rewrite(edit, &mut open)),
                Op::Output(_) => all.push(open.head().to_vec()),
                Op::Save | Op::Restore if path.ops.iter().all(|op| *op != Op::Restore) => {}
                other => panic!("{other:?}"),
            }
        }
        all
    }

    fn by(actions: &[Action]) -> Vec<(u8, u16, Match, Vec<Action>)> {
        let actions = actions.iter().cloned().chain([output(2)]).collect();
        vec![(0, 0, Match::new(), actions)]
    }

    fn pop(ethertype: u16) -> Action {
        Action::PopMpls { ethertype }
    }

    #[test]
    fn labels_are_put_on_and_taken_off() {
        // The first one has the packet's class and time to live.
        let mut once = frame(&[(0, 9)]);
        once[16] |= 6 << 1;
        assert_eq!(sent(&by(&[PUSH]), &frame(&[])).unwrap(), once);
        let label = Action::SetMplsLabel(33);
        let twice = sent(&by(&[label.clone(), PUSH]), &frame(&[(5, 7)])).unwrap();
        assert_eq!(twice, frame(&[(33, 7), (33, 7)]));
        let back = sent(&by(&[pop(0x8847), pop(0x0800)]), &frame(&[(1, 2), (3, 4)])).unwrap();
        assert_eq!(back, frame(&[]));
        assert_eq!(sent(&by(&[label, pop(0x0800)]), &frame(&[])).unwrap(), frame(&[]));
        let ttl = sent(&by(&[Action::DecMplsTtl, Action::SetMplsTc(0)]), &frame(&[(1, 2)]));
        assert_eq!(ttl.unwrap(), frame(&[(1, 1)]));
    }

    /// Rules see what is behind the labels once they are off, and not before.
    #[test]
    fn what_is_behind_labels_is_seen_when_they_are_off() {
        let udp = Match::new().with(Field::EthType, 0x800).with(Field::IpProto, 17);
        let udp = udp.with(Field::UdpDst, 53);
        let rules = vec![
            (0, 2, udp.clone(), vec![Action::Exit]),
            (
                0,
                1,
                Match::new(),
                vec![pop(0x0800), Action::DecTtl(None), Action::resubmit_table(1)],
            ),
            (1, 1, udp, vec![output(2)]),
        ];
        let got = sent(&rules, &frame(&[(7, 64)])).unwrap();
        let mut key = Key::default();
        extract(&mut key, &got, got.len(), 1, Depth::All);
        assert_eq!((key.get_u8(slot::IP_TTL), got.len()), (8, frame(&[]).len()));
        assert_eq!(packet::checksum::checksum(&got[14..34]), 0);
        // All labels go where none is to follow.
        assert_eq!(sent(&rules, &frame(&[(7, 64), (8, 9)])).unwrap(), got);
        // It is not what the rule says that it is.
        let other = vec![(0, 1, Match::new(), vec![pop(0x86DD), Action::resubmit_table(1)])];
        assert_eq!(sent(&[other, rules[2..].to_vec()].concat(), &frame(&[(7, 64)])), None);
    }

    #[test]
    fn labels_that_do_not_stay_are_none() {
        let other = |kind: u16| Action::PushMpls { ethertype: kind };
        // What the packet is to be does not matter then, and it is found as what it is.
        let udp = Match::new().with(Field::EthType, 0x800).with(Field::UdpDst, 53);
        let udp = udp.with(Field::IpProto, 17);
        let rules = vec![
            (0, 1, Match::new(), vec![PUSH, pop(0x86DD), Action::resubmit_table(1)]),
            (1, 1, udp, vec![Action::DecTtl(None), output(2)]),
        ];
        let mut less = frame(&[]);
        less[22] -= 1;
        less[24] += 1;
        assert_eq!(sent(&rules, &frame(&[])).unwrap(), less);
        let same = sent(&by(&[other(0x8848), pop(0x8847)]), &frame(&[(5, 7)]));
        assert_eq!(same.unwrap(), frame(&[(5, 7)]));
        // One in the place of another one is that one, written to.
        let label = Action::SetMplsLabel(6);
        let one = sent(&by(&[pop(0x8847), other(0x8848), label]), &frame(&[(5, 7), (8, 9)]));
        assert_eq!(one.unwrap(), frame(&[(6, 9), (8, 9)]));
        // Between them somebody has got it with the label.
        let rules = by(&[PUSH, output(3), pop(0x86DD)]);
        let all = all_sent(&rules, &frame(&[]));
        let kinds: Vec<&[u8]> = all.iter().map(|frame| &frame[12..14]).collect();
        assert_eq!(kinds, [[0x88, 0x47], [0x86, 0xDD]]);
    }

    #[test]
    fn labels_that_are_to_come_count_for_the_length() {
        let bit = openflow::Subfield { field: Field::Reg0, offset: 0, bits: 1 };
        let rules = |len: usize, actions: &[Action]| {
            let len = u16::try_from(len).unwrap();
            let check = Action::CheckPktLarger { len, target: bit };
            let long = Match::new().with_masked(Field::Reg0, 1, 1);
            let actions = actions.iter().cloned().chain([check, Action::resubmit_table(1)]);
            vec![(0, 0, Match::new(), actions.collect()), (1, 1, long, vec![output(2)])]
        };
        let (frame, len) = (frame(&[]), frame(&[]).len());
        let is_longer = |than, actions: &[Action]| sent(&rules(than, actions), &frame).is_some();
        assert!(is_longer(len + 3, &[PUSH]) && !is_longer(len + 4, &[PUSH]));
        let both = [PUSH, PUSH, pop(0x8847)];
        assert!(is_longer(len + 3, &both) && !is_longer(len + 4, &both));
        assert!(is_longer(len - 1, &[PUSH, pop(0x800)]) && !is_longer(len, &[PUSH, pop(0x800)]));
    }

    /// It is looked at anew then, with as many tags as rules see.
    #[test]
    fn what_was_behind_labels_is_not_seen_behind_more_tags_than_rules_see() {
        let push = Action::PushVlan { ethertype: 0x88A8 };
        let (off, on) = (pop(0x0800), Action::resubmit_table(1));
        let tagged = |tags: usize| {
            let (frame, tag) = (frame(&[(7, 64)]), [0x81, 0, 0, 9]);
            [&frame[..12], &tag.repeat(tags), &frame[12..]].concat()
        };
        let looks = |tags: usize, actions: &[Action]| {
            let frame = tagged(tags);
            let mut key = Key::default();
            extract(&mut key, &frame, frame.len(), 1, Depth::All);
            let pipeline = pipeline(&[(0, 0, Match::new(), actions.to_vec())]);
            let ops = walk(&pipeline, &mut key, &Start::Table, None).ops;
            ops.iter().find_map(|op| match op {
                Op::Again(next, _) => Some(next.rest.len()),
                _ => None,
            })
        };
        assert_eq!(looks(1, &[push.clone(), off.clone(), on.clone()]), Some(1));
        assert_eq!(looks(0, &[push.clone(), off.clone(), on.clone()]), None);
        assert_eq!(looks(0, &[push.clone(), off.clone(), push.clone(), on.clone()]), None);
        // Nothing asks, or one tag is off by then.
        let address = Action::SetEthDst(packet::MacAddr([2; 6]));
        assert_eq!(looks(1, &[push.clone(), off.clone(), output(2), address]), None);
        assert_eq!(looks(1, &[push.clone(), off.clone(), Action::DecTtl(None)]), Some(1));
        assert_eq!(looks(1, &[off, push, on]), None);
    }

    #[test]
    fn more_labels_than_are_looked_at_are_left_alone() {
        let four = frame(&[(1, 9), (2, 9), (3, 9), (4, 9)]);
        assert_eq!(sent(&by(&[pop(0x8847)]), &four), None);
        assert_eq!(sent(&by(&[PUSH]), &frame(&[(1, 9), (2, 9), (3, 9)])), None);
        assert_eq!(sent(&by(&[Action::SetMplsTtl(7)]), &four).unwrap()[17], 7);
    }
}
