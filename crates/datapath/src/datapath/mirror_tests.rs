//! Mirrors on the data path: small cases, and all small tables against rules written down without
//! any cleverness.

use std::collections::HashMap;
use std::sync::Arc;

use ethdev::DropReason::{LinkDown, MirrorPort, RateLimited};

use super::tests::{BROADCAST, Bench, frame, station};
use super::*;
use crate::bridge::BridgeChange;
use crate::limit::Direction;
use crate::limit::{Frames, Rate};
use crate::mirror::taps::{Counters, Tap, Taps, To};
use crate::port_set::PortSet;
use crate::vlan::PortVlan;

fn ports(ports: &[u16]) -> PortSet {
    ports.iter().copied().collect()
}

pub(super) fn tap(src: &[u16], dst: &[u16], to: To) -> Tap {
    let (src, dst) = (ports(src), ports(dst));
    Tap {
        src,
        dst,
        vlans: None,
        to,
        reflects: false,
        snaplen: usize::MAX,
        counters: Arc::default(),
        recorder: None,
    }
}

impl Bench {
    fn set_taps(&mut self, taps: Option<Box<Taps>>) {
        self.path.change_bridge(BridgeId::DEFAULT, BridgeChange::Mirror(taps));
    }

    /// Gives the bridge these mirrors; returns their counters.
    pub(super) fn mirror(&mut self, taps: Vec<Tap>) -> Vec<Arc<Counters>> {
        let outputs = taps.iter().filter_map(|tap| match tap.to {
            To::Port(port) => Some(port),
            To::Vlan(_) | To::File(_) => None,
        });
        let outputs = outputs.collect();
        let counters = taps.iter().map(|tap| Arc::clone(&tap.counters)).collect();
        self.set_taps(Some(Box::new(Taps::new(taps, outputs))));
        counters
    }

    fn counts_to(&mut self, port: u16, frames: &[Vec<u8>]) -> Vec<usize> {
        self.send(port, frames).iter().map(Vec::len).collect()
    }
}

fn counted(counters: &[Arc<Counters>]) -> Vec<(u64, u64)> {
    counters.iter().map(|of| (of.packets.get(), of.bytes.get())).collect()
}

fn tagged(vlan: u8, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat()
}

#[test]
fn what_comes_in_and_goes_out_is_copied_once() {
    let mut bench = Bench::new(4);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    let counters = bench.mirror(vec![tap(&[0], &[1], To::Port(3))]);
    // Both are so of these.
    let there = vec![frame(station(1), station(0)); 5];
    let got = bench.send(0, &there);
    assert_eq!((&got[1], &got[3]), (&there, &there));
    assert_eq!(got[2].len(), 0);
    // What goes out at port 1 only, in at port 0 only, and neither.
    assert_eq!(bench.counts_to(2, &there), [0, 5, 0, 5]);
    assert_eq!(bench.counts_to(0, &[frame(station(9), station(0))]), [0, 1, 1, 1]);
    assert_eq!(bench.counts_to(1, &[frame(station(0), station(1))]), [1, 0, 0, 0]);
    assert_eq!(counted(&counters), [(11, 660)]);
    // What comes from the mirror's port goes nowhere, and is not learnt.
    assert_eq!(bench.counts_to(3, &there), [0; 4]);
    assert_eq!((bench.dropped(MirrorPort), bench.bridge().fdb.len()), (5, 2));
    bench.set_taps(None);
    assert_eq!(bench.counts_to(3, &[frame(BROADCAST, station(7))]), [1, 1, 1, 0]);
}

#[test]
fn a_port_for_copies_gets_nothing_else() {
    let mut bench = Bench::new(3);
    bench.mirror(vec![tap(&[1], &[], To::Port(2))]);
    assert_eq!(bench.counts_to(0, &[frame(BROADCAST, station(0))]), [0, 1, 0]);
    assert_eq!(bench.counts_to(1, &[frame(BROADCAST, station(1))]), [1, 0, 1]);
    // Whoever has nobody else to send to.
    let mut bench = Bench::new(2);
    bench.mirror(vec![tap(&[1], &[], To::Port(1))]);
    assert_eq!(bench.counts_to(0, &[frame(BROADCAST, station(0))]), [0, 0]);
    assert_eq!(bench.dropped(LinkDown), 1);
}

