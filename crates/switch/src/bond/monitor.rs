//! Which members of a bond lead somewhere, found out by asking stations behind them. Nothing here reads
//! a clock or sends anything: whoever has a monitor tells it the time and the links, and sends what it
//! asks for.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use eal::time::later;
use litemap::LiteMap;
use packet::MacAddr;

use super::probe::Asker;
use crate::report::MemberArp;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    /// Who is asked for.
    pub(crate) targets: Vec<IpAddr>,
    /// How often.
    pub(crate) interval: Duration,
    /// How many questions in turn a target may leave without an answer.
    pub(crate) missed: u32,
    /// Whether all targets have to answer, and not any.
    pub(crate) all: bool,
    /// What of [`Asker`] is the same for all members.
    pub(crate) source: Ipv4Addr,
    pub(crate) vlan: u16,
}

/// A member, as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Its number.
    pub(crate) port: u16,
    /// Its own address, and one that is made up for it: questions come from the first, unless it is
    /// none of a station, or that of another member.
    pub(crate) macs: [MacAddr; 2],
    /// Whether its link is up and it is in service.
    pub(crate) is_up: bool,
}

/// What is known of a member.
#[derive(Clone, Debug)]
struct Watched {
    own: MacAddr,
    is_up: bool,
    targets: Vec<Target>,
    /// When it asks next.
    next: Option<Instant>,
    sent: u64,
    received: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Target {
    /// How many questions in turn it has not answered.
    missed: u32,
    /// Whether the last one is not answered yet.
    is_asked: bool,
}

/// The members of a bond, if it asks.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    asking: Option<Asking>,
    members: LiteMap<u16, Watched>,
}

impl Monitor {
    /// This is asked for, and these are the members. One that is new counts as good until it has missed
    /// as many answers as it may, so does each when something else is asked for; one whose link comes up
    /// counts once it is answered.
    pub(crate) fn set(&mut self, asking: Option<Asking>, links: &[Link]) {
        if self.asking != asking {
            self.members.iter_mut().for_each(|(_, member)| member.restart());
            self.asking = asking;
        }
        let Some(asking) = &self.asking else { return self.members.clear() };
        self.members.retain(|number, _| links.iter().any(|link| link.port == *number));
        for link in links {
            let own = self.free_address(link);
            let member =
                self.members.entry(link.port).or_insert_with(|| Watched::new(own, link.is_up));
            member.targets.resize(asking.targets.len(), Target::default());
            member.follow_link(link.is_up, asking.missed);
        }
    }

    /// The address that a member asks from: no other's, so that each has its own answers.
    fn free_address(&self, link: &Link) -> MacAddr {
        let others = || self.members.iter().filter(|(number, _)| **number != link.port);
        let is_free = |mac: &MacAddr| others().all(|(_, other)| other.own != *mac);
        let [own, made_up] = link.macs;
        Some(own).filter(|mac| mac.is_station() && is_free(mac)).unwrap_or(made_up)
    }

    /// Whose answers are to be heard: each member with its address.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (u16, MacAddr)> {
        self.members.iter().map(|(number, member)| (*number, member.own))
    }

    fn asker(&self, own: MacAddr) -> Option<Asker> {
        let Asking { source, vlan, .. } = *self.asking.as_ref()?;
        Some(Asker { own, source, vlan })
    }

    /// A frame has come in on a member that may be an answer.
    pub(crate) fn hear(&mut self, port: u16, frame: &[u8]) {
        let own = self.members.get(&port).map(|member| member.own);
        let asker = own.and_then(|own| self.asker(own));
        let from = asker.and_then(|asker| asker.answer(frame));
        let (Some(asking), Some(member)) = (&self.asking, self.members.get_mut(&port)) else {
            return;
        };
        let targets = asking.targets.iter().zip(&mut member.targets);
        for (_, target) in targets.filter(|(ip, _)| Some(**ip) == from) {
            *target = Target::default();
            member.received = member.received.saturating_add(1);
        }
    }

    /// Does what is due at `now`: returns the questions to send, with the member of each.
    pub(crate) fn run(&mut self, now: Instant) -> Vec<(u16, Vec<Vec<u8>>)> {
        let Some(asking) = &self.asking else { return Vec::new() };
        let mut all = Vec::new();
        for (number, member) in &mut self.members {
            if !member.is_up || member.next.is_some_and(|next| next > now) {
                continue;
            }
            // A clock that was put forward makes one question late, not many unanswered.
            member.next = Some(later(now, asking.interval));
            let asker = Asker { own: member.own, source: asking.source, vlan: asking.vlan };
            for target in &mut member.targets {
                target.missed = target.missed.saturating_add(u32::from(target.is_asked));
                target.is_asked = true;
            }
            let questions: Vec<Vec<u8>> =
                asking.targets.iter().map(|target| asker.question(*target)).collect();
            member.sent = member.sent.saturating_add(questions.len() as u64);
            all.push((*number, questions));
        }
        all
    }

    /// What a member has found out; `None` where nothing is asked.
    pub(crate) fn found(&self, port: u16) -> Option<MemberArp> {
        let asking = self.asking.as_ref()?;
        let member = self.members.get(&port)?;
        let is_answered = |target: &Target| target.missed < asking.missed;
        let mut targets = member.targets.iter();
        let is_answered =
            if asking.all { targets.all(is_answered) } else { targets.any(is_answered) };
        Some(MemberArp { is_answered, sent: member.sent, received: member.received })
    }

    /// When there is something to do next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.members.values().filter_map(|member| member.next).min()
    }
}

impl Watched {
    const fn new(own: MacAddr, is_up: bool) -> Self {
        Self { own, is_up, targets: Vec::new(), next: None, sent: 0, received: 0 }
    }

