//! Ports that controllers have told to do less, where all is switched as usual. What is expected is what Open vSwitch 3.1
//! does.

use super::*;
use crate::bond::way::Fittings;
use crate::bond::way::Way;
use crate::bond::way::{BUCKETS, Division, Receives, Strand};
use crate::gate::Gate;
use crate::inlet::{Inlet, Pace};
use crate::mirror::taps::{Tap, Taps, To};
use crate::port_set::PortSet;
use crate::snoop::stage::{LONGEST, Snoop};
use crate::snoop::view::{Ports, View};

/// The pipeline of a bridge with four ports that switches as usual, of which one has such a setting.
fn barred(number: u16, bar: fn(&mut Port)) -> Pipeline {
    let mut pipeline = pipeline(4, &[(0, Match::new(), vec![output(PortNo::NORMAL.0)])]);
    pipeline.ports.get_mut(&PortNo(u32::from(number) + 1)).map(bar).unwrap();
    pipeline
}

/// The same bridge; station 7 is known to be behind port 2.
fn bench_of(bar: fn(&mut Port)) -> Bench {
    let mut bench = Bench::new(4);
    bench.send(2, &[frame(BROADCAST, station(7))]);
    set(&mut bench, barred(2, bar));
    bench
}

fn sent_to(bench: &mut Bench, port: u16, to: u64) -> Vec<usize> {
    counts(&bench.send(port, &[frame(to, station(1))]))
}

#[test]
fn a_port_without_floods_has_what_is_for_a_station_behind_it() {
    let mut bench = bench_of(|port| port.no_flood = true);
    assert_eq!(sent_to(&mut bench, 0, BROADCAST), [0, 1, 0, 1]);
    assert_eq!(sent_to(&mut bench, 0, station(9)), [0, 1, 0, 1]);
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0, 0, 1, 0]);
    let told = bench.path.decide((BridgeId::DEFAULT, 0), &frame(BROADCAST, station(1)), false, 1);
    assert_eq!(told.outputs.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1, 3]);
    set(&mut bench, barred(2, |_| {}));
    assert_eq!(sent_to(&mut bench, 0, BROADCAST), [0, 1, 1, 1]);
    assert!(bench.bridge().bars().is_none());
}

#[test]
fn nothing_goes_to_a_port_that_is_to_be_sent_nothing() {
    let mut bench = bench_of(|port| port.no_forward = true);
    assert_eq!(sent_to(&mut bench, 0, BROADCAST), [0, 1, 0, 1]);
    assert_eq!(bench.dropped(DropReason::FlowDrop), 0);
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0; 4]);
    assert_eq!(bench.dropped(DropReason::FlowDrop), 1);
    assert_eq!(sent_to(&mut bench, 2, BROADCAST), [1, 1, 0, 1], "what it sends goes on");
    // Who asks is told what would go there.
    let told = bench.path.decide((BridgeId::DEFAULT, 0), &frame(station(7), station(1)), false, 1);
    assert_eq!(told.outputs.len(), 1);
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0; 4]);
}

#[test]
fn spanning_tree_counts_besides() {
    let mut bench = bench_of(|port| port.no_forward = true);
    let forwarding = [0, 1, 2].into_iter().collect();
    let gate = Gate { forwarding, learning: PortSet::default() };
    bench.change(0, BridgeChange::Gate(Some(Arc::new(gate))));
    assert_eq!(sent_to(&mut bench, 0, BROADCAST), [0, 1, 0, 0]);
    set(&mut bench, barred(2, |_| {}));
    assert_eq!(sent_to(&mut bench, 0, BROADCAST), [0, 1, 1, 0]);
    bench.change(0, BridgeChange::Flows(None, 0));
    assert_eq!(sent_to(&mut bench, 3, BROADCAST), [0; 4]);
}

#[test]
fn nothing_comes_in_on_a_port_that_receives_nothing_and_no_mirror_has_it() {
    let (mut usual, mut bpdu) = (frame(BROADCAST, station(7)), frame(0x0180_C200_0000, station(7)));
    usual[12..14].copy_from_slice(&[8, 0]);
    bpdu[12..14].copy_from_slice(&[0, 38]);
    let both = [usual.clone(), bpdu.clone()];
    let tap = Tap {
        src: [2].into_iter().collect(),
        dst: PortSet::default(),
        vlans: None,
        to: To::Port(3),
        snaplen: usize::MAX,
        counters: Arc::default(),
        recorder: None,
        reflects: false,
    };
    let copied = |bar: fn(&mut Port)| {
        let mut bench = bench_of(bar);
        let taps = Taps::new(vec![tap.clone()], [3].into_iter().collect());
        bench.change(0, BridgeChange::Mirror(Some(Box::new(taps))));
        let mut got = bench.send(2, &both);
        (got[0].len(), got.swap_remove(3))
    };
    assert_eq!(copied(|_| {}), (1, both.to_vec()));
    assert_eq!(copied(|port| port.no_receive = true), (0, vec![bpdu]));
    assert_eq!(copied(|port| port.no_receive_stp = true), (1, vec![usual]));
    let neither = copied(|port| (port.no_receive, port.no_receive_stp) = (true, true));
    assert_eq!(neither, (0, vec![]));
}

