//! A bridge that looks at groups, as control threads see it: hears what hosts and routers say, and
//! tells what workers have to know of it, and what is to be asked. It is told the time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use datapath::snoop::message::{Message, Response};
use datapath::snoop::view::Ports;
use datapath::snoop::view::View;
use litemap::LiteMap;
use ordered::Gather as _;

use super::table::Table;
use super::{McastRouter, McastSnooping, PortSnooping};

/// Workers are told of changes at most so often, however many there are.
pub(crate) const HOLD: Duration = Duration::from_millis(50);

/// The most groups of which a port is asked one by one; if members leave more of them at once, it is
/// asked for all.
const MOST_ASKED: usize = 8;

/// How often the bridge asks all hosts, where it does so, and how soon again after the first time
/// (RFC 3376, sections 8.2 and 8.6).
const INTERVAL: Duration = Duration::from_secs(125);
const START: Duration = Duration::from_secs(31);

/// How long hosts have to answer: a second where one has left, ten otherwise.
const SOON: Response = Response(10);
const SPREAD: Response = Response(100);

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The hosts behind a port in a VLAN for these groups.
    Port { port: u16, vlan: u16, groups: Vec<IpAddr>, response: Response },
    /// All hosts for all groups, in VLANs without a router, which does so otherwise.
    Regularly { response: Response },
    /// All hosts but those behind a port.
    Others { port: u16, response: Response },
}

/// What has come of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What workers have to know from now on; `None`: what they know.
    pub(crate) view: Option<View>,
    pub(crate) asks: Vec<Ask>,
}

/// The bridge.
#[derive(Debug)]
pub(crate) struct Snooper {
    pub(crate) table: Table,
    ports: Ports,
    /// What workers know is not what they should; and when they were told last.
    is_stale: bool,
    told: Option<Instant>,
    /// By port and VLAN, the groups that members have left.
    left: LiteMap<(u16, u16), BTreeSet<IpAddr>>,
    /// All hosts are to be asked at once, but those behind this port.
    asks_others: Option<u16>,
    /// When it asks all hosts next, as the one who does so regularly; and whether it has done so.
    next: Option<Instant>,
    has_asked: bool,
}

impl Snooper {
    pub(crate) fn new(settings: &McastSnooping) -> Self {
        Self {
            table: Table::new(settings.table_size, ageing(settings)),
            ports: Ports::default(),
            is_stale: true,
            told: None,
            left: LiteMap::new(),
            asks_others: None,
            next: None,
            has_asked: false,
        }
    }

    /// Takes what the bridge and its ports are set to.
    pub(crate) fn set<'p>(
        &mut self,
        settings: &McastSnooping,
        ports: impl Iterator<Item = (u16, &'p PortSnooping)>,
        now: Instant,
    ) {
        self.table.set(settings.table_size, ageing(settings));
        let keeps_unregistered = settings.disable_flood_unregistered;
        let mut own = Ports { keeps_unregistered, ..Ports::default() };
        for (port, settings) in ports {
            if settings.flood {
                own.flood.insert(port);
            }
            if settings.flood_reports {
                own.flood_reports.insert(port);
            }
            if let Some(most) = settings.max_groups {
                self.table.trim(port, most);
            }
            match settings.router {
                McastRouter::Auto => {}
                McastRouter::Always => own.routers.insert(port),
                McastRouter::Never => own.without.insert(port),
            }
        }
        self.is_stale |= own != self.ports;
        self.ports = own;
        self.next = settings.querier.then(|| self.next.unwrap_or(now));
        self.has_asked &= settings.querier;
    }

    /// Hears a message, or something that should be one, from a port that is set so, in a VLAN.
    pub(crate) fn hear(
        &mut self,
        message: Option<Message<'_>>,
        (port, vlan): (u16, u16),
        settings: &PortSnooping,
        now: Instant,
    ) {
        match message {
            Some(Message::Report(records)) => {
                for (group, belongs) in records {
                    if belongs {
                        self.table.join((vlan, group), port, settings.max_groups, now);
                    } else if self.table.leave((vlan, group), port, now) {
                        self.note_left((port, vlan), group);
                    }
                }
            }
            // One who asks without an address is a switch, and no router (RFC 4541, section 2.1.1).
            Some(Message::Query { source, .. }) if source.is_unspecified() => {}
            Some(Message::Query { .. } | Message::Router) => {
                if settings.router != McastRouter::Never {
                    self.table.hear_router(vlan, port, now);
                }
            }
            None => self.table.counts.bad = self.table.counts.bad.saturating_add(1),
        }
    }

