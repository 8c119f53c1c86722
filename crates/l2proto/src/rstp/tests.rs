//! Networks of bridges: they find a tree, and another one when links are cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use packet::MacAddr;
use proptest::prelude::*;

use super::bpdu::{Bpdu, parse};
use super::port::{Role, Settings as PortSettings, State};
use super::tree::{Link, Settings, Todo, Tree};
use super::vector::BridgeName;

/// One end of a link: a bridge and its port.
type End = (usize, u16);

/// Bridges, and links between their ports.
struct Network {
    trees: Vec<Tree>,
    links: Vec<Option<[End; 2]>>,
    /// Messages on their way.
    flying: VecDeque<(End, Bpdu)>,
    flushed: usize,
}

fn bridge(number: usize, priority: u16, is_rapid: bool) -> Settings {
    let last = u8::try_from(number).unwrap();
    let name = BridgeName::new(priority, MacAddr([2, 0, 0, 0, 0, last]));
    Settings { name, max_age: 20, hello: 2, forward_delay: 15, hold_count: 6, is_rapid }
}

fn port(number: u16, cost: u32) -> PortSettings {
    let id = 0x8000 | (number + 1);
    PortSettings { id, cost, admin_edge: false, auto_edge: true, point_to_point: true }
}

impl Network {
    fn new(bridges: impl IntoIterator<Item = Settings>, links: &[[usize; 2]]) -> Self {
        let trees: Vec<Tree> = bridges.into_iter().map(Tree::new).collect();
        let mut next = vec![0_u16; trees.len()];
        let mut end = |bridge: usize| {
            next[bridge] += 1;
            (bridge, next[bridge] - 1)
        };
        let links = links.iter().map(|[a, b]| Some([end(*a), end(*b)])).collect();
        let mut network = Self { trees, links, flying: VecDeque::new(), flushed: 0 };
        network.update();
        network
    }

    /// The other end of a link.
    fn other(&self, end: End) -> Option<End> {
        let links = self.links.iter().flatten();
        links
            .flat_map(|[a, b]| [(*a, *b), (*b, *a)])
            .find(|(from, _)| *from == end)
            .map(|(_, to)| to)
    }

    /// Tells all bridges which links there are.
    fn update(&mut self) {
        let mut up: BTreeMap<End, bool> = BTreeMap::new();
        for (bridge, tree) in self.trees.iter().enumerate() {
            up.extend(tree.ports().map(|(port, _)| ((bridge, port), false)));
        }
        up.extend(self.links.iter().flatten().flatten().map(|end| (*end, true)));
        for bridge in 0..self.trees.len() {
            let mine = up.iter().filter(|((of, _), _)| *of == bridge);
            let link = |((_, number), is_up): (&End, &bool)| Link {
                port: *number,
                settings: port(*number, 20_000),
                is_up: *is_up,
            };
            let links: Vec<Link> = mine.map(link).collect();
            self.trees[bridge].update(&links);
            self.collect(bridge);
        }
        self.deliver();
    }

    fn collect(&mut self, bridge: usize) {
        let Todo { flush, send, .. } = self.trees[bridge].take();
        self.flushed += flush.len();
        for (port, bpdu) in send {
            // Over the wire, where what is too old is not taken.
            let bpdu = parse(&bpdu.frame(MacAddr([2, 0, 0, 0, 0, 99])));
            let Some(bpdu) = bpdu else { continue };
            self.flying.extend(self.other((bridge, port)).map(|to| (to, bpdu)));
        }
    }

    /// Delivers all messages, and those that they cause.
    fn deliver(&mut self) {
        for _ in 0..100_000 {
            let Some(((bridge, port), bpdu)) = self.flying.pop_front() else { return };
            self.trees[bridge].hear(port, &bpdu);
            self.collect(bridge);
        }
        panic!("they do not stop talking");
    }

    fn tick(&mut self) {
        for bridge in 0..self.trees.len() {
            self.trees[bridge].tick();
            self.collect(bridge);
        }
        self.deliver();
    }

