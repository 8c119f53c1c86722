//! Two systems that talk to each other, by a clock in the test's hand.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::port::Mux;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A system with ports of these numbers.
struct System {
    agent: Agent,
    links: Vec<Link>,
}

impl System {
    fn new(number: u8, ports: &[u16], is_active: bool, is_fast: bool) -> Self {
        let link = |port: &u16| {
            let system = MacAddr([2, 0, 0, 0, 0, number]);
            let own = Info {
                system_priority: 65534,
                system,
                key: u16::from(number),
                port_priority: 255,
                port: *port,
                flags: Flags(0),
            };
            let manner = Manner::Standard;
            let settings = Settings { own, aggregates: true, is_active, is_fast, manner };
            Link { port: *port, settings, is_up: true }
        };
        Self { agent: Agent::default(), links: ports.iter().map(link).collect() }
    }

    /// The same, by Open vSwitch's machines.
    fn like_open_vswitch(mut self, falls_back: bool) -> Self {
        for link in &mut self.links {
            link.settings.manner = Manner::OpenVswitch { falls_back };
        }
        self
    }

    fn flags(&self, port: u16) -> u8 {
        self.agent.port(port).unwrap().actor().flags.0
    }

    fn in_use(&self) -> Vec<u16> {
        let all = self.links.iter().map(|link| link.port);
        all.filter(|port| self.agent.is_in_use(*port)).collect()
    }

    fn receive(&self, port: u16) -> Receive {
        self.agent.port(port).unwrap().receive()
    }
}

/// Systems and the cables between them.
struct Net {
    systems: Vec<System>,
    cables: Vec<[(usize, u16); 2]>,
    /// Ends that nothing gets out of.
    mute: BTreeSet<(usize, u16)>,
    now: Instant,
    frames: u32,
}

impl Net {
    fn new(systems: Vec<System>, cables: &[[(usize, u16); 2]]) -> Self {
        let (cables, mute) = (cables.to_vec(), BTreeSet::new());
        Self { systems, cables, mute, now: Instant::now(), frames: 0 }
    }

    fn two(ports: &[u16], active: [bool; 2], fast: bool) -> Self {
        let systems =
            [1, 2].map(|n| System::new(n, ports, active[usize::from(n) - 1], fast)).into();
        let cables: Vec<_> = ports.iter().map(|port| [(0, *port), (1, *port)]).collect();
        Self::new(systems, &cables)
    }

    /// All that is due at this moment, and what follows from it.
    fn settle(&mut self) {
        for _ in 0..100 {
            let mut sent = Vec::new();
            for (index, system) in self.systems.iter_mut().enumerate() {
                let pdus = system.agent.run(&system.links, self.now);
                sent.extend(pdus.into_iter().map(|(port, pdu)| ((index, port), pdu)));
            }
            if sent.is_empty() {
                return;
            }
            self.frames += u32::try_from(sent.len()).unwrap();
            for (from, pdu) in sent.into_iter().filter(|(from, _)| !self.mute.contains(from)) {
                let cable = self.cables.iter().find(|cable| cable.contains(&from));
                let Some([one, other]) = cable else { continue };
                let (to, port) = if *one == from { *other } else { *one };
                self.systems[to].agent.hear(port, &pdu, self.now);
            }
        }
        panic!("they never stop talking");
    }

    /// Time goes on, from one thing that is due to the next.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        for _ in 0..10_000 {
            let due = self.systems.iter().filter_map(|system| system.agent.due()).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            assert!(due > self.now, "what is due has been done");
            self.now = due;
            self.settle();
        }
        panic!("time stands still");
    }
}

#[test]
fn two_systems_agree_within_seconds() {
    for (active, fast) in [([true, true], true), ([true, false], true), ([true, true], false)] {
        let mut net = Net::two(&[1, 2, 3], active, fast);
        net.pass(SECOND);
        assert!(net.systems.iter().all(|system| system.in_use().is_empty()));
        net.pass(3 * SECOND);
        for system in &net.systems {
            assert_eq!(system.in_use(), [1, 2, 3], "{active:?} {fast}");
            let actor = system.agent.port(1).unwrap().actor();
            assert!(actor.flags.has(Flags(0x3C)) && !actor.flags.has(Flags::EXPIRED));
        }
        // From then on, they say that they live, and no more.
        net.frames = 0;
        net.pass(60 * SECOND);
        let expected = if fast { 6 * 60 } else { 6 * 2 };
        assert!(net.frames.abs_diff(expected) <= 12, "{} {expected}", net.frames);
    }
}

#[test]
fn two_that_only_answer_never_talk() {
    let mut net = Net::two(&[1], [false, false], true);
    net.pass(120 * SECOND);
    assert_eq!(net.frames, 0);
    assert_eq!(net.systems[0].receive(1), Receive::Defaulted);
    assert!(!net.systems[0].agent.has_partner());
}

