//! Bonds of bridges with flows.

use super::*;
use crate::bond::way::Fittings;
use crate::bond::way::Way;
use crate::bond::way::{BUCKETS, Division, Receives, Strand};

/// The bond, whose members are ports 2 and 3: 3 and 4 to rules.
const BOND: u16 = 9;

fn bonded(rules: &[(u8, Match, Vec<Action>)]) -> Bench {
    let mut bench = Bench::new(4);
    for member in [2, 3] {
        bench.change(0, BridgeChange::Leave(member));
    }
    bench.change(0, BridgeChange::Join(BOND, None));
    let strand = |port| Strand { port, receives: Receives::All };
    let way = Way {
        bridge: BridgeId::DEFAULT,
        division: Division::Whole,
        table: [2; BUCKETS],
        members: vec![strand(2), strand(3)],
        comes_back: false,
    };
    bench.path.set_bond(BOND, Some((way, Fittings::default())));
    set(&mut bench, pipeline(4, rules));
    bench
}

fn member(bench: &mut Bench, port: u16, frame: Vec<u8>) -> Vec<usize> {
    counts(&bench.send_to_bridge(BridgeId::BOND.0, port, &[frame]))
}

#[test]
fn what_is_switched_as_usual_is_learnt_on_the_bond_and_never_goes_back() {
    let normal = vec![Action::output(PortNo::NORMAL)];
    let mut bench = bonded(&[(0, Match::new(), normal)]);
    assert_eq!(member(&mut bench, 3, frame(BROADCAST, station(7))), [1, 1, 0, 0]);
    assert_eq!(member(&mut bench, 2, frame(station(7), station(8))), [0; 4], "both are behind it");
    let got = bench.send(0, &[frame(station(7), station(1))]);
    assert_eq!(counts(&got), [0, 0, 1, 0], "by the member that it goes by");
    assert_eq!(member(&mut bench, 3, frame(station(1), station(7))), [1, 0, 0, 0]);
}

#[test]
fn rules_see_the_member_where_a_packet_came_in() {
    let from = |port: u32| Match::new().with(Field::InPort, port.into());
    let rules = [(0, from(3), vec![output(1)]), (0, from(4), vec![output(2), output(3)])];
    let mut bench = bonded(&rules);
    assert_eq!(member(&mut bench, 2, frame(BROADCAST, station(7))), [1, 0, 0, 0]);
    assert_eq!(member(&mut bench, 3, frame(BROADCAST, station(7))), [0, 1, 1, 0]);
}
