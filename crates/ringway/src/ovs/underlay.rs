//! What tunnels go by: the addresses and routes that the host has by ports of bridges, and those that an
//! operator adds. Routes by other interfaces are there to be shown.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use eal::netlink::Socket;
use eal::routing::{self, HostAddress, HostRoute};
use eal::time::{Time, later};
use host::News;
use litemap::LiteMap;
use ordered::Gather as _;
use ovs::content::Interface;
use ovs::device::TUNNELS;
use ovs::{Agent, interface_names};
use switch::tunnels::{Prefix, Route, Routes};

use super::commands::Appctl;

/// The shortest time between two looks at the host, however often its routes change; and how long until it is
/// looked at again where it cannot tell of that.
const LOOK: Duration = Duration::from_millis(500);

/// An address, and how many bits of it all neighbours have.
pub type Own = (IpAddr, u8);

/// What tunnels go by.
#[derive(Debug, Default)]
pub struct Underlay {
    /// What an operator has added.
    added: Vec<Route>,
    /// Addresses of dummy ports, for tests.
    dummies: LiteMap<String, Vec<Own>>,
    /// What the host had when it was looked at last, and when that was.
    host: Host,
    looked: Option<Instant>,
    socket: Option<Socket>,
    /// What tells of changes, while there are tunnels; and for which ports it was looked last.
    news: Option<News>,
    ports: Vec<String>,
    /// Something has changed since.
    is_news: bool,
    /// What the switch was told.
    told: (LiteMap<String, Vec<IpAddr>>, Routes),
    /// What the host has could not be read, which was told.
    has_failed: bool,
    /// For tests: packets go to no tunnel, as if a datapath had to see to that.
    is_off: bool,
    /// For tests: whatever the host has does not count (`--disable-system-route`).
    is_alone: bool,
}

/// What the host has, by the names of interfaces.
#[derive(Debug, Default)]
struct Host {
    addresses: LiteMap<String, Vec<Own>>,
    routes: Vec<Route>,
}

impl Underlay {
    /// Nothing is known yet; and of the host never is, if it `is_alone`.
    pub fn new(is_alone: bool) -> Self {
        Self { is_alone, ..Self::default() }
    }

    /// Whether what the host has matters all the time.
    fn follows_host(&self, agent: &Agent) -> bool {
        !self.is_alone && has_tunnels(agent)
    }

    /// How long until the host is to be looked at.
    pub fn due(&self, agent: &Agent, time: &Time) -> Option<Duration> {
        if !self.follows_host(agent) {
            return None;
        }
        let Some(looked) = self.looked else { return Some(Duration::ZERO) };
        let is_wanted = self.is_news || self.news.is_none() || self.ports != ports(agent);
        if is_wanted { time.until(later(looked, LOOK)) } else { None }
    }

