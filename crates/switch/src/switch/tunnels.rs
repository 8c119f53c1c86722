//! Tunnels as control threads see them: which ports there are, by which bridges they go, and who is known
//! there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use datapath::inlet::{Heard, Inlet};
use datapath::tunnel::hop::{End, Way, Ways};
use datapath::tunnel::{ANSWER_LEN, TunnelPort, Tunnels};
use datapath::worker::Message;
use ethdev::{Link, OpenPort, PortControl, PortInfo, PortStats};
use litemap::LiteMap;
use ordered::Gather as _;
use packet::MacAddr;
use tunnel::{Address, Mode, Neighbours, Route, Routes, Settings, told};

use super::counts::Counts;
use super::{Control, Kind, Switch};
use crate::config::PortOptions;
use crate::error::Error;
use crate::ports::Entry;

/// The most answers of neighbours that wait: those of several bridges, of each as many as may come at once.
const ANSWERS: usize = 256;

/// The most looks at what is news in a second.
const MOST_LOOKS: u32 = 16;

/// What both the entry of a tunnel's port and its control side know.
#[derive(Debug)]
pub(crate) struct Tube {
    settings: Arc<Settings>,
    /// An address for controllers and the database: frames have none of it.
    mac: MacAddr,
    /// The number that the next packet has, where packets have numbers.
    numbers: Arc<AtomicU32>,
    counts: Counts,
}

impl Tube {
    /// What it is set to.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same, to be kept.
    pub(super) fn shared_settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// What has gone through, all workers together.
    pub(crate) fn stats(&self) -> PortStats {
        self.counts.stats()
    }
}

/// The control side of a tunnel's port.
struct TunnelControl(Arc<Tube>);

impl PortControl for TunnelControl {
    fn info(&self) -> PortInfo {
        let driver = self.0.settings.kind.name();
        PortInfo { driver, rx_queues: 0, tx_queues: 0, max_mtu: u16::MAX }
    }

    /// Nobody tells whether the other end is there.
    fn link(&self) -> Link {
        Link { up: true, speed_mbps: None, changes: 1 }
    }

    fn mac(&self) -> MacAddr {
        self.0.mac
    }

    /// It takes frames of any length: the ports that outer frames go out on have MTUs.
    fn mtu(&self) -> u16 {
        u16::MAX
    }

    fn details(&self) -> Vec<(String, String)> {
        let remote = match self.0.settings.remote {
            Address::Is(address) => address.to_string(),
            Address::Any | Address::Flow => "flow".to_owned(),
        };
        vec![("remote".to_owned(), remote)]
    }
}

/// By which bridges tunnels go, and who is known there.
#[derive(Debug)]
pub(super) struct Underlay {
    /// The addresses that the host has by ports of bridges.
    addresses: LiteMap<String, Vec<IpAddr>>,
    routes: Routes,
    neighbours: Neighbours,
    began: Instant,
    /// Where answers of neighbours come in, while there are tunnels; and what workers know.
    inlet: Option<(Inlet, Receiver<Heard>)>,
    told: Arc<Ways>,
    looks: Looks,
}

/// When it is looked whether workers have to know of other ways: once in a second, as neighbours get old; and
/// at once for what is news, but not more than so often, as anybody can send news.
#[derive(Debug)]
struct Looks {
    /// When the present second began.
    since: Instant,
    /// How often there was a look in it.
    count: u32,
    /// There is news that was not looked at.
    is_news: bool,
}

impl Looks {
    /// Whether to look now.
    fn may_look(&mut self, now: Instant) -> bool {
        let is_next = now.saturating_duration_since(self.since) >= Duration::from_secs(1);
        if is_next {
            (self.since, self.count) = (now, 0);
        }
        let may = is_next || self.is_news && self.count < MOST_LOOKS;
        if may {
            (self.count, self.is_news) = (self.count.saturating_add(1), false);
        }
        may
    }
}

impl Underlay {
    /// One that knows nobody.
    pub(super) fn new(now: Instant) -> Self {
        let (addresses, routes, neighbours, told) = Default::default();
        let looks = Looks { since: now, count: 0, is_news: false };
        Self { addresses, routes, neighbours, began: now, inlet: None, told, looks }
    }
}

/// A neighbour that tunnels go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelNeighbour {
    /// The bridge that it is behind.
    pub bridge: String,
    /// Its address.
    pub address: IpAddr,
    /// Where it is.
    pub mac: MacAddr,
    /// Whether somebody has said that, in place of the neighbour itself.
    pub is_set: bool,
}

