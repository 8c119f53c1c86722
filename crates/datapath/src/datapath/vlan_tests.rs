//! VLANs on the data path, against rules written down without any cleverness.

use std::collections::HashMap;
use std::sync::Arc;

use ethdev::DropReason;
use packet::headers::EtherType;
use proptest::prelude::*;

use super::tests::{BROADCAST, Bench, station};
use super::*;
use crate::vlan::policy::Policy;
use crate::vlan::{PortVlan, PriorityTags, QinqEtherType, VlanMode, VlanSet};

/// A frame's tags, outermost first, and its number.
type Tagged = (Vec<(u16, u16)>, u32);

const C: u16 = 0x8100;
const S: u16 = 0x88A8;

fn frame(to: u64, from: u64, (tags, number): &Tagged) -> Vec<u8> {
    let mut bytes = [&to.to_be_bytes()[2..], &from.to_be_bytes()[2..]].concat();
    for (kind, control) in tags {
        bytes.extend([kind.to_be_bytes(), control.to_be_bytes()].concat());
    }
    bytes.extend([0x88, 0xB5]);
    bytes.extend(number.to_be_bytes());
    bytes.resize(100, 0xAB);
    bytes
}

/// What is in a frame.
fn tagged(bytes: &[u8]) -> Tagged {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut at = 12;
    let mut tags = Vec::new();
    while EtherType(word(at)).is_tag() {
        tags.push((word(at), word(at + 2)));
        at += 4;
    }
    (tags, u32::from_be_bytes([bytes[at + 2], bytes[at + 3], bytes[at + 4], bytes[at + 5]]))
}

impl Bench {
    pub(super) fn with_vlans(ports: &[PortVlan]) -> Self {
        let mut bench = Self::new(ports.len());
        for (port, vlan) in (0..).zip(ports) {
            assert_eq!(vlan.check(), Ok(()));
            bench.bridge().set_vlan(port, Some(Arc::new(Policy::from(vlan))));
        }
        bench
    }
}

/// Inside the model's bridge: a VLAN, the tag for it, and the customer's or payload's tags.
struct Inside {
    vlan: u16,
    kind: u16,
    priority: u16,
    behind: Vec<(u16, u16)>,
}

fn holds(set: &Option<VlanSet>, vlan: u16) -> bool {
    set.as_ref().is_none_or(|set| set.iter().any(|each| each == vlan))
}

fn carries(port: &PortVlan, vlan: u16) -> bool {
    match port.mode() {
        VlanMode::Access | VlanMode::Dot1qTunnel => port.tag == Some(vlan),
        VlanMode::Trunk => holds(&port.trunks, vlan),
        _ => port.tag == Some(vlan) || holds(&port.trunks, vlan),
    }
}

fn vid_of(tag: Option<&(u16, u16)>) -> u16 {
    tag.map_or(0, |(_, control)| control % 0x1000)
}

/// How frames come in.
fn enter(port: &PortVlan, tags: &[(u16, u16)]) -> Option<Inside> {
    if port.mode() == VlanMode::Dot1qTunnel {
        let kind = if port.qinq_ethertype == QinqEtherType::Dot1q { C } else { S };
        let inside = Inside { vlan: port.tag?, kind, priority: 0, behind: tags.to_vec() };
        return holds(&port.cvlans, vid_of(tags.first())).then_some(inside);
    }
    let (kind, control) = tags.first().copied().unwrap_or((C, 0));
    let behind = tags.get(1..).unwrap_or_default().to_vec();
    let named = control % 0x1000;
    let vlan = if named == 0 { port.tag.unwrap_or(0) } else { named };
    if port.mode() == VlanMode::Access && (named != 0 || vid_of(behind.first()) != 0) {
        return None;
    }
    carries(port, vlan).then_some(Inside { vlan, kind, priority: control & 0xF000, behind })
}

/// How they go out.
fn leave(port: &PortVlan, inside: &Inside) -> Option<Vec<(u16, u16)>> {
    let behind = vid_of(inside.behind.first());
    if !carries(port, inside.vlan) {
        return None;
    }
    let vlan = match port.mode() {
        VlanMode::Access if behind != 0 => return None,
        VlanMode::Dot1qTunnel if !holds(&port.cvlans, behind) => return None,
        VlanMode::Dot1qTunnel if behind != 0 => return Some(inside.behind.clone()),
        VlanMode::Dot1qTunnel | VlanMode::Access => 0,
        // It would be in the port's own VLAN there.
        VlanMode::NativeTagged | VlanMode::NativeUntagged if inside.vlan == 0 => return None,
        VlanMode::NativeUntagged if port.tag == Some(inside.vlan) => 0,
        _ => inside.vlan,
    };
    let wanted = match port.priority_tags {
        PriorityTags::Always => true,
        PriorityTags::IfNonzero => inside.priority >= 0x2000,
        PriorityTags::No => false,
    };
    let mut tags = inside.behind.clone();
    if vlan != 0 || (behind != 0 && !port.bare_inner) || wanted {
        tags.insert(0, (inside.kind, inside.priority | vlan));
    }
    Some(tags)
}