    /// What can be read when something has changed.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.news.as_ref().map(AsFd::as_fd)
    }

    /// Hears of changes, which it does only where there are tunnels.
    fn hear(&mut self, agent: &Agent) {
        if !self.follows_host(agent) {
            (self.news, self.looked) = (None, None);
            return;
        }
        if self.news.is_none() {
            // Of what was before nobody has told.
            self.news = News::of_routes().ok();
            self.is_news = true;
        }
        self.is_news |= self.news.as_ref().is_some_and(News::drain);
    }

    /// Whether we put packets into tunnels, and take them out.
    pub const fn pushes(&self) -> bool {
        !self.is_off
    }

    /// Says whether.
    pub const fn set_pushes(&mut self, pushes: bool) {
        self.is_off = !pushes;
    }

    /// All routes that tunnels go by.
    const fn routes(&self) -> &Routes {
        &self.told.1
    }

    /// All routes, those by interfaces of the host that are no bridge's among them.
    pub fn shown(&self, agent: &Agent) -> Routes {
        let host = self.host.addresses.keys().chain(self.host.routes.iter().map(|own| &own.bridge));
        let devices: BTreeSet<String> = host.cloned().chain(ports(agent)).gather();
        self.all_routes(&devices.into_iter().collect::<Vec<_>>())
    }

    /// Adds a route; returns whether there is room for it, and the host has an address there.
    pub fn add(&mut self, route: Route) -> bool {
        let mut routes = self.routes().clone();
        let has_address = self.source(&route, route.gateway).is_some();
        if !has_address || !routes.add(route.clone()) {
            return false;
        }
        self.added.retain(|other| (other.to, other.mark) != (route.to, route.mark));
        self.added.push(route);
        true
    }

    /// Takes a route away that was added; returns whether there was one.
    pub fn remove(&mut self, to: Prefix, mark: u32) -> bool {
        let before = self.added.len();
        self.added.retain(|route| (route.to, route.mark) != (to, mark));
        self.added.len() < before
    }

    /// Gives a dummy port an address.
    pub fn add_dummy(&mut self, port: &str, own: Own) {
        let all = self.dummies.entry(port.to_owned()).or_default();
        if !all.contains(&own) {
            all.push(own);
        }
    }

    /// The host's addresses behind a bridge.
    fn own(&self, bridge: &str) -> impl Iterator<Item = &Own> {
        let all = [&self.dummies, &self.host.addresses].into_iter();
        all.filter_map(|all| all.get(bridge)).flatten()
    }

    /// The address that is used for packets by a route: one that has the next hop for its neighbour, or any
    /// of the same family.
    fn source(&self, route: &Route, next: Option<IpAddr>) -> Option<IpAddr> {
        let next = next.unwrap_or_else(|| route.to.address());
        let is_near =
            |(own, len): &&Own| Prefix::new(*own, *len).is_some_and(|prefix| prefix.has(next));
        let of_family =
            || self.own(&route.bridge).filter(|(own, _)| own.is_ipv4() == next.is_ipv4());
        let found = of_family().find(is_near).or_else(|| of_family().next());
        route.source.or_else(|| found.map(|(own, _)| *own))
    }

    /// The routes that there are by some devices, and those to neighbours and to the host itself that come
    /// with addresses.
    fn all_routes(&self, devices: &[String]) -> Routes {
        let mut routes = Routes::default();
        let of_address = |bridge: &String, own: IpAddr, len: u8| {
            let (bridge, source, gateway) = (bridge.clone(), Some(own), None);
            Prefix::new(own, len).map(|to| Route {
                to,
                bridge,
                gateway,
                source,
                mark: 0,
                is_added: false,
            })
        };
        for bridge in devices {
            // A dummy port's address brings no route, as with Open vSwitch.
            for (own, len) in self.host.addresses.get(bridge).into_iter().flatten() {
                let whole = if own.is_ipv4() { 32 } else { 128 };
                let both = [*len, whole].map(|len| of_address(bridge, *own, len));
                both.into_iter().flatten().for_each(|route| _ = routes.add(route));
            }
        }
        let host = self.host.routes.iter().filter(|route| devices.contains(&route.bridge));
        for route in host.chain(&self.added) {
            let source = self.source(route, route.gateway);
            routes.add(Route { source, ..route.clone() });
        }
        routes
    }

    /// Tells the switch of what is news.
    fn tell(&mut self, ports: &[String]) -> Option<&(LiteMap<String, Vec<IpAddr>>, Routes)> {
        let addresses = ports.iter().map(|port| {
            let own: Vec<IpAddr> = self.own(port).map(|(own, _)| *own).collect();
            (port.clone(), own)
        });
        let addresses = addresses.filter(|(_, own)| !own.is_empty()).gather();
        let routes = self.all_routes(ports);
        // Without addresses of the host, tunnels end nowhere, and no route leads by a bridge.
        let next = if self.is_off { (LiteMap::new(), routes) } else { (addresses, routes) };
        let is_news = next != self.told;
        self.told = next;
        is_news.then_some(&self.told)
    }

    /// Looks at what the host has.
    fn look(&mut self) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open(None)?,
        };
        let (addresses, routes) = (routing::addresses(&socket)?, routing::routes(&socket)?);
        self.socket = Some(socket);
        let of_addresses = addresses.iter().map(|own| own.interface);
        let numbers: BTreeSet<u32> =
            of_addresses.chain(routes.iter().map(|route| route.interface)).gather();
        let index: LiteMap<u32, String> = interface_names(numbers).gather();
        let mut host = Host::default();
        for HostAddress { interface, address, len } in addresses {
            if let Some(bridge) = index.get(&interface).filter(|_| is_of_use(address)) {
                host.addresses.entry(bridge.clone()).or_default().push((address, len));
            }
        }
        host.routes = routes.into_iter().filter_map(|route| of_host(route, &index)).collect();
        self.host = host;
        Ok(())
    }
}

/// Whether a tunnel may end there: not at an address that only neighbours know.
fn is_of_use(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(own) => !own.is_unicast_link_local(),
    }
}

fn of_host(route: HostRoute, index: &LiteMap<u32, String>) -> Option<Route> {
    let HostRoute { to, len, is_v4, interface, gateway, source } = route;
    let any = || IpAddr::from([0; 4]);
    let to = to.unwrap_or_else(|| if is_v4 { any() } else { IpAddr::from([0; 16]) });
    let bridge = index.get(&interface)?.clone();
    Some(Route { to: Prefix::new(to, len)?, bridge, gateway, source, mark: 0, is_added: false })
}

fn has_tunnels(agent: &Agent) -> bool {
    let is_tunnel = |kind: &str| TUNNELS.contains(&kind);
    agent
        .content()
        .is_some_and(|content| content.interfaces().any(|(.., row)| is_tunnel(&row.kind)))
}

/// Looks at the host when it is time to, and tells the switch of what is news.
pub fn turn(appctl: &mut Appctl<'_>) {
    appctl.underlay.hear(appctl.agent);
    let is_due = appctl.underlay.due(appctl.agent, appctl.time).is_some_and(|left| left.is_zero());
    if is_due {
        refresh(appctl);
    }
}

