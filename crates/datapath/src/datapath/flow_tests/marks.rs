//! Marks of packets, which go along with them to other bridges.

use super::*;

const MARK: Field = Field::PktMark;

/// Where the first bridge has what comes back from its neighbour go: 2 where it is marked so, 3 where it is not.
fn back(mark: u128) -> [(u8, Match, Vec<Action>); 2] {
    let back = Match::new().with(Field::InPort, 5);
    [(0, back.clone(), vec![output(3)]), (0, back.with(MARK, mark), vec![output(2)])]
}

/// How many frames come out where, of which the first bridge makes this before its neighbour has them.
fn counts_of(bench: &mut Bench, actions: Vec<Action>) -> Vec<usize> {
    let [unmarked, marked] = back(100);
    let actions = [actions, vec![output(5)]].concat();
    set(bench, pipeline(5, &[(0, Match::new(), actions), unmarked, marked]));
    counts(&bench.send(0, &[frame(station(1), station(2))]))
}

#[test]
fn a_mark_goes_along_from_bridge_to_bridge() {
    let mut bench = Bench::new(4);
    add_neighbour(&mut bench, pipeline(6, &[(0, Match::new(), vec![output(PortNo::IN_PORT.0)])]));
    // The neighbour does not look at marks, and leaves them.
    assert_eq!(counts_of(&mut bench, vec![]), [0, 0, 1, 0]);
    assert_eq!(counts_of(&mut bench, vec![write(MARK, 100)]), [0, 1, 0, 0]);
    assert_eq!(counts_of(&mut bench, vec![write(MARK, 7)]), [0, 0, 1, 0]);
    assert_eq!(counts_of(&mut bench, vec![]), [0, 0, 1, 0]);
    // What a copy is marked with is the copy's.
    let copy = Action::Clone(vec![write(MARK, 100), output(5)]);
    assert_eq!(counts_of(&mut bench, vec![copy]), [0, 1, 1, 0]);
}

#[test]
fn what_a_neighbour_makes_of_a_mark_counts() {
    let mut bench = Bench::new(4);
    let rules = [
        (0, Match::new(), vec![write(MARK, 100), output(PortNo::IN_PORT.0)]),
        (0, Match::new().with(MARK, 7), vec![write(MARK, 0), output(PortNo::IN_PORT.0)]),
    ];
    add_neighbour(&mut bench, pipeline(6, &rules));
    for (mark, wanted) in [(0, [0, 1, 0, 0]), (7, [0, 0, 1, 0]), (100, [0, 1, 0, 0])] {
        assert_eq!(counts_of(&mut bench, vec![write(MARK, mark)]), wanted, "{mark}");
    }
}

#[test]
fn a_burst_like_one_before_has_the_mark_that_it_comes_with() {
    let mut bench = Bench::new(4);
    add_neighbour(&mut bench, pipeline(6, &[(0, Match::new(), vec![output(PortNo::IN_PORT.0)])]));
    let [unmarked, marked] = back(100);
    let from = |port, actions| (0, Match::new().with(Field::InPort, port), actions);
    let rules =
        [from(1, vec![output(5)]), from(4, vec![write(MARK, 100), output(5)]), unmarked, marked];
    set(&mut bench, pipeline(5, &rules));
    // Byte by byte, all are the same.
    let burst = vec![frame(station(1), station(2)); 8];
    for (port, wanted) in [(0, [0, 0, 8, 0]), (3, [0, 8, 0, 0])].repeat(3) {
        assert_eq!(counts(&bench.send(port, &burst)), wanted, "{port}");
        assert_eq!(counts(&bench.send(port, &burst)), wanted, "{port}");
    }
}