#[test]
fn a_partner_that_falls_silent_is_given_up_after_three_seconds_or_ninety() {
    for (fast, seconds) in [(true, 3), (false, 90)] {
        let mut net = Net::two(&[1, 2], [true, true], fast);
        net.pass(40 * SECOND);
        net.mute.insert((1, 2));
        let since_last = if fast { 1 } else { 30 };
        net.pass((seconds - since_last) * SECOND - Duration::from_millis(1));
        assert_eq!(net.systems[0].in_use(), [1, 2], "{fast}");
        net.pass(since_last * SECOND + SECOND);
        assert_eq!(net.systems[0].in_use(), [1]);
        net.pass(3 * SECOND);
        assert_eq!(net.systems[0].receive(2), Receive::Defaulted);
        // The other side hears that, though it is not heard.
        assert_eq!(net.systems[1].in_use(), [1]);
        net.mute.clear();
        net.pass(40 * SECOND);
        assert_eq!(net.systems[0].in_use(), [1, 2], "it is back");
    }
}

#[test]
fn a_link_that_goes_down_is_out_at_once() {
    let mut net = Net::two(&[1, 2], [true, true], false);
    net.pass(10 * SECOND);
    net.systems[0].links[0].is_up = false;
    net.settle();
    assert_eq!(net.systems[0].in_use(), [2]);
    assert_eq!(net.systems[0].receive(1), Receive::Disabled);
    assert_eq!(net.systems[0].agent.port(1).unwrap().mux(), Mux::Detached);
}

#[test]
fn of_links_to_two_systems_one_group_is_used() {
    let systems = vec![
        System::new(1, &[1, 2, 3], true, true),
        System::new(2, &[1], true, true),
        System::new(3, &[1, 2], true, true),
    ];
    let cables = [[(0, 1), (1, 1)], [(0, 2), (2, 1)], [(0, 3), (2, 2)]];
    let mut net = Net::new(systems, &cables);
    net.pass(10 * SECOND);
    assert_eq!(net.systems[0].in_use(), [1]);
    assert!(net.systems[2].in_use().is_empty(), "it is told that it is not chosen");
    // That group stays until it has no port any more.
    net.systems[0].links[0].is_up = false;
    net.pass(10 * SECOND);
    assert_eq!((net.systems[0].in_use(), net.systems[2].in_use()), (vec![2, 3], vec![1, 2]));
    net.systems[0].links[0].is_up = true;
    net.pass(10 * SECOND);
    assert_eq!(net.systems[0].in_use(), [2, 3]);
}

#[test]
fn frames_of_ones_own_and_a_flood_of_others_do_no_harm() {
    let mut net = Net::new(vec![System::new(1, &[1], true, true)], &[[(0, 1), (0, 1)]]);
    net.pass(10 * SECOND);
    assert!(net.systems[0].in_use().is_empty() && !net.systems[0].agent.has_partner());
    // A neighbour that says something else each time gets three answers a second at most.
    let system = &mut net.systems[0];
    let mut answers = 0;
    for number in 0..1_000_u16 {
        let actor = Info {
            system: MacAddr([2, 0, 0, 0, 1, 1]),
            key: number,
            flags: Flags(0x07),
            ..Info::default()
        };
        let partner = Info { key: number, ..Info::default() };
        system.agent.hear(1, &Pdu { actor, partner }, net.now);
        answers += system.agent.run(&system.links, net.now).len();
    }
    assert!(answers <= 3, "{answers}");
}

#[test]
fn a_port_with_another_key_is_told_so() {
    let mut net = Net::two(&[1], [true, true], true);
    net.pass(10 * SECOND);
    assert_eq!(net.systems[1].in_use(), [1]);
    net.systems[0].links[0].settings.own.key = 77;
    net.pass(10 * SECOND);
    assert_eq!(net.systems[1].in_use(), [1]);
    assert_eq!(net.systems[1].agent.port(1).unwrap().partner().key, 77);
}

#[test]
fn like_open_vswitch_a_port_says_that_it_carries_while_its_partner_is_asked_for() {
    let alone = System::new(1, &[1], true, false).like_open_vswitch(false);
    let mut net = Net::new(vec![alone], &[]);
    net.settle();
    let [system] = &net.systems[..] else { unreachable!() };
    // Active, aggregation, synchronized, collecting, distributing, expired.
    assert_eq!((system.flags(1), system.receive(1)), (0b1011_1101, Receive::Expired));
    assert!(system.agent.is_negotiated() && system.in_use().is_empty());
    assert_eq!(net.frames, 1, "it has said so at once");
    net.pass(4 * SECOND);
    let [system] = &net.systems[..] else { unreachable!() };
    // Nobody is left who could lead: what is not agreed on may carry all the same.
    assert_eq!((system.flags(1), system.receive(1)), (0b0111_0101, Receive::Defaulted));
    assert!(!system.agent.is_negotiated() && system.in_use().is_empty());
}