fn ports() -> Vec<PortVlan> {
    let set = |text: &str| Some(text.parse().unwrap());
    let mut all =
        vec![PortVlan::default(), PortVlan { trunks: set("0,5-6"), ..Default::default() }];
    for mode in VlanMode::ALL.into_iter().filter(|mode| *mode != VlanMode::Trunk) {
        for tag in [5, 7] {
            all.push(PortVlan { mode: Some(mode), tag: Some(tag), ..Default::default() });
        }
    }
    let tunnel = PortVlan { mode: Some(VlanMode::Dot1qTunnel), tag: Some(5), ..Default::default() };
    let cvlans = set("0,6");
    all.push(PortVlan { cvlans, qinq_ethertype: QinqEtherType::Dot1q, ..tunnel.clone() });
    all.push(PortVlan { priority_tags: PriorityTags::IfNonzero, ..tunnel });
    let native =
        PortVlan { mode: Some(VlanMode::NativeUntagged), tag: Some(7), ..Default::default() };
    all.push(PortVlan { bare_inner: true, ..native.clone() });
    all.push(PortVlan { trunks: set("6"), ..native });
    for priority_tags in [PriorityTags::IfNonzero, PriorityTags::Always] {
        all.push(PortVlan { priority_tags, ..Default::default() });
        all.push(PortVlan { priority_tags, tag: Some(5), ..Default::default() });
    }
    all
}

fn all_tags() -> Vec<Vec<(u16, u16)>> {
    let mut all = vec![Vec::new()];
    for kind in [C, S] {
        for control in [0, 5, 6, 7, 8, 0x2000, 0xB005, 0x1000, 0x0FFF] {
            all.push(vec![(kind, control)]);
            all.push(vec![(kind, control), (C, 6)]);
            all.push(vec![(kind, control), (S, 0x2005), (C, 6)]);
        }
    }
    all
}

/// A frame of each kind comes in on a port of each kind: every port of every kind gets it as it
/// should, or not at all.
#[test]
fn every_mode_does_with_every_frame_what_it_should() {
    let ports = ports();
    let mut pairs = 0;
    for (port, vlan) in (0..).zip(&ports) {
        let mut bench = Bench::with_vlans(&ports);
        for tags in all_tags() {
            let got = bench.send(port, &[frame(BROADCAST, station(1), &(tags.clone(), 9))]);
            let inside = enter(vlan, &tags);
            for (out, got) in got.into_iter().enumerate() {
                let inside = inside.as_ref().filter(|_| out != usize::from(port));
                let expected = inside.and_then(|inside| leave(&ports[out], inside));
                let got: Vec<_> = got.iter().map(|bytes| tagged(bytes)).collect();
                let expected: Vec<_> = expected.into_iter().map(|tags| (tags, 9)).collect();
                assert_eq!(got, expected, "{tags:x?} from {vlan:?} to {:?}", ports[out]);
                pairs += 1;
            }
        }
    }
    assert_eq!(pairs, ports.len().pow(2) * all_tags().len());
}

#[test]
fn frames_of_other_vlans_are_drops_with_a_reason() {
    let access = PortVlan { tag: Some(5), ..Default::default() };
    let trunk = PortVlan { trunks: Some("6".parse().unwrap()), ..Default::default() };
    let mut bench = Bench::with_vlans(&[access, trunk]);
    for (port, vlan, count) in [(0, 5, 1), (0, 6, 2), (1, 5, 3), (1, 0, 4)] {
        bench.send(port, &[frame(BROADCAST, station(1), &(vec![(C, vlan)], 0))]);
        assert_eq!(bench.dropped(DropReason::WrongVlan), count);
    }
    // A static entry in a VLAN that its port does not carry.
    let fdb = Arc::clone(&bench.bridge().fdb);
    assert!(fdb.write().add_static(fdb::Key::from_bits(5, station(9)), 1));
    bench.send(0, &[frame(station(9), station(1), &(Vec::new(), 0))]);
    assert_eq!(bench.dropped(DropReason::WrongVlan), 5);
    // One that ends within its tag.
    let cut_off = &frame(BROADCAST, station(1), &(vec![(C, 5)], 0))[..15];
    bench.send(1, &[cut_off.to_vec()]);
    assert_eq!(bench.dropped(DropReason::TooShort), 1);
}

