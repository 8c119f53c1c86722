//! Lengths that packets are compared with (`check_pkt_larger`).
//!
//! A way may depend on how long a packet is. So that packets of all lengths share paths, a key has not
//! the length of its packet but the least one of which the same is true, whatever it is compared with
//! on its way: tags and labels that are put on or taken off until then are a few times four bytes, and
//! headers of Ethernet in front of all, where rules have these, a few times two.

use std::collections::BTreeSet;
use std::sync::Arc;

use openflow::Action;
use ordered::Gather as _;

use crate::key::{Key, slot};
use crate::walk::nsh_len;

/// By how many times how many bytes a packet may be longer, or shorter, when it is compared.
#[derive(Clone, Copy, Debug)]
struct Steps {
    most: i32,
    len: i32,
}

/// Tags, two of them, and labels of MPLS, three.
const INSIDE: Steps = Steps { most: 5, len: 4 };

/// The same where headers of Ethernet are put on in front of all, or taken off, and labels between them.
const OUTSIDE: Steps = Steps { most: 32, len: 2 };

/// The most where the longest of network service headers are put on, too.
const MOST: i32 = 160;

/// All lengths that actions compare with; it may have some of rules that are not there any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    all: Option<Arc<BTreeSet<u16>>>,
    /// Headers in front of all come and go: how long network service headers are that are put on, the longest of them.
    front: Option<u16>,
}

/// The longest network service header that actions put on, if they have headers in front of all come and go; of such
/// headers there may be none.
pub(crate) fn front(actions: &[Action]) -> Option<u16> {
    let of = |action: &Action| match action {
        Action::Encap(encap) => Some(nsh_len(encap)),
        Action::Decap { .. } => Some(0),
        Action::Clone(actions) => front(actions),
        _ => None,
    };
    actions.iter().filter_map(of).max()
}

impl Lengths {
    /// Adds those that actions compare with.
    pub(crate) fn add(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::CheckPktLarger { len, .. } => {
                    Arc::make_mut(self.all.get_or_insert_default()).insert(*len);
                }
                Action::Clone(actions) => self.add(actions),
                _ => {}
            }
        }
    }

    /// Adds what is put on in front of all, and taken off ([`front`]).
    pub(crate) fn add_front(&mut self, front: Option<u16>) {
        self.front = self.front.max(front);
    }

    /// With a header there is place for two of its length, as it may be put on twice.
    fn steps(&self) -> Steps {
        let Some(nsh) = self.front else { return INSIDE };
        let Steps { most, len } = OUTSIDE;
        Steps { most: most.saturating_add(nsh.into()).min(MOST), len }
    }

    /// Whether classes say how long packets are that have grown by so many bytes.
    pub(crate) fn tell(&self, grown: i32) -> bool {
        let Steps { most, len } = self.steps();
        grown % len == 0 && grown.unsigned_abs() <= (most * len).unsigned_abs()
    }

    /// The least lengths of each kind that makes a difference, in order.
    pub(crate) fn classes(&self) -> Box<[u16]> {
        let Steps { most, len: step } = self.steps();
        let all = self.all.iter().flat_map(|all| all.iter());
        let classes: BTreeSet<u16> = all
            .flat_map(|len| {
                let least = move |steps: i32| i32::from(*len) + 1 + steps * step;
                (-most..=most).map(least).filter_map(|least| u16::try_from(least).ok())
            })
            .gather();
        classes.into_iter().collect()
    }
}

/// The length of this class that stands for `len`.
#[inline]
pub(crate) fn class_of(classes: &[u16], len: usize) -> u16 {
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    let above = classes.partition_point(|least| *least <= len);
    above.checked_sub(1).and_then(|own| classes.get(own).copied()).unwrap_or_default()
}