    /// Where a router is, it asks; otherwise the bridge has to.
    fn note_left(&mut self, (port, vlan): (u16, u16), group: IpAddr) {
        if self.table.has_router(vlan) {
            return;
        }
        let groups = self.left.entry((port, vlan)).or_default();
        if groups.len() <= MOST_ASKED {
            groups.insert(group);
        }
    }

    /// Forgets everything about `port`.
    pub(crate) fn forget_port(&mut self, port: u16) {
        self.table.forget_port(port);
        self.left.retain(|(of, _), _| *of != port);
    }

    /// Whether frames of some group do not go to all ports.
    pub(crate) fn holds_back(&self) -> bool {
        self.ports.keeps_unregistered || self.table.groups().next().is_some()
    }

    /// Has all hosts asked but those behind `port`, so that the network there hears of their groups
    /// anew.
    pub(crate) const fn ask_others(&mut self, port: u16) {
        self.asks_others = Some(port);
    }

    /// Has all workers told what they should know, since there are some who know nothing.
    pub(crate) const fn tell_again(&mut self) {
        (self.is_stale, self.told) = (true, None);
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, now: Instant) -> Outcome {
        self.table.expire(now);
        self.is_stale |= self.table.take_changed();
        let mut outcome = Outcome::default();
        if self.may_tell(now) && (self.is_stale || !self.left.is_empty()) {
            self.told = Some(now);
            outcome.view = self.take_view();
            for ((port, vlan), groups) in std::mem::take(&mut self.left) {
                let groups = asked(groups);
                outcome.asks.push(Ask::Port { port, vlan, groups, response: SOON });
            }
        }
        if let Some(port) = self.asks_others.take() {
            outcome.asks.push(Ask::Others { port, response: SOON });
        }
        if self.next.is_some_and(|next| next <= now) {
            let wait = if self.has_asked { INTERVAL } else { START };
            (self.next, self.has_asked) = (now.checked_add(wait), true);
            outcome.asks.push(Ask::Regularly { response: SPREAD });
        }
        outcome
    }

    /// What workers should know, if it is not what they do.
    pub(crate) fn take_view(&mut self) -> Option<View> {
        let is_stale = std::mem::replace(&mut self.is_stale, false);
        is_stale.then(|| self.table.view(&self.ports))
    }

    fn may_tell(&self, now: Instant) -> bool {
        let next = self.told.and_then(|told| told.checked_add(HOLD));
        next.is_none_or(|next| next <= now)
    }

    /// When there is something to do next.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = self.is_stale || !self.left.is_empty();
        let told = self.told.filter(|_| waits).and_then(|told| told.checked_add(HOLD));
        told.into_iter().chain(self.table.due()).chain(self.next).min()
    }
}