/// Looks at the host, since somebody asks, and tells the switch of what is news.
pub fn refresh(appctl: &mut Appctl<'_>) {
    let underlay = &mut *appctl.underlay;
    if !underlay.is_alone {
        (underlay.looked, underlay.is_news) = (Some(appctl.time.now()), false);
        underlay.ports = ports(appctl.agent);
        match underlay.look() {
            Ok(()) => underlay.has_failed = false,
            Err(error) if !std::mem::replace(&mut underlay.has_failed, true) => {
                tracing::warn!("cannot read the host's routes, by which tunnels go: {error}");
                underlay.is_news = true;
            }
            Err(_) => underlay.is_news = true,
        }
    }
    update(appctl);
}

/// Tells the switch of what is news.
pub fn update(appctl: &mut Appctl<'_>) {
    let ports = ports(appctl.agent);
    if let Some((addresses, routes)) = appctl.underlay.tell(&ports) {
        appctl.daemon.switch().set_underlay(addresses.clone(), routes.clone());
    }
}

/// The ports of bridges by which the host is reached: their own ones, and others that the host has as interfaces.
fn ports(agent: &Agent) -> Vec<String> {
    let is_of_host = |row: &Interface| {
        matches!(row.kind.as_str(), "internal" | "tap") || row.kind.starts_with("dummy")
    };
    let Some(content) = agent.content() else { return Vec::new() };
    let others = content.interfaces().filter(|(.., row)| is_of_host(row));
    let others = others.map(|(_, _, name, _)| name.to_owned());
    let all: BTreeSet<String> = content.bridges.keys().cloned().chain(others).gather();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: [u8; 4], len: u8, gateway: Option<[u8; 4]>) -> Route {
        let to = Prefix::new(to.into(), len).unwrap();
        let gateway = gateway.map(IpAddr::from);
        Route { to, bridge: "br0".to_owned(), gateway, source: None, mark: 0, is_added: true }
    }

    #[test]
    fn routes_have_the_address_that_is_near() {
        let mut underlay = Underlay::default();
        assert!(!underlay.add(route([10, 9, 0, 0], 16, None)), "the host has no address there");
        let own = vec![(IpAddr::from([10, 1, 0, 1]), 24)];
        underlay.host.addresses.insert("br0".to_owned(), own);
        underlay.add_dummy("br0", ([10, 2, 0, 1].into(), 24));
        assert!(underlay.add(route([10, 9, 0, 0], 16, Some([10, 2, 0, 9]))));
        let bridges = ["br0".to_owned()];
        let (addresses, routes) = underlay.tell(&bridges).unwrap();
        assert_eq!(addresses.get("br0").map(Vec::len), Some(2));
        let source = |to: [u8; 4]| routes.lookup(to.into(), 0).and_then(|route| route.source);
        assert_eq!(source([10, 9, 1, 1]), Some([10, 2, 0, 1].into()));
        assert_eq!(source([10, 1, 0, 7]), Some([10, 1, 0, 1].into()));
        assert_eq!((source([10, 2, 0, 7]), source([10, 3, 0, 7])), (None, None));
        assert!(underlay.tell(&bridges).is_none(), "that is no news");
        assert!(underlay.remove(Prefix::new([10, 9, 0, 0].into(), 16).unwrap(), 0));
        assert!(underlay.tell(&bridges).is_some());
    }

    #[test]
    fn tunnels_go_by_bridges_and_other_routes_are_shown() {
        let mut underlay = Underlay::default();
        for device in ["br0", "eth0"] {
            let by = |route: Route| Route { bridge: device.to_owned(), is_added: false, ..route };
            underlay.host.routes.push(by(route([10, 9, 0, 0], 16, None)));
            let own = vec![(IpAddr::from([10, 1, 0, 1]), 24)];
            underlay.host.addresses.insert(device.to_owned(), own);
        }
        let (addresses, routes) = underlay.tell(&["br0".to_owned()]).unwrap();
        assert_eq!((addresses.len(), routes.iter().count()), (1, 3));
        assert!(routes.iter().all(|route| route.bridge == "br0"));
        let both = ["br0", "eth0"].map(str::to_owned);
        let shown = underlay.all_routes(&both[1..]);
        assert_eq!(shown.lookup([10, 1, 0, 7].into(), 0).unwrap().bridge, "eth0");
    }

    #[test]
    fn the_hosts_routes_are_those_by_bridges() {
        let index = [(7, "br0".to_owned())].into_iter().collect();
        let host = HostRoute {
            to: None,
            len: 0,
            is_v4: false,
            interface: 7,
            gateway: Some("fd00::1".parse().unwrap()),
            source: None,
        };
        let route = of_host(host, &index).unwrap();
        assert!(route.to.has("2001::1".parse().unwrap()) && !route.to.has([10, 0, 0, 1].into()));
        assert_eq!(of_host(HostRoute { interface: 8, ..host }, &index), None);
        assert!(!is_of_use("fe80::1".parse().unwrap()));
    }
}