/// The length of a frame of `len` bytes, of which `head` are the first, without what follows a packet of IP in
/// it: as Open vSwitch compares. `vlans` tags are looked behind.
#[must_use]
pub fn unpadded(head: &[u8], len: usize, vlans: u8) -> usize {
    let field = |at: usize| Some(u16::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let mut at = 12;
    for _ in 0..vlans {
        if !matches!(field(at), Some(0x8100 | 0x88A8)) {
            break;
        }
        at += 4;
    }
    let (start, there) = (at + 2, len.saturating_sub(at + 2));
    let total = |at: usize| field(start + at).map(usize::from);
    let packet = match field(at) {
        Some(0x0800) => total(2).filter(|total| *total >= 20),
        Some(0x86DD) => total(4).map(|payload| payload + 40),
        _ => None,
    };
    packet.filter(|packet| *packet <= there).map_or(len, |packet| start + packet)
}

impl Key {
    /// Notes how long the packet is, for those rules that go by it; `len` without the frame check
    /// sequence, of a large segment that of the longest frame that it becomes.
    pub fn set_frame_len(&mut self, len: usize) {
        self.set(slot::FRAME_LEN, len.min(usize::from(u16::MAX)) as u128);
    }
}

#[cfg(test)]
mod tests {
    use openflow::action::{Encap, PropertyOfEncap};
    use openflow::{Field, Subfield};

    use super::*;

    fn check(len: u16) -> Action {
        Action::CheckPktLarger { len, target: Subfield { field: Field::Reg0, offset: 0, bits: 1 } }
    }

    /// Whatever a length is compared with, with a few tags more or less, its class says the same; and with headers
    /// in front of all, where there are such.
    #[test]
    fn a_class_says_what_its_lengths_say() {
        let mut lengths = Lengths::default();
        assert!(lengths.classes().is_empty());
        lengths.add(&[check(1_500), Action::Clone(vec![check(60), check(u16::MAX), check(0)])]);
        says_the_same(&lengths);
        for nsh in [0, 24, 252] {
            lengths.add_front(Some(nsh));
            says_the_same(&lengths);
        }
    }

    fn says_the_same(lengths: &Lengths) {
        let classes = lengths.classes();
        assert!(classes.windows(2).all(|pair| pair[0] < pair[1]));
        for len in (0..2_000).chain([65_530, 65_535, 70_000]) {
            let class = class_of(&classes, len);
            assert!(usize::from(class) <= len);
            for limit in [1_500, 60] {
                for grown in (-99..=99).filter(|grown| lengths.tell(*grown)) {
                    let larger = |len: i32| len + grown > limit;
                    assert_eq!(larger(class.into()), larger(i32::try_from(len).unwrap()), "{len}");
                }
            }
        }
    }

    #[test]
    fn labels_and_headers_of_ethernet_are_told() {
        let mut lengths = Lengths::default();
        let told = |lengths: &Lengths| [-14, 18, 26, 20, -20].map(|grown| lengths.tell(grown));
        assert_eq!(told(&lengths), [false, false, false, true, true]);
        lengths.add_front(Some(0));
        assert_eq!(told(&lengths), [true; 5]);
        assert!(lengths.tell(64) && !lengths.tell(66));
        lengths.add_front(Some(24));
        assert!(lengths.tell(2 * (24 + 14)) && !lengths.tell(114));
        lengths.add_front(Some(252));
        assert!(lengths.tell(252 + 14 + 4) && !lengths.tell(322));
        assert!(!lengths.tell(-322) && !lengths.tell(1));
    }

    /// Only where long headers are put on there are many classes.
    #[test]
    fn there_are_as_many_classes_as_headers_take() {
        let encap = |packet_type, data: Option<usize>| {
            let tlv = |len| PropertyOfEncap::NshTlv { class: 1, kind: 1, data: vec![7; len] };
            let kind = data.map(|_| PropertyOfEncap::NshMdtype(2));
            let properties = kind.into_iter().chain(data.map(tlv)).collect();
            Action::Encap(Box::new(Encap { packet_type, header_size: 0, properties }))
        };
        let count = |actions: &[Action]| {
            let mut lengths = Lengths::default();
            lengths.add(&[check(1_500)]);
            lengths.add_front(front(actions));
            lengths.classes().len()
        };
        let nsh = 0x1_894F;
        let decap = Action::Decap { packet_type: 0xFFFE };
        assert_eq!(count(&[Action::PopVlan]), 11);
        assert_eq!((count(std::slice::from_ref(&decap)), count(&[encap(0, None)])), (65, 65));
        assert_eq!(count(&[decap, Action::Clone(vec![encap(nsh, None)])]), 113);
        assert_eq!(count(&[encap(nsh, Some(4))]), 2 * (32 + 16) + 1);
        assert_eq!(count(&[encap(nsh, Some(240))]), 321);
    }

    #[test]
    fn padding_behind_packets_does_not_count() {
        let frame = |tags: &[u8], kind: [u8; 2], packet: &[u8], padding: usize| {
            let frame = [&[2; 12], tags, &kind, packet, &vec![0; padding]].concat();
            unpadded(&frame, frame.len(), 2)
        };
        let mut v4 = [0; 24];
        (v4[0], v4[3]) = (0x45, 24);
        let mut v6 = [0; 44];
        (v6[0], v6[5]) = (0x60, 4);
        let tag = [0x81, 0, 0, 1];
        assert_eq!(frame(&[], [8, 0], &v4, 20), 14 + 24);
        assert_eq!(frame(&tag, [8, 0], &v4, 20), 18 + 24);
        assert_eq!(frame(&[], [0x86, 0xDD], &v6, 9), 14 + 44);
        // What is longer than the frame, or no packet of IP, or behind more tags, is not looked at.
        v4[3] = 99;
        assert_eq!(frame(&[], [8, 0], &v4, 20), 14 + 44);
        v4[3] = 7;
        assert_eq!(frame(&[], [8, 0], &v4, 20), 14 + 44);
        assert_eq!(frame(&[], [8, 6], &v4, 20), 14 + 44);
        v4[3] = 24;
        assert_eq!(frame(&[tag; 3].concat(), [8, 0], &v4, 20), 26 + 44);
        assert_eq!(unpadded(&[], 60, 2), 60);
    }
}