impl Switch {
    /// Has tunnels go by these routes from now on, and end at these addresses of the host, each list of which
    /// is reached by a port of a bridge, as its own one.
    pub fn set_underlay(&self, addresses: LiteMap<String, Vec<IpAddr>>, routes: Routes) {
        let mut control = self.control();
        (control.underlay.addresses, control.underlay.routes) = (addresses, routes);
        control.update_tunnels();
    }

    /// The neighbours that tunnels go by, as far as they are known.
    #[must_use]
    pub fn tunnel_neighbours(&self) -> Vec<TunnelNeighbour> {
        let mut control = self.control();
        control.run_tunnels();
        let all = control.underlay.neighbours.iter();
        all.map(|(bridge, address, own)| TunnelNeighbour {
            bridge: bridge.to_owned(),
            address,
            mac: own.mac,
            is_set: own.heard.is_none(),
        })
        .collect()
    }

    /// Notes what neighbours have said until now, for who asks then where packets go. Workers get to know of it
    /// no more often than otherwise.
    pub fn hear_tunnel_neighbours(&self) {
        self.control().run_tunnels();
    }

    /// Says where a neighbour is, whatever it says itself.
    pub fn set_tunnel_neighbour(&self, bridge: &str, address: IpAddr, mac: MacAddr) {
        let mut control = self.control();
        control.underlay.neighbours.learn((bridge, address), mac, None);
        control.update_tunnels();
    }

    /// Forgets the neighbours behind a bridge, or all.
    pub fn flush_tunnel_neighbours(&self, bridge: Option<&str>) {
        let mut control = self.control();
        control.underlay.neighbours.flush(bridge);
        control.update_tunnels();
    }
}

impl Control {
    /// Adds a port of a tunnel.
    pub(super) fn add_tunnel(
        &mut self,
        (name, device): (&str, &str),
        settings: Settings,
        options: &PortOptions,
    ) -> Result<(), Error> {
        let (settings, mac) = (Arc::new(settings), MacAddr::random_local());
        let (numbers, counts) = Default::default();
        let tube = Arc::new(Tube { settings, mac, numbers, counts });
        let control = Box::new(TunnelControl(Arc::clone(&tube)));
        let open = OpenPort::new(name, device, control, Vec::new(), Vec::new());
        self.add_port_with(open, Kind::Tunnel(tube), options)
    }