    /// Something else is asked for.
    fn restart(&mut self) {
        self.targets.clear();
        self.next = None;
    }

    fn follow_link(&mut self, is_up: bool, most: u32) {
        if !is_up {
            self.next = None;
        } else if !self.is_up {
            self.targets.fill(Target { missed: most, is_asked: false });
        }
        self.is_up = is_up;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use eal::time::Time;

    use super::super::probe::tests::answer_to;
    use super::*;

    const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn asking(targets: &[&str]) -> Asking {
        Asking {
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
            interval: Duration::from_secs(1),
            missed: 2,
            all: false,
            source: Ipv4Addr::UNSPECIFIED,
            vlan: 0,
        }
    }

    fn link(port: u16, is_up: bool) -> Link {
        let mac = |last| MacAddr([2, 0, 0, 0, 1, last]);
        Link { port, macs: [mac(1), mac(100 + u8::try_from(port).unwrap())], is_up }
    }

    struct Bench {
        monitor: Monitor,
        asking: Asking,
        now: Instant,
    }

    impl Bench {
        fn new(asking: Asking) -> Self {
            Self { monitor: Monitor::default(), asking, now: Time::stopped().now() }
        }

        /// A second passes in which the questions by these members are answered, except to some.
        fn second(&mut self, links: &[Link], answered: &[u16], except: &[&str]) -> Vec<bool> {
            self.monitor.set(Some(self.asking.clone()), links);
            for (port, questions) in self.monitor.run(self.now) {
                for (question, target) in questions.iter().zip(&self.asking.targets) {
                    let is_silent = except.contains(&target.to_string().as_str());
                    if answered.contains(&port) && !is_silent {
                        self.monitor.hear(port, &answer_to(question, GATEWAY).unwrap());
                    }
                }
            }
            self.now += Duration::from_secs(1);
            let found = |link: &Link| self.monitor.found(link.port).unwrap().is_answered;
            links.iter().map(found).collect()
        }
    }

    #[test]
    fn a_member_counts_until_it_has_missed_too_much_and_again_when_it_is_answered() {
        for target in ["10.1.0.2", "fd00::2"] {
            let mut bench = Bench::new(asking(&[target]));
            let links = [link(3, true), link(4, true)];
            assert_eq!(bench.second(&links, &[3], &[]), [true, true]);
            assert_eq!(bench.second(&links, &[3], &[]), [true, true]);
            assert_eq!(bench.second(&links, &[3], &[]), [true, false], "two have no answer");
            assert_eq!(bench.second(&links, &[3, 4], &[]), [true, true]);
            let found = bench.monitor.found(4).unwrap();
            assert_eq!((found.sent, found.received), (4, 1));
            assert_eq!(bench.monitor.due(), Some(bench.now));
        }
    }

    #[test]
    fn members_with_one_address_ask_from_others() {
        let mut bench = Bench::new(asking(&["10.1.0.2"]));
        let links = [link(3, true), link(4, true)];
        bench.second(&links, &[], &[]);
        let macs: Vec<MacAddr> = bench.monitor.addresses().map(|(_, mac)| mac).collect();
        assert_eq!(macs, [link(3, true).macs[0], link(4, true).macs[1]]);
        bench.second(&links[1..], &[], &[]);
        let stays = bench.monitor.addresses().collect::<Vec<_>>();
        assert_eq!(stays, [(4, macs[1])], "as long as the member is there");
    }

    #[test]
    fn any_target_is_enough_or_all_are_wanted() {
        let links = [link(3, true)];
        for (all, expected) in [(false, true), (true, false)] {
            let asking = Asking { all, ..asking(&["10.1.0.2", "fd00::2"]) };
            let mut bench = Bench::new(asking);
            for _ in 0..2 {
                bench.second(&links, &[3], &["fd00::2"]);
            }
            assert_eq!(bench.second(&links, &[3], &["fd00::2"]), [expected]);
        }
    }

    #[test]
    fn a_link_that_comes_up_counts_once_it_is_answered() {
        let mut bench = Bench::new(asking(&["10.1.0.2"]));
        let (up, down) = ([link(3, true)], [link(3, false)]);
        assert_eq!(bench.second(&up, &[3], &[]), [true]);
        bench.second(&down, &[3], &[]);
        assert_eq!((bench.monitor.due(), bench.monitor.found(3).unwrap().sent), (None, 1));
        assert_eq!(bench.second(&up, &[], &[]), [false]);
        assert_eq!(bench.second(&up, &[3], &[]), [true]);
        // Where something else is asked for, it begins anew.
        assert_eq!(bench.second(&up, &[], &[]), [true]);
        assert_eq!(bench.second(&up, &[], &[]), [true]);
        assert_eq!(bench.second(&up, &[], &[]), [false]);
        bench.asking = asking(&["10.1.0.3"]);
        assert_eq!(bench.second(&up, &[], &[]), [true]);
        bench.monitor.set(None, &up);
        assert_eq!((bench.monitor.found(3), bench.monitor.due()), (None, None));
        assert!(bench.monitor.run(bench.now).is_empty());
    }

    #[test]
    fn a_clock_that_is_put_forward_takes_nothing_down() {
        let mut bench = Bench::new(asking(&["10.1.0.2"]));
        let links = [link(3, true)];
        bench.second(&links, &[3], &[]);
        bench.now += Duration::from_hours(1);
        assert_eq!(bench.second(&links, &[], &[]), [true]);
        assert_eq!(bench.second(&links, &[], &[]), [true]);
        assert_eq!(bench.second(&links, &[], &[]), [false]);
    }
}