    /// Lets time pass, in which there is never a loop.
    fn run(&mut self, seconds: usize) {
        for _ in 0..seconds {
            self.tick();
            self.assert_no_loop();
        }
    }

    /// The same where there may be one: what is wrong since a link was cut may go round for a while,
    /// and is agreed on meanwhile, by the rules of the standard.
    fn settle(&mut self, seconds: usize) {
        (0..seconds).for_each(|_| self.tick());
        self.assert_tree();
    }

    fn cut(&mut self, link: usize) {
        self.links[link] = None;
        self.update();
    }

    fn forwards(&self, (bridge, port): End) -> bool {
        self.trees[bridge].state(port) == State::Forwarding
    }

    /// The links that frames pass.
    fn active(&self) -> Vec<[End; 2]> {
        let links = self.links.iter().flatten().copied();
        links.filter(|[a, b]| self.forwards(*a) && self.forwards(*b)).collect()
    }

    /// Which bridges reach each other over such links: for each the first of its group; and whether
    /// there is more than one way.
    fn groups(&self, links: &[[End; 2]]) -> (Vec<usize>, bool) {
        let mut group: Vec<usize> = (0..self.trees.len()).collect();
        let mut is_loop = false;
        for [(a, _), (b, _)] in links {
            let (from, to) = (group[*a].max(group[*b]), group[*a].min(group[*b]));
            is_loop |= from == to;
            group.iter_mut().filter(|one| **one == from).for_each(|one| *one = to);
        }
        (group, is_loop)
    }

    fn assert_no_loop(&self) {
        assert!(!self.groups(&self.active()).1, "a loop: {:?}", self.roles());
    }

    fn roles(&self) -> Vec<Vec<(u16, Role, State)>> {
        let of = |tree: &Tree| {
            tree.ports().map(|(number, port)| (number, port.role(), port.state())).collect()
        };
        self.trees.iter().map(of).collect()
    }

    /// That there is one tree for all that are connected, with the best bridge as its root.
    fn assert_tree(&self) {
        self.assert_no_loop();
        let all: Vec<_> = self.links.iter().flatten().copied().collect();
        let (connected, _) = self.groups(&all);
        let (reached, _) = self.groups(&self.active());
        assert_eq!(connected, reached, "{:?}", self.roles());
        for (bridge, tree) in self.trees.iter().enumerate() {
            let mine = (0..self.trees.len()).filter(|other| connected[*other] == connected[bridge]);
            let best = mine.map(|other| self.trees[other].settings().name).min().unwrap();
            assert_eq!(tree.root().root, best, "the root of {bridge}");
            let steps = self.distance(bridge, best);
            assert_eq!(tree.root().cost, 20_000 * steps, "the way of {bridge}");
        }
    }

    /// How many links it takes from a bridge to the one of this name.
    fn distance(&self, bridge: usize, to: BridgeName) -> u32 {
        let mut seen = BTreeSet::from([bridge]);
        for steps in 0.. {
            if seen.iter().any(|bridge| self.trees[*bridge].settings().name == to) {
                return steps;
            }
            let links = self.links.iter().flatten();
            let next = links.filter(|[a, b]| seen.contains(&a.0) || seen.contains(&b.0));
            let next: Vec<usize> = next.flat_map(|[a, b]| [a.0, b.0]).collect();
            seen.extend(next);
        }
        unreachable!()
    }
}

/// Networks that are tried.
const CASES: u32 = 64;

/// As many bridges that speak the rapid protocol.
fn rapid(count: usize) -> impl Iterator<Item = Settings> {
    (0..count).map(|number| bridge(number, 0x8000, true))
}

#[test]
fn a_change_that_is_made_known_has_all_bridges_forget() {
    let mut network = Network::new(rapid(3), &[[0, 1], [1, 2]]);
    network.settle(40);
    let (flushed, changes) = (network.flushed, network.trees[2].changes);
    network.trees[0].note_change();
    network.collect(0);
    network.deliver();
    assert!(network.flushed > flushed && network.trees[2].changes > changes);
    network.assert_tree();
}