    /// Tells the workers which tunnels there are, and by which ways they go.
    pub(super) fn update_tunnels(&mut self) {
        let is_used = self.tubes().next().is_some();
        if !is_used && self.underlay.inlet.is_none() {
            return;
        }
        if !is_used {
            self.underlay.inlet = None;
        } else if self.underlay.inlet.is_none() {
            self.underlay.inlet =
                Some(Inlet::by_port(ANSWER_LEN, ANSWERS, &self.pace, self.notes.once()));
        }
        let ways = Arc::new(self.ways());
        // Kept until all workers have others, so that none of them frees it.
        let _before = std::mem::replace(&mut self.underlay.told, ways);
        let mut awaited = Vec::new();
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            let inlet = self.underlay.inlet.as_ref().map(|(inlet, _)| inlet.clone());
            let tunnels = inlet.map(|inlet| {
                Box::new(Tunnels::new(self.ports_of(index), Arc::clone(&self.underlay.told), inlet))
            });
            awaited.push(mailbox.begin(|done| Message::SetTunnels(tunnels, done)));
        }
        for answer in awaited.into_iter().flatten() {
            answer.wait();
        }
    }

    /// Notes what neighbours have said, and forgets those that were not heard for long. Workers get to know of
    /// it, but not without end.
    pub(super) fn run_tunnels(&mut self) {
        if self.underlay.inlet.is_none() {
            return;
        }
        self.note_neighbours();
        let may_look = self.underlay.looks.may_look(self.time.now());
        if may_look && self.ways() != *self.underlay.told {
            self.update_tunnels();
        }
    }

    /// Forgets who was known behind a port that is gone.
    pub(super) fn forget_neighbours(&mut self, port: &str) {
        self.underlay.neighbours.flush(Some(port));
    }

    /// The ways that workers know.
    pub(super) fn told_ways(&self) -> &Ways {
        &self.underlay.told
    }

    fn note_neighbours(&mut self) {
        let Some((_, heard)) = &self.underlay.inlet else { return };
        let now = self.underlay_time();
        let answers: Vec<_> = heard.try_iter().take(ANSWERS).collect();
        if self.underlay.neighbours.are_too_many_with(answers.len()) {
            let (wanted, all) = (self.next_hops(), &mut self.underlay.neighbours);
            while all.are_too_many_with(answers.len()) && all.make_room(&wanted) {}
        }
        for answer in answers {
            let Some((_, entry)) = self.ports.numbered(answer.port) else { continue };
            let bridge = entry.bridge_name();
            if let Some((address, mac)) = told(answer.bytes()) {
                let Underlay { neighbours, looks, .. } = &mut self.underlay;
                looks.is_news |= neighbours.learn((bridge, address), mac, Some(now));
            }
        }
        let Underlay { neighbours, looks, .. } = &mut self.underlay;
        looks.is_news |= neighbours.expire(now);
    }

    /// Who is a next hop whatever rules say: gateways, and the other ends that settings name.
    fn next_hops(&self) -> BTreeSet<IpAddr> {
        let remotes = self.tubes().filter_map(|(_, tube)| match tube.settings.remote {
            Address::Is(address) => Some(address),
            Address::Any | Address::Flow => None,
        });
        let gateways = self.underlay.routes.iter().filter_map(|route| route.gateway);
        remotes.chain(gateways).gather()
    }

    /// Whether a port is one of a tunnel.
    pub(crate) fn is_tunnel(&self, name: &str) -> bool {
        self.ports.get(name).is_ok_and(|entry| entry.tube().is_some())
    }

    /// Whether packets without a header of Ethernet can go out on a port.
    pub(crate) fn takes_bare(&self, name: &str) -> bool {
        let takes = |tube: &Arc<Tube>| tube.settings.mode != Mode::Frames;
        let tube_takes = |entry: &Entry| entry.tube().is_some_and(takes);
        self.is_patch(name) || self.ports.get(name).is_ok_and(tube_takes)
    }

    fn underlay_time(&self) -> Duration {
        self.time.now().saturating_duration_since(self.underlay.began)
    }

    pub(super) fn tubes(&self) -> impl Iterator<Item = (&Entry, &Arc<Tube>)> {
        let all = self.ports.iter().filter_map(|(_, entry)| Some((entry, entry.tube()?)));
        all.filter(|(entry, _)| entry.is_in_service())
    }

    /// The ports of tunnels as worker `index` has them.
    fn ports_of(&self, index: usize) -> Vec<TunnelPort> {
        let ports = self.tubes().map(|(entry, tube)| {
            let counters = tube.counts.of_worker(index);
            TunnelPort {
                port: entry.number(),
                bridge: entry.bridge(),
                settings: Arc::clone(&tube.settings),
                numbers: Arc::clone(&tube.numbers),
                rx: counters.rx,
                tx: counters.tx,
            }
        });
        ports.collect()
    }

    /// The ports by which tunnels go that are there, with the names of their bridges.
    fn ends(&self) -> Vec<([&str; 2], End)> {
        let own = |(port, addresses): (&String, &Vec<IpAddr>)| {
            let (name, entry) = self.ports.iter().find(|(name, _)| *name == port)?;
            let (port, bridge) = (entry.number(), entry.bridge());
            let mac = entry.control().mac();
            let is_way = entry.tube().is_some() || entry.cable().is_some();
            let is_alone = entry.bundle().is_none() && entry.options().bond.is_none();
            let end = || End { port, bridge, mac, addresses: addresses.clone() };
            (!is_way && is_alone).then(|| ([name, entry.bridge_name()], end()))
        };
        self.underlay.addresses.iter().filter_map(own).collect()
    }

    fn ways(&self) -> Ways {
        let ends = self.ends();
        let place = |port: &str| ends.iter().position(|([name, _], _)| *name == port);
        let way = |route: &Route| {
            let end = place(&route.bridge)?;
            let Route { to, gateway, source, mark, .. } = *route;
            Some(Way { to, end, gateway, source, mark })
        };
        let ways = self.underlay.routes.iter().filter_map(way).collect();
        let now = self.underlay_time();
        // Who is known in a bridge is known to all of its ports.
        let known = self.underlay.neighbours.iter().flat_map(|(bridge, address, own)| {
            let there = (0..).zip(&ends).filter(move |(_, ([_, of], _))| *of == bridge);
            there.map(move |(place, _)| ((place, address), (own.mac, own.is_ageing(now))))
        });
        let neighbours = known.gather();
        Ways { ends: ends.into_iter().map(|(_, end)| end).collect(), ways, neighbours }
    }
}

#[cfg(test)]
mod tests {
    use eal::clock;
    use eal::time::Time;
    use packet::Frame;
    use packet::builder::FrameBuilder;
    use packet::headers::ArpOperation;
    use tunnel::Prefix;