#[test]
fn a_tag_does_not_count_against_the_mtu() {
    let access = PortVlan { tag: Some(5), ..Default::default() };
    let tunnel = PortVlan { mode: Some(VlanMode::Dot1qTunnel), ..access.clone() };
    let mut bench = Bench::with_vlans(&[access, PortVlan::default(), tunnel]);
    let sized = |tags: &[(u16, u16)], payload: usize| {
        let mut bytes = frame(BROADCAST, station(1), &(tags.to_vec(), 0));
        bytes.resize(14 + 4 * tags.len() + payload, 0);
        bytes
    };
    let mut lengths = |port, tags: &[(u16, u16)], payload| {
        let got = bench.send(port, &[sized(tags, payload)]);
        got.iter().map(|port| port.first().map_or(0, Vec::len)).collect::<Vec<_>>()
    };
    assert_eq!(lengths(0, &[], 1500), [0, 1518, 1514]);
    assert_eq!(lengths(0, &[], 1501), [0, 0, 0]);
    assert_eq!(lengths(1, &[(C, 5)], 1500), [1514, 0, 1514]);
    assert_eq!(lengths(2, &[(C, 9)], 1500), [0, 1522, 0]);
    assert_eq!(lengths(2, &[(C, 9)], 1501), [0, 0, 0]);
}

#[test]
fn a_large_segment_keeps_its_offload_through_a_tag() {
    // What ports do with offloads is theirs; here it must stay true for the frame.
    let (mut bytes, offload) = crate::header::tests::large_segment();
    bytes[..6].fill(0xFF);
    bytes[6..12].copy_from_slice(&station(1).to_be_bytes()[2..]);
    let access = PortVlan { tag: Some(5), ..Default::default() };
    let mut bench = Bench::with_vlans(&[PortVlan::default(), access]);
    let large = Frame::from_bytes(&bytes).with_offload(offload);
    let got = bench.send_frames(0, &[large]);
    let parts = &got[1];
    assert!(parts.len() > 30 && parts.iter().all(|part| part.len() <= 1514));
    assert!(parts.iter().all(|part| part[12..14] == [8, 0]), "without its tag, and cut");
}

fn port() -> impl Strategy<Value = PortVlan> {
    prop::sample::select(ports())
}

fn tags() -> impl Strategy<Value = Vec<(u16, u16)>> {
    prop_oneof![
        2 => Just(Vec::new()),
        3 => prop::sample::select(vec![5, 6, 7]).prop_map(|vlan| vec![(C, vlan)]),
        1 => prop::sample::select(all_tags()),
    ]
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![6 => (0..5_u64).prop_map(station), 1 => Just(BROADCAST)]
}

/// Where a frame goes, once all sources of its burst are learnt.
fn destinations(
    known: &HashMap<(u16, u64), u16>,
    ports: &[PortVlan],
    port: u16,
    to: u64,
    inside: &Inside,
) -> Vec<(usize, Vec<(u16, u16)>)> {
    let only = known.get(&(inside.vlan, to));
    let goes = |out: &usize| match only {
        Some(only) => usize::from(*only) == *out,
        None => true,
    };
    let out = (0..ports.len()).filter(|out| *out != usize::from(port)).filter(goes);
    out.filter_map(|out| Some((out, leave(&ports[out], inside)?))).collect()
}

proptest! {
    #[test]
    fn learning_and_flooding_keep_to_the_vlan(
        ports in prop::collection::vec(port(), 2..6),
        bursts in prop::collection::vec((
            any::<prop::sample::Index>(),
            prop::collection::vec((address(), (0..5_u64).prop_map(station), tags()), 1..=BURST),
        ), 1..12),
    ) {
        let mut bench = Bench::with_vlans(&ports);
        let mut known = HashMap::new();
        let mut number = 0;
        for (port, burst) in bursts {
            let port = port.index(ports.len());
            let vlan = &ports[port];
            let port = u16::try_from(port).unwrap();
            for (_, from, tags) in &burst {
                if let Some(inside) = enter(vlan, tags) {
                    known.insert((inside.vlan, *from), port);
                }
            }
            let mut expected = vec![Vec::new(); ports.len()];
            let mut frames = Vec::new();
            for (to, from, tags) in burst {
                number += 1;
                if let Some(inside) = enter(vlan, &tags) {
                    for (out, tags) in destinations(&known, &ports, port, to, &inside) {
                        expected[out].push(frame(to, from, &(tags, number)));
                    }
                }
                frames.push(frame(to, from, &(tags, number)));
            }
            let got = bench.send(port, &frames);
            let show = |all: &[Vec<Vec<u8>>]| {
                all.iter().map(|port| port.iter().map(|f| tagged(f)).collect()).collect::<Vec<Vec<_>>>()
            };
            prop_assert_eq!(show(&got), show(&expected));
        }
    }
}