/// What to ask for where members have left these groups: each of them, or all of their kind if that
/// would be many questions.
fn asked(groups: BTreeSet<IpAddr>) -> Vec<IpAddr> {
    if groups.len() <= MOST_ASKED {
        return groups.into_iter().collect();
    }
    let all = |group: IpAddr| match group {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    groups.into_iter().map(all).gather::<BTreeSet<_>>().into_iter().collect()
}

fn ageing(settings: &McastSnooping) -> Duration {
    Duration::from_secs(settings.aging_time.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use datapath::snoop::message::{ask, parse};
    use packet::MacAddr;
    use packet::checksum::checksum;

    use super::*;

    const GROUP: [u8; 4] = [239, 1, 2, 3];
    const ROUTER: [u8; 4] = [192, 0, 2, 254];
    const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    /// A query of IGMP.
    fn query_frame(source: [u8; 4], group: [u8; 4]) -> Vec<u8> {
        ask(STATION, source.into(), Ipv4Addr::from(group).into(), Response(100))
    }

    /// A report of IGMPv2, or that its host leaves, in place of the message of a query.
    fn report(group: [u8; 4], belongs: bool) -> Vec<u8> {
        const BEFORE: usize = 14 + 24;
        let mut frame = query_frame([192, 0, 2, 1], group);
        let kind = if belongs { 0x16 } else { 0x17 };
        let mut message = [&[kind, 0, 0, 0][..], &group, &[0; 4]].concat();
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        frame.splice(BEFORE.., message);
        frame
    }

    /// A bridge with ports 0 to 3, which are set so.
    struct Bench(Snooper, [PortSnooping; 4], McastSnooping, Instant);

    impl Bench {
        fn new(change: impl FnOnce(&mut [PortSnooping; 4], &mut McastSnooping)) -> Self {
            let (mut ports, mut settings) = <([PortSnooping; 4], McastSnooping)>::default();
            change(&mut ports, &mut settings);
            let mut bench = Self(Snooper::new(&settings), ports, settings, Instant::now());
            assert!(bench.run().view.is_some(), "workers know nothing yet");
            bench
        }

        fn hear(&mut self, port: u16, frame: &[u8]) {
            let settings = &self.1[usize::from(port)];
            self.0.hear(parse(frame, true), (port, 0), settings, self.3);
        }

        fn run(&mut self) -> Outcome {
            let Self(snooper, ports, settings, now) = self;
            snooper.set(settings, (0..).zip(ports.iter()), *now);
            snooper.run(*now)
        }

        /// The same after a while.
        fn run_after(&mut self, wait: Duration) -> Outcome {
            self.3 += wait;
            self.run()
        }

        fn groups(&self) -> (usize, usize) {
            self.0.table.len()
        }
    }

    #[test]
    fn however_many_changes_there_are_workers_are_told_in_turn() {
        let mut bench = Bench::new(|_, _| {});
        for group in 1..=100 {
            bench.hear(1, &report([239, 0, 0, group], true));
            assert!(bench.run().view.is_none());
        }
        assert_eq!(bench.0.due(), Some(bench.3 + HOLD));
        assert!(bench.run_after(HOLD).view.is_some());
        bench.hear(1, &report([239, 0, 0, 1], true));
        assert!(bench.run_after(HOLD).view.is_none(), "that is known");
        bench.hear(1, &report([239, 0, 0, 101], true));
        assert!(bench.run_after(HOLD).view.is_some());
        bench.hear(1, &report([239, 0, 0, 102], true));
        assert!(bench.run().view.is_none());
        assert!(bench.0.take_view().is_some(), "whenever they were told last");
        assert!(bench.0.take_view().is_none());
        assert_eq!(bench.groups(), (102, 102));
        bench.0.tell_again();
        assert!(bench.run().view.is_some());
    }

    #[test]
    fn where_no_router_asks_the_bridge_does_when_a_member_leaves() {
        let mut bench = Bench::new(|_, _| {});
        for port in [1, 2] {
            bench.hear(port, &report(GROUP, true));
        }
        bench.run_after(HOLD);
        bench.hear(1, &report(GROUP, false));
        bench.hear(3, &report(GROUP, false));
        let groups = vec![Ipv4Addr::from(GROUP).into()];
        let expected = Ask::Port { port: 1, vlan: 0, groups, response: SOON };
        assert_eq!(bench.run_after(HOLD).asks, [expected]);
        assert!(bench.run_after(Duration::from_secs(2)).view.is_some());
        assert_eq!(bench.groups(), (1, 1));
        // A router does so itself.
        bench.hear(0, &query_frame(ROUTER, [0; 4]));
        bench.hear(2, &report(GROUP, false));
        assert_eq!(bench.run_after(HOLD).asks, []);
        bench.run_after(Duration::from_secs(2));
        assert_eq!(bench.groups(), (0, 0));
    }

    #[test]
    fn who_leaves_many_groups_at_once_is_asked_for_all() {
        let mut bench = Bench::new(|_, _| {});
        for belongs in [true, false] {
            for group in 1..=100 {
                bench.hear(1, &report([239, 0, 0, group], belongs));
            }
        }
        let groups = vec![[0; 4].into()];
        let expected = Ask::Port { port: 1, vlan: 0, groups, response: SOON };
        assert_eq!(bench.run_after(HOLD).asks, [expected]);
    }

    #[test]
    fn routers_are_where_they_are_heard_or_set() {
        let mut bench = Bench::new(|ports, _| ports[2].router = McastRouter::Never);
        bench.hear(1, &query_frame([0; 4], [0; 4]));
        bench.hear(2, &query_frame(ROUTER, [0; 4]));
        bench.run();
        assert!(!bench.0.table.has_router(0));
        bench.hear(1, &query_frame(ROUTER, [0; 4]));
        assert!(bench.0.table.has_router(0));
        bench.0.forget_port(1);
        assert!(!bench.0.table.has_router(0));
        bench.hear(1, &[0; 60]);
        assert_eq!(bench.0.table.counts.bad, 1);
    }

    #[test]
    fn a_querier_asks_twice_soon_and_then_regularly() {
        let mut bench = Bench::new(|_, _| {});
        assert_eq!(bench.0.due(), None);
        bench.2.querier = true;
        let expected = [Ask::Regularly { response: SPREAD }];
        assert_eq!(bench.run().asks, expected);
        assert_eq!(bench.run_after(START - HOLD).asks, []);
        assert_eq!(bench.run_after(HOLD).asks, expected);
        assert_eq!(bench.0.due(), Some(bench.3 + INTERVAL));
        assert_eq!(bench.run_after(INTERVAL).asks, expected);
        bench.2.querier = false;
        bench.0.ask_others(3);
        assert_eq!(bench.run_after(INTERVAL).asks, [Ask::Others { port: 3, response: SOON }]);
        assert_eq!(bench.run_after(INTERVAL).asks, []);
    }
}