    use super::*;
    use crate::config::SwitchConfig;

    const NEXT: [u8; 4] = [10, 0, 0, 7];

    /// A switch that has a tunnel by the own port of its bridge, by a clock that stands still.
    fn start() -> (Switch, Time) {
        start_by("default")
    }

    /// The same, by a port of that name.
    fn start_by(port: &str) -> (Switch, Time) {
        let time = Time::stopped();
        let switch = Switch::start_with(&SwitchConfig::default(), time.clone()).unwrap();
        let open = |name, device| switch.open_port(name, device, &PortOptions::default()).unwrap();
        open(port, "null:");
        open("vx", "vxlan:remote=10.0.0.7");
        let own = IpAddr::from([10, 0, 0, 1]);
        let mut routes = Routes::default();
        assert!(routes.add(Route {
            to: Prefix::new(own, 24).unwrap(),
            bridge: port.to_owned(),
            gateway: None,
            source: Some(own),
            mark: 0,
            is_added: false,
        }));
        let addresses = [(port.to_owned(), vec![own])];
        switch.set_underlay(addresses.into_iter().collect(), routes);
        (switch, time)
    }

    /// A neighbour's answer, that it is at a station of this number.
    fn answer(number: u8) -> Vec<u8> {
        let (from, to) = (station(number), MacAddr([2; 6]));
        let frame = FrameBuilder::new(from, to);
        frame
            .arp(ArpOperation::REPLY, (from, NEXT.into()), (to, [10, 0, 0, 1].into()))
            .build()
            .unwrap()
    }

    fn station(number: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, number])
    }

    /// Where the neighbour is as workers know.
    fn told(control: &Control) -> Option<MacAddr> {
        control.told_ways().neighbours.get(&(0, NEXT.into())).map(|(mac, _)| *mac)
    }

    #[test]
    fn who_asks_has_workers_hear_no_more_often() {
        let (switch, time) = start();
        let mut control = switch.control();
        let port = control.port_number("default").unwrap();
        let mut places = Vec::new();
        for number in 0..100 {
            // Each comes in a period of its own, so that none is one too many.
            let now = clock::hz().saturating_mul(number.into());
            let (inlet, _) = control.underlay.inlet.as_ref().unwrap();
            assert!(inlet.put((port, 0), &Frame::from_bytes(&answer(number)), now));
            control.run_tunnels();
            places.push(told(&control).unwrap());
        }
        places.dedup();
        assert_eq!(places.len(), 16, "that is the most in a second");
        drop(control);
        let known = switch.tunnel_neighbours();
        assert_eq!(known[0].mac, station(99), "who asks hears the last word");
        assert!(time.warp(Duration::from_secs(1)));
        switch.hear_tunnel_neighbours();
        assert_eq!(told(&switch.control()), Some(station(99)));
        switch.shutdown();
    }

    #[test]
    fn tunnels_go_by_other_ports_than_a_bridges_own() {
        let (switch, _) = start_by("vtep");
        let mut control = switch.control();
        let port = control.port_number("vtep").unwrap();
        assert_eq!(control.told_ways().ends[0].port, port);
        let (inlet, _) = control.underlay.inlet.as_ref().unwrap();
        assert!(inlet.put((port, 0), &Frame::from_bytes(&answer(3)), 0));
        control.run_tunnels();
        assert_eq!(told(&control), Some(station(3)));
        drop(control);
        let known = switch.tunnel_neighbours();
        assert_eq!((known[0].bridge.as_str(), known.len()), ("default", 1));
        // A tunnel goes by no tunnel.
        let addresses = [("vx".to_owned(), vec![IpAddr::from([10, 0, 0, 1])])];
        switch.set_underlay(addresses.into_iter().collect(), Routes::default());
        assert!(switch.control().told_ways().ends.is_empty());
        switch.shutdown();
    }

    #[test]
    fn news_is_looked_at_at_once_but_not_without_end() {
        let began = Instant::now();
        let mut looks = Looks { since: began, count: 0, is_news: false };
        let mut count = |after: u64, is_news: bool| {
            let look = |_: &i32| {
                looks.is_news |= is_news;
                looks.may_look(began + Duration::from_millis(after))
            };
            (0..100).filter(look).count()
        };
        assert_eq!(count(1, false), 0, "there is nothing to be looked at");
        assert_eq!(count(2, true), 16);
        assert_eq!(count(999, true), 0);
        // What was not looked at is, then; and ways are looked at without news, too.
        assert_eq!(count(1_000, false), 1);
        assert_eq!((count(2_000, false), count(2_001, true)), (1, 15));
    }
}