#[test]
fn what_the_bridge_does_not_forward_is_copied_all_the_same() {
    let mut bench = Bench::new(3);
    let counters = bench.mirror(vec![tap(&[0], &[], To::Port(2))]);
    let lldp = frame(0x0180_C200_000E, station(0));
    let odd = frame(station(1), BROADCAST);
    let got = bench.send(0, &[lldp.clone(), odd.clone(), vec![1; 13]]);
    assert_eq!((&got[2], got[1].len()), (&vec![lldp, odd], 0));
    assert_eq!(counted(&counters), [(2, 120)]);
}

#[test]
fn copies_are_cut() {
    let mut bench = Bench::new(3);
    let mirror = Tap { snaplen: 20, ..tap(&[0], &[], To::Port(2)) };
    let counters = bench.mirror(vec![mirror]);
    let bytes = frame(BROADCAST, station(0));
    let got = bench.send(0, &[bytes.clone(), bytes[..18].to_vec()]);
    assert_eq!(got[1], [bytes.clone(), bytes[..18].to_vec()]);
    assert_eq!(got[2], [bytes[..20].to_vec(), bytes[..18].to_vec()]);
    assert_eq!(counted(&counters), [(2, 38)]);
}

#[test]
fn two_mirrors_to_one_port_do_not_send_a_frame_twice() {
    let mut bench = Bench::new(4);
    let both = vec![tap(&[0], &[], To::Port(3)), tap(&[0, 1], &[], To::Port(3))];
    let counters = bench.mirror(both);
    assert_eq!(bench.counts_to(0, &[frame(BROADCAST, station(0))]), [0, 1, 1, 1]);
    assert_eq!(bench.counts_to(1, &[frame(BROADCAST, station(1))]), [1, 0, 1, 1]);
    assert_eq!(counted(&counters), [(1, 60), (1, 60)]);
    let apart = vec![tap(&[0], &[], To::Port(3)), tap(&[0], &[], To::Port(2))];
    bench.mirror(apart);
    assert_eq!(bench.counts_to(0, &[frame(BROADCAST, station(0))]), [0, 1, 1, 1]);
}

#[test]
fn frames_beyond_a_limit_are_not_copied() {
    let mut bench = Bench::new(3);
    bench.mirror(vec![tap(&[0], &[1], To::Port(2))]);
    let limit = |bench: &mut Bench, port, direction| {
        let packet_rate = Some(Frames(1));
        let rate = Rate { packet_rate, packet_burst: Some(Frames(64)), ..Rate::default() };
        let limiter = rate.limiters(1, 1_000_000, 0).remove(0).map(Box::new);
        bench.path.set_limit(port, direction, limiter);
    };
    let burst = vec![frame(BROADCAST, station(0)); 32];
    limit(&mut bench, 0, Direction::Rx);
    let sum: usize = (0..3).map(|_| bench.counts_to(0, &burst)[2]).sum();
    assert_eq!((sum, bench.dropped(RateLimited)), (64, 32));
    // The limit of the port where copies go holds for them.
    bench.path.set_limit(0, Direction::Rx, None);
    limit(&mut bench, 2, Direction::Tx);
    let sum: usize = (0..3).map(|_| bench.counts_to(0, &burst)[2]).sum();
    assert_eq!((sum, bench.dropped_to(2, RateLimited)), (64, 32));
}

#[test]
fn in_vlans_copies_have_the_tags_that_their_port_sends() {
    let tag = |tag| PortVlan { tag, ..PortVlan::default() };
    let mut bench = Bench::with_vlans(&[tag(Some(5)), tag(None), tag(Some(6)), tag(None)]);
    let only = |vlans: &str| {
        let vlans = Some(vlans.parse().unwrap());
        vec![Tap { vlans, ..tap(&[0, 1, 2], &[], To::Port(3)) }]
    };
    bench.mirror(only("5"));
    let bytes = frame(BROADCAST, station(1));
    assert_eq!(bench.send(0, std::slice::from_ref(&bytes))[3], [tagged(5, &bytes)]);
    assert_eq!(bench.counts_to(2, std::slice::from_ref(&bytes)), [0, 1, 0, 0]);
    let burst = [tagged(5, &bytes), tagged(7, &bytes), bytes.clone(), tagged(5, &bytes)];
    assert_eq!(bench.send(1, &burst)[3], [tagged(5, &bytes), tagged(5, &bytes)]);
    bench.mirror(only("0"));
    assert_eq!(bench.send(1, &burst)[3], std::slice::from_ref(&bytes));
    // A tag that the port does not carry: no frame at all.
    assert_eq!(bench.counts_to(0, &[tagged(7, &bytes)]), [0; 4]);
    // A port for copies gets them whatever VLANs it has.
    let mut bench = Bench::with_vlans(&[tag(Some(5)), tag(None), tag(Some(6))]);
    bench.mirror(vec![tap(&[0], &[], To::Port(2))]);
    assert_eq!(bench.send(0, std::slice::from_ref(&bytes))[2], [bytes]);
}