#[test]
fn what_does_not_come_in_is_not_learnt_and_counts_for_the_rule() {
    let mut bench = Bench::new(4);
    let pipeline = barred(2, |port| port.no_receive = true);
    let stats = Arc::clone(&pipeline.tables.iter().next().unwrap().stats);
    set(&mut bench, pipeline);
    assert_eq!(sent_to(&mut bench, 2, BROADCAST), [0; 4]);
    assert_eq!((bench.bridge().fdb.len(), bench.dropped(DropReason::FlowDrop)), (0, 1));
    bench.change(0, BridgeChange::FlushFlows(1));
    assert_eq!(stats.packets(), 1);
}

#[test]
fn copies_go_to_a_port_without_floods_and_not_to_one_that_is_sent_nothing() {
    let copied = |to: To, bar: fn(&mut Port)| {
        let mut bench = bench_of(bar);
        let (src, dst) = ([0].into_iter().collect(), PortSet::default());
        let (vlans, snaplen, counters) = (None, usize::MAX, Arc::default());
        let tap = Tap { src, dst, vlans, to, snaplen, counters, recorder: None, reflects: false };
        let kept = if to == To::Port(2) { [2].into_iter().collect() } else { PortSet::default() };
        bench.change(0, BridgeChange::Mirror(Some(Box::new(Taps::new(vec![tap], kept)))));
        sent_to(&mut bench, 0, BROADCAST)
    };
    assert_eq!(copied(To::Port(2), |port| port.no_flood = true), [0, 1, 1, 1]);
    assert_eq!(copied(To::Port(2), |port| port.no_forward = true), [0, 1, 0, 1]);
    assert_eq!(copied(To::Vlan(5), |port| port.no_flood = true), [0, 2, 1, 2]);
    assert_eq!(copied(To::Vlan(5), |port| port.no_forward = true), [0, 2, 0, 2]);
}

#[test]
fn members_of_groups_have_what_is_for_them_without_floods() {
    let group = std::net::IpAddr::from([239, 1, 2, 3]);
    let built = FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([1, 0, 0x5E, 1, 2, 3]))
        .ip(std::net::Ipv4Addr::new(10, 0, 0, 1), std::net::Ipv4Addr::new(239, 1, 2, 3))
        .udp(1, 5000)
        .build()
        .unwrap();
    let got = |bar: fn(&mut Port)| {
        let mut bench = bench_of(bar);
        let (inlet, _heard) = Inlet::by_port(LONGEST, 8, &Pace::of(1_000_000_000), || {});
        let mut view = View::new(&Ports::default());
        let send = |bench: &mut Bench, view: View| {
            let snoop = Snoop { groups: Arc::new(view), inlet: inlet.clone() };
            bench.change(0, BridgeChange::Snoop(Some(Box::new(snoop))));
            counts(&bench.send(0, std::slice::from_ref(&built)))
        };
        let flooded = send(&mut bench, View::new(&Ports::default()));
        view.set_group((0, group), &[2].into_iter().collect());
        [flooded, send(&mut bench, view)]
    };
    assert_eq!(got(|_| {}), [[0, 1, 1, 1], [0, 0, 1, 0]]);
    assert_eq!(got(|port| port.no_flood = true), [[0, 1, 0, 1], [0, 0, 1, 0]]);
    assert_eq!(got(|port| port.no_forward = true), [[0, 1, 0, 1], [0, 0, 0, 0]]);
}

/// The bond, whose members are ports 2 and 3.
const BOND: u16 = 9;

#[test]
fn a_bond_does_what_its_members_are_told() {
    let way = |active: u16| {
        let strand = |port| Strand { port, receives: Receives::All };
        let members = vec![strand(2), strand(3)];
        let (bridge, table) = (BridgeId::DEFAULT, [active; BUCKETS]);
        let way = Way { bridge, division: Division::Whole, table, members, comes_back: false };
        Some((way, Fittings::default()))
    };
    let mut bench = Bench::new(4);
    [2, 3].into_iter().for_each(|member| bench.change(0, BridgeChange::Leave(member)));
    bench.change(0, BridgeChange::Join(BOND, None));
    bench.path.set_bond(BOND, way(2));
    bench.send_to_bridge(BridgeId::BOND.0, 2, &[frame(BROADCAST, station(7))]);
    set(&mut bench, barred(3, |port| port.no_flood = true));
    assert_eq!(sent_to(&mut bench, 0, BROADCAST), [0, 1, 0, 0], "one member is enough");
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0, 0, 1, 0]);
    set(&mut bench, barred(2, |port| port.no_forward = true));
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0; 4], "what belongs to it is lost");
    let told = bench.path.decide((BridgeId::DEFAULT, 0), &frame(station(7), station(1)), false, 1);
    assert_eq!(told.outputs.len(), 1);
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0; 4]);
    bench.path.set_bond(BOND, way(3));
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0, 0, 0, 1]);
    bench.path.set_bond(BOND, way(2));
    set(&mut bench, barred(2, |_| {}));
    assert_eq!(sent_to(&mut bench, 0, station(7)), [0, 0, 1, 0]);
}