#[test]
fn like_open_vswitch_partners_agree_at_once_and_are_asked_for_when_they_fall_silent() {
    let systems = [1, 2].map(|n| System::new(n, &[1, 2], true, true).like_open_vswitch(false));
    let cables = [[(0, 1), (1, 1)], [(0, 2), (1, 2)]];
    let mut net = Net::new(systems.into(), &cables);
    net.settle();
    assert!(net.systems.iter().all(|system| system.in_use() == [1, 2]));
    net.pass(10 * SECOND);
    net.mute = [(0, 1), (1, 1)].into();
    net.pass(4 * SECOND);
    for system in &net.systems {
        assert_eq!((system.in_use(), system.receive(1)), (vec![2], Receive::Expired));
        assert_eq!(system.flags(1), 0b1011_1111);
        let partner = system.agent.port(1).unwrap().partner();
        assert_eq!(partner.flags.0, 0b0011_0111, "known, but not in step");
    }
    net.pass(4 * SECOND);
    for system in &net.systems {
        assert_eq!((system.in_use(), system.receive(1)), (vec![2], Receive::Defaulted));
        assert_eq!(system.flags(1), 0b0100_0111, "detached, since another one leads");
        assert_eq!(*system.agent.port(1).unwrap().partner(), Info::default());
        let counts = system.agent.port(1).unwrap().counts;
        assert_eq!((counts.expired, counts.defaulted, counts.links), (1, 1, 1));
    }
    net.mute.clear();
    net.pass(30 * SECOND);
    assert!(net.systems.iter().all(|system| system.in_use() == [1, 2]));
}

#[test]
fn like_open_vswitch_a_link_that_goes_down_is_asked_for_and_one_to_itself_is_not_chosen() {
    let systems = [1, 2].map(|n| System::new(n, &[1, 2], true, true).like_open_vswitch(false));
    let mut net = Net::new(systems.into(), &[[(0, 1), (1, 1)], [(0, 2), (1, 2)]]);
    net.pass(SECOND);
    net.systems[0].links[0].is_up = false;
    net.settle();
    assert_eq!((net.systems[0].in_use(), net.systems[0].receive(1)), (vec![2], Receive::Expired));
    let alone = System::new(1, &[1], true, true).like_open_vswitch(false);
    let mut net = Net::new(vec![alone], &[[(0, 1), (0, 1)]]);
    net.pass(10 * SECOND);
    assert!(!net.systems[0].agent.is_negotiated() && net.systems[0].in_use().is_empty());
}

#[test]
fn like_open_vswitch_each_port_falls_back_by_itself_and_a_partner_ends_that() {
    let one = System::new(1, &[1, 2], true, true).like_open_vswitch(true);
    let other = System::new(2, &[1], true, true);
    let mut net = Net::new(vec![one, other], &[[(0, 1), (1, 1)]]);
    net.mute.insert((1, 1));
    net.pass(5 * SECOND);
    assert_eq!(
        (net.systems[0].in_use(), net.systems[0].agent.is_negotiated()),
        (vec![1, 2], false)
    );
    net.mute.clear();
    net.pass(40 * SECOND);
    assert_eq!((net.systems[0].in_use(), net.systems[0].agent.is_negotiated()), (vec![1], true));
}

/// What happens to two systems with two cables between them.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// A link of a system goes down or comes up.
    Link(usize, usize, bool),
    /// Nothing gets out of a port any more, or it does.
    Mute(usize, u16, bool),
    /// Time goes on, in milliseconds.
    Pass(u64),
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let link = (0_usize..2, 0_usize..2, any::<bool>()).prop_map(|(a, b, up)| Fate::Link(a, b, up));
    let mute = (0_usize..2, 1_u16..3, any::<bool>()).prop_map(|(a, b, is)| Fate::Mute(a, b, is));
    let pass = (1_u64..100_000).prop_map(Fate::Pass);
    proptest::collection::vec(prop_oneof![link, mute, pass], 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever has happened, two systems agree on all links once these work, whosever machines they
    /// follow; and neither uses one whose partner it does not hear.
    #[test]
    fn systems_of_any_manner_agree_once_links_work(
        manners in any::<[Option<bool>; 2]>(), active in 0_usize..3, fast in any::<[bool; 2]>(), fates in fates()
    ) {
        let system = |at: usize| {
            let number = u8::try_from(at).unwrap() + 1;
            let system = System::new(number, &[1, 2], active == 2 || active == at, fast[at]);
            match manners[at] {
                None => system,
                Some(falls_back) => system.like_open_vswitch(falls_back),
            }
        };
        let mut net = Net::new(vec![system(0), system(1)], &[[(0, 1), (1, 1)], [(0, 2), (1, 2)]]);
        for fate in fates {
            match fate {
                Fate::Link(system, link, is_up) => net.systems[system].links[link].is_up = is_up,
                Fate::Mute(system, port, true) => _ = net.mute.insert((system, port)),
                Fate::Mute(system, port, false) => _ = net.mute.remove(&(system, port)),
                Fate::Pass(time) => net.pass(Duration::from_millis(time)),
            }
            net.settle();
            for system in net.systems.iter().filter(|system| system.agent.is_negotiated()) {
                let heard = |port: &u16| system.receive(*port) == Receive::Current;
                prop_assert!(system.in_use().iter().all(heard));
            }
        }
        net.mute.clear();
        net.systems.iter_mut().flat_map(|system| &mut system.links).for_each(|link| link.is_up = true);
        net.pass(130 * SECOND);
        for system in &net.systems {
            prop_assert_eq!(system.in_use(), vec![1, 2]);
        }
    }
}