#[test]
fn copies_go_into_a_vlan_with_its_tag() {
    let tag = |tag| PortVlan { tag, ..PortVlan::default() };
    let mut bench = Bench::with_vlans(&[tag(Some(5)), tag(None), tag(Some(5)), tag(Some(9))]);
    let counters = bench.mirror(vec![tap(&[0, 1], &[], To::Vlan(9))]);
    let bytes = frame(BROADCAST, station(1));
    let got = bench.send(0, std::slice::from_ref(&bytes));
    // The trunk has the frame and its copy.
    assert_eq!(got[1], [tagged(5, &bytes), tagged(9, &bytes)]);
    assert_eq!((&got[2], &got[3]), (&vec![bytes.clone()], &vec![bytes.clone()]));
    // Not back to the trunk, and what is in the VLAN already is no copy.
    let got = bench.send(1, &[tagged(5, &bytes), tagged(9, &bytes)]);
    assert_eq!([got[1].len(), got[2].len(), got[3].len()], [0, 1, 2]);
    assert_eq!(counted(&counters)[0].0, 2);
    // But where that is wanted.
    bench.mirror(vec![Tap { reflects: true, ..tap(&[0, 1], &[], To::Vlan(9)) }]);
    let got = bench.send(1, &[tagged(5, &bytes)]);
    assert_eq!([&got[1], &got[3]], [&vec![tagged(9, &bytes)], &vec![bytes.clone()]]);
    // Reserved groups do not go into a VLAN.
    let lldp = frame(0x0180_C200_000E, station(1));
    assert_eq!(bench.counts_to(0, &[lldp]), [0; 4]);
    // Without VLAN settings anywhere, too: all ports are trunks of all VLANs then.
    let mut bench = Bench::new(3);
    bench.mirror(vec![tap(&[0], &[], To::Vlan(9))]);
    let got = bench.send(0, std::slice::from_ref(&bytes));
    assert_eq!(got[1], [bytes.clone(), tagged(9, &bytes)]);
}

/// What each port gets of one frame, by the rules. All is flooded or known to be behind `known`.
fn model(
    (src, dst, to): (u16, u16, u16),
    count: u16,
    port: u16,
    target: Option<u16>,
) -> HashMap<u16, usize> {
    let mut got = HashMap::new();
    if port == to {
        return got;
    }
    let mut out = Vec::new();
    match target {
        Some(target) if target != to && target != port => out.push(target),
        Some(target) if target == port => {}
        _ => out.extend((0..count).filter(|other| *other != port && *other != to)),
    }
    out.iter().for_each(|other| *got.entry(*other).or_default() += 1);
    let comes = src & 1 << port != 0;
    let goes = out.iter().any(|other| dst & 1 << other != 0);
    if comes || goes {
        *got.entry(to).or_default() += 1;
    }
    got
}

#[test]
fn every_small_table_does_what_the_rules_say() {
    const COUNT: u16 = 4;
    let some = |mask: u16| (0..COUNT).filter(|port| mask & 1 << port != 0).collect::<Vec<_>>();
    let mut cases = 0;
    for to in 0..COUNT {
        let mut bench = Bench::new(usize::from(COUNT));
        // Everybody but the port for copies is known.
        for port in (0..COUNT).filter(|port| *port != to) {
            bench.send(port, &[frame(BROADCAST, station(u64::from(port)))]);
        }
        for (src, dst) in (0..1 << COUNT).flat_map(|src| (0..1 << COUNT).map(move |dst| (src, dst)))
        {
            let others = |mask: u16| some(mask & !(1 << to));
            bench.mirror(vec![tap(&others(src), &others(dst), To::Port(to))]);
            for port in 0..COUNT {
                let from = station(u64::from(port));
                for target in (0..COUNT).map(Some).chain([None]) {
                    let bytes = frame(target.map_or(BROADCAST, |to| station(u64::from(to))), from);
                    let got = bench.counts_to(port, &[bytes]);
                    let rule = model((src, dst, to), COUNT, port, target);
                    let expected: Vec<usize> =
                        (0..COUNT).map(|port| rule.get(&port).copied().unwrap_or(0)).collect();
                    assert_eq!(got, expected, "{src:b} {dst:b} to {to}: {port} {target:?}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 4 * 256 * 4 * 5);
}
