//! By which bridge an address is reached, and what the next hop is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The most routes that there can be.
pub const MAX_ROUTES: usize = 4_096;

/// All addresses that begin with so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of this length that an address has; `None` if it is too long for one.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let rest = whole - u32::from(len).min(whole);
        let address = match address {
            IpAddr::V4(own) => {
                let ones = u32::MAX.checked_shl(rest).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(own) & ones))
            }
            IpAddr::V6(own) => {
                let ones = u128::MAX.checked_shl(rest).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(own) & ones))
            }
        };
        (u32::from(len) <= whole).then_some(Self { address, len })
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits it has.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a number of bits")]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Whether an address is among them.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self::new(address, self.len).is_some_and(|own| own.address == self.address)
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// The bridge by whose own port it leads.
    pub bridge: String,
    /// The next hop; none where neighbours are reached at once.
    pub gateway: Option<IpAddr>,
    /// The address that is used for packets of our own.
    pub source: Option<IpAddr>,
    /// The mark of the packets that it is for: most have 0.
    pub mark: u32,
    /// Whether an operator has added it, so that it is not the system's to take away.
    pub is_added: bool,
}

/// All routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// All of them: the longest prefixes first, and what was added in front of what the system has.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// Adds a route, in place of one to the same prefix of the same origin, for the same mark; returns whether
    /// there is room for it.
    pub fn add(&mut self, route: Route) -> bool {
        let of = |route: &Route| (route.to, route.is_added, route.mark);
        self.0.retain(|other| of(other) != of(&route));
        if self.0.len() >= MAX_ROUTES {
            return false;
        }
        let key = |route: &Route| (std::cmp::Reverse(route.to.len), !route.is_added);
        let at = self.0.partition_point(|other| key(other) <= key(&route));
        self.0.insert(at, route);
        true
    }

    /// Takes a route away that was added; returns whether there was one.
    pub fn remove(&mut self, to: Prefix, mark: u32) -> bool {
        let before = self.0.len();
        self.0.retain(|route| !((route.to, route.mark) == (to, mark) && route.is_added));
        self.0.len() < before
    }

    /// Has the system's routes be others.
    pub fn set_system(&mut self, routes: impl IntoIterator<Item = Route>) {
        self.0.retain(|route| route.is_added);
        for route in routes {
            self.add(Route { is_added: false, ..route });
        }
    }

    /// The route to an address, of packets with this mark.
    #[must_use]
    pub fn lookup(&self, address: IpAddr, mark: u32) -> Option<&Route> {
        self.0.iter().find(|route| route.mark == mark && route.to.has(address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(to: &str, len: u8, bridge: &str, is_added: bool) -> Route {
        let to = Prefix::new(to.parse().unwrap(), len).unwrap();
        Route { to, bridge: bridge.to_owned(), gateway: None, source: None, mark: 0, is_added }
    }

    #[test]
    fn the_longest_prefix_is_taken_and_what_was_added_before_the_systems() {
        let mut routes = Routes::default();
        for (to, len, bridge, is_added) in [
            ("0.0.0.0", 0, "default", false),
            ("10.1.2.3", 16, "wide", true),
            ("10.1.2.0", 24, "system", false),
            ("10.1.2.0", 24, "added", true),
            ("::", 0, "six", false),
        ] {
            assert!(routes.add(route(to, len, bridge, is_added)));
        }
        let by = |routes: &Routes, to: &str| {
            routes.lookup(to.parse().unwrap(), 0).map(|route| route.bridge.clone())
        };
        assert_eq!(by(&routes, "10.1.2.9").as_deref(), Some("added"));
        assert_eq!(by(&routes, "10.1.9.9").as_deref(), Some("wide"));
        assert_eq!(by(&routes, "10.9.9.9").as_deref(), Some("default"));
        assert_eq!(by(&routes, "fe80::1").as_deref(), Some("six"));
        let prefix = Prefix::new([10, 1, 2, 77].into(), 24).unwrap();
        assert!(routes.remove(prefix, 0) && !routes.remove(prefix, 0));
        assert_eq!(by(&routes, "10.1.2.9").as_deref(), Some("system"));
        routes.set_system([]);
        assert_eq!(by(&routes, "10.1.2.9").as_deref(), Some("wide"));
        assert_eq!(by(&routes, "10.9.9.9"), None);
    }

    #[test]
    fn packets_with_a_mark_go_by_routes_of_that_mark() {
        let mut routes = Routes::default();
        let marked = Route { mark: 5, ..route("10.1.2.0", 24, "marked", true) };
        assert!(routes.add(route("10.1.2.0", 24, "plain", true)) && routes.add(marked));
        let by = |routes: &Routes, mark| {
            let found = routes.lookup([10, 1, 2, 9].into(), mark);
            found.map(|route| route.bridge.clone())
        };
        assert_eq!(by(&routes, 0).as_deref(), Some("plain"));
        assert_eq!((by(&routes, 5).as_deref(), by(&routes, 6)), (Some("marked"), None));
        let to = Prefix::new([10, 1, 2, 0].into(), 24).unwrap();
        assert!(!routes.remove(to, 6) && routes.remove(to, 5));
        assert_eq!((by(&routes, 0).as_deref(), by(&routes, 5)), (Some("plain"), None));
    }

    #[test]
    fn there_is_an_end_to_routes() {
        let mut routes = Routes::default();
        let add = |routes: &mut Routes, number: usize| {
            let address = Ipv4Addr::from(u32::try_from(number).unwrap());
            routes.add(route(&address.to_string(), 32, "br", true))
        };
        assert!((0..MAX_ROUTES).all(|number| add(&mut routes, number)));
        assert!(!add(&mut routes, MAX_ROUTES) && !routes.add(route("::", 0, "br", true)));
    }

    proptest! {
        #[test]
        fn a_prefix_has_the_addresses_that_begin_with_it(own: u32, other: u32, len in 0..=40_u8) {
            let Some(prefix) = Prefix::new(Ipv4Addr::from(own).into(), len) else {
                prop_assert!(len > 32);
                return Ok(());
            };
            let is_same = len == 0 || own >> (32 - len) == other >> (32 - len);
            prop_assert_eq!(prefix.has(Ipv4Addr::from(other).into()), is_same);
            prop_assert!(prefix.has(Ipv4Addr::from(own).into()));
            prop_assert!(!prefix.has(Ipv6Addr::from(u128::from(other)).into()));
        }
    }
}