#[test]
fn a_root_of_the_old_protocol_hears_of_a_change_at_once() {
    let old = (0..3).map(|number| bridge(number, 0x8000, false));
    let mut network = Network::new(old, &[[0, 1], [1, 2]]);
    network.settle(100);
    let changes = network.trees[0].changes;
    network.trees[2].note_change();
    network.collect(2);
    network.deliver();
    assert_eq!(network.trees[0].changes, changes + 1);
}

#[test]
fn two_bridges_with_two_links_use_one_of_them_at_once() {
    let mut network = Network::new(rapid(2), &[[0, 1], [0, 1]]);
    // By proposal and agreement, without any timer.
    network.assert_tree();
    let roles = network.roles();
    assert!(roles[0].iter().all(|(_, role, _)| *role == Role::Designated));
    assert_eq!(
        roles[1],
        [(0, Role::Root, State::Forwarding), (1, Role::Alternate, State::Discarding)]
    );
    network.run(60);
    network.assert_tree();
    let before = network.flushed;
    network.cut(0);
    network.assert_tree();
    assert!(network.flushed > before, "where stations are is found out anew");
    assert_eq!(network.roles()[1][1], (1, Role::Root, State::Forwarding));
}

#[test]
fn a_ring_is_closed_again_when_it_is_cut_anywhere() {
    for cut in 0..4 {
        let mut network = Network::new(rapid(4), &[[0, 1], [1, 2], [2, 3], [3, 0]]);
        network.run(10);
        network.assert_tree();
        network.cut(cut);
        network.run(3);
        network.assert_tree();
    }
}

#[test]
fn the_bridge_with_the_lowest_priority_is_the_root() {
    let mut network = Network::new(rapid(3), &[[0, 1], [1, 2], [2, 0]]);
    network.run(10);
    assert_eq!(network.trees[1].root().root, network.trees[0].settings().name);
    network.trees[2].set(bridge(2, 0x1000, true));
    network.update();
    network.run(10);
    network.assert_tree();
    assert_eq!(network.trees[1].root().root, network.trees[2].settings().name);
    assert_eq!(network.trees[1].root_port(), Some(1));
}

#[test]
fn a_port_without_a_bridge_behind_it_forwards_after_three_seconds() {
    let mut tree = Tree::new(bridge(0, 0x8000, true));
    let link = |admin_edge| Link {
        port: 0,
        settings: PortSettings { admin_edge, ..port(0, 1) },
        is_up: true,
    };
    tree.update(&[link(false)]);
    (0..2).for_each(|_| tree.tick());
    assert_eq!(tree.state(0), State::Discarding);
    tree.tick();
    assert_eq!(tree.state(0), State::Forwarding);
    let mut tree = Tree::new(bridge(0, 0x8000, true));
    tree.update(&[link(true)]);
    assert_eq!(tree.state(0), State::Forwarding, "at once, where it is said");
    assert!(tree.take().flush.is_empty() && tree.changes == 0);
}

#[test]
fn ports_of_one_bridge_that_are_joined_use_none_of_the_two() {
    let mut network = Network::new(rapid(1), &[[0, 0]]);
    network.run(60);
    let roles = network.roles();
    assert_eq!(roles[0][0], (0, Role::Designated, State::Forwarding));
    assert_eq!(roles[0][1], (1, Role::Backup, State::Discarding));
}

#[test]
fn the_old_protocol_takes_its_time() {
    let all = [bridge(0, 0x8000, false), bridge(1, 0x8000, true)];
    let mut network = Network::new(all, &[[0, 1], [0, 1]]);
    network.run(29);
    assert!(network.active().is_empty(), "{:?}", network.roles());
    network.run(21);
    network.assert_tree();
    assert!(network.trees[1].ports().all(|(_, port)| !port.sends_rstp()));
    network.cut(0);
    network.run(52);
    network.assert_tree();
    // It learns the new one.
    network.trees[0].set(bridge(0, 0x8000, true));
    network.update();
    network.trees[1].check_protocol(1);
    network.run(10);
    network.assert_tree();
    assert!(network.trees[1].ports().any(|(_, port)| port.sends_rstp()));
}

#[test]
fn a_neighbour_that_falls_silent_is_forgotten() {
    let mut network = Network::new(rapid(2), &[[0, 1]]);
    network.run(10);
    for _ in 0..6 {
        network.trees[1].tick();
        network.trees[1].take();
    }
    assert_eq!(network.trees[1].root_port(), None, "after three times the hello time");
    assert_eq!(network.trees[1].root().root, network.trees[1].settings().name);
}

#[test]
fn a_port_sends_six_messages_a_second_at_most() {
    let mut tree = Tree::new(bridge(0, 0x8000, true));
    tree.update(&[Link { port: 0, settings: port(0, 1), is_up: true }]);
    let other = bridge(1, 0x9000, true).name;
    let mut sent = tree.take().send.len();
    for number in 0..1_000 {
        // A neighbour that proposes something else each time.
        let mut said = Tree::new(Settings { name: other, ..*tree.settings() });
        said.update(&[Link { port: number % 16, settings: port(number % 16, 1), is_up: true }]);
        let (_, bpdu) = said.take().send.remove(0);
        tree.hear(0, &bpdu);
        sent += tree.take().send.len();
    }
    assert!(sent <= 6, "{sent}");
}

prop_compose! {
    /// Bridges, links between any two of them or from one to itself, and which are cut later.
    fn any_network()(
        bridges in 2_usize..7,
        priorities in proptest::collection::vec(0_u16..16, 7),
        old in proptest::collection::vec(proptest::bool::weighted(0.15), 7),
        links in proptest::collection::vec((any::<usize>(), any::<usize>()), 1..13),
        cuts in proptest::collection::vec(any::<usize>(), 0..5),
    ) -> (Vec<Settings>, Vec<[usize; 2]>, Vec<usize>) {
        let settings = (0..bridges).map(|n| bridge(n, priorities[n] << 12, !old[n])).collect();
        let links = links.into_iter().map(|(a, b)| [a % bridges, b % bridges]).collect();
        (settings, links, cuts)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn any_network_finds_a_tree_and_another_when_links_are_cut(
        (bridges, links, cuts) in any_network()
    ) {
        let count = links.len();
        let mut network = Network::new(bridges, &links);
        network.settle(80);
        for cut in cuts {
            network.cut(cut % count);
            network.settle(100);
        }
    }

    #[test]
    fn whatever_neighbours_say_it_comes_to_rest(
        frames in proptest::collection::vec(
            (0_u16..4, proptest::collection::vec(any::<u8>(), 36), any::<bool>()), 0..100
        )
    ) {
        let mut tree = Tree::new(bridge(7, 0x8000, true));
        let links: Vec<_> =
            (0..4).map(|n| Link { port: n, settings: port(n, 7), is_up: true }).collect();
        tree.update(&links);
        let whole = Bpdu::Tcn.frame(MacAddr([2, 0, 0, 0, 0, 1]));
        for (number, body, ticks) in frames {
            let mut frame = whole.clone();
            frame[13] = 39;
            frame[17..53].copy_from_slice(&body);
            // Close enough to be understood, mostly.
            frame[17..19].fill(0);
            frame[19..21].copy_from_slice(if body[2] & 1 == 0 { &[2, 2] } else { &[0, 0] });
            (frame[44], frame[46]) = (body[27] & 15, 20);
            if let Some(bpdu) = parse(&frame) {
                tree.hear(number, &bpdu);
            }
            if ticks {
                tree.tick();
            }
            let sent = tree.take().send;
            prop_assert!(sent.len() <= 4 * 6 + 4);
        }
    }
}
