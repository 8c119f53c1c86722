//! The host's addresses and routes, as rtnetlink(7) tells them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::netlink::{FLAG_DUMP, FLAG_REQUEST, HEADER, Socket, attribute, message, u32_at};

/// Messages of rtnetlink.
const GET_ADDRESSES: u16 = 22;
const GET_ROUTES: u16 = 26;
const GET_NEIGHBOURS: u16 = 30;

/// The fixed part of a row of addresses, and of one of routes.
const ADDRESS_FIXED: usize = 8;
const ROUTE_FIXED: usize = 12;

/// That of a neighbour, and its attributes: its address, and that of its link.
const NEIGHBOUR_FIXED: usize = 12;
const NEIGHBOUR: u16 = 1;
const LINK: u16 = 2;

/// The family of addresses of IPv4.
const IPV4: u8 = 2;

/// Attributes of an address: the host's own, and that of an interface of several hosts, which are one.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;

/// Attributes of a route: where to, by which interface, by whom, from which address.
const TO: u16 = 1;
const BY: u16 = 4;
const GATEWAY: u16 = 5;
const SOURCE: u16 = 7;

/// The table that routes are in as a rule (`RT_TABLE_MAIN`), and their type (`RTN_UNICAST`).
const MAIN: u8 = 254;
const UNICAST: u8 = 1;

/// An address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The number of its interface.
    pub interface: u32,
    /// It.
    pub address: IpAddr,
    /// How many bits of it all neighbours have.
    pub len: u8,
}

/// A route of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The first bits of all addresses that it leads to; `None`: those of none, so that it leads everywhere.
    pub to: Option<IpAddr>,
    /// How many bits.
    pub len: u8,
    /// Whether it is of IPv4.
    pub is_v4: bool,
    /// The number of its interface.
    pub interface: u32,
    /// The next hop, if there is one.
    pub gateway: Option<IpAddr>,
    /// The address that is used for packets of the host's own, where that is said.
    pub source: Option<IpAddr>,
}

/// All addresses of the host, in the network namespace of the thread that made the socket.
///
/// # Errors
/// What the kernel says.
pub fn addresses(socket: &Socket) -> io::Result<Vec<HostAddress>> {
    let request = message(GET_ADDRESSES, FLAG_REQUEST | FLAG_DUMP, &[0; ADDRESS_FIXED], &[]);
    Ok(socket.dump(&request)?.iter().filter_map(|row| address_of(row)).collect())
}

fn address_of(row: &[u8]) -> Option<HostAddress> {
    let own =
        attribute(row, ADDRESS_FIXED, LOCAL).or_else(|_| attribute(row, ADDRESS_FIXED, ADDRESS));
    let len = *row.get(HEADER + 1)?;
    let interface = u32_at(row, HEADER + 4)?;
    Some(HostAddress { interface, address: address(own.ok()?)?, len })
}

/// All routes of the host in its main table.
///
/// # Errors
/// What the kernel says.
pub fn routes(socket: &Socket) -> io::Result<Vec<HostRoute>> {
    let request = message(GET_ROUTES, FLAG_REQUEST | FLAG_DUMP, &[0; ROUTE_FIXED], &[]);
    Ok(socket.dump(&request)?.iter().filter_map(|row| route_of(row)).collect())
}

fn route_of(row: &[u8]) -> Option<HostRoute> {
    let at = |at: usize| row.get(HEADER + at).copied();
    if (at(4)?, at(7)?) != (MAIN, UNICAST) {
        return None;
    }
    let of = |kind: u16| attribute(row, ROUTE_FIXED, kind).ok();
    Some(HostRoute {
        to: of(TO).and_then(address),
        len: at(1)?,
        is_v4: at(0)? == IPV4,
        interface: u32_at(of(BY)?, 0)?,
        gateway: of(GATEWAY).and_then(address),
        source: of(SOURCE).and_then(address),
    })
}

/// The address of the link of the next hop to an address of IPv4, if the host knows it: of its gateway, or of itself if
/// it is a neighbour.
///
/// # Errors
/// What the kernel says: there may be no way to it.
pub fn next_hop(socket: &Socket, to: Ipv4Addr) -> io::Result<Option<[u8; 6]>> {
    let fixed: [u8; ROUTE_FIXED] = [IPV4, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let request = message(GET_ROUTES, FLAG_REQUEST, &fixed, &[(TO, &to.octets())]);
    let route = socket.exchange(&request)?;
    let interface = attribute(&route, ROUTE_FIXED, BY)?;
    let gateway = attribute(&route, ROUTE_FIXED, GATEWAY).ok();
    let hop = gateway.map_or_else(|| to.octets().to_vec(), <[u8]>::to_vec);
    let fixed = [&[IPV4, 0, 0, 0], interface, &[0; NEIGHBOUR_FIXED - 8]].concat();
    let request = message(GET_NEIGHBOURS, FLAG_REQUEST, &fixed, &[(NEIGHBOUR, &hop)]);
    let neighbour = socket.exchange(&request)?;
    // None is known, or it has not answered yet.
    Ok(attribute(&neighbour, NEIGHBOUR_FIXED, LINK).ok().and_then(|link| link.try_into().ok()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let short = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    short().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_read() {
        let attributes: [(u16, &[u8]); 3] =
            [(TO, &[10, 0, 0, 0]), (BY, &7_u32.to_ne_bytes()), (SOURCE, &[10, 0, 0, 1])];
        let fixed = [2, 24, 0, 0, MAIN, 2, 253, UNICAST, 0, 0, 0, 0];
        let route = route_of(&message(24, 0, &fixed, &attributes)).unwrap();
        let (to, source) = (Some([10, 0, 0, 0].into()), Some([10, 0, 0, 1].into()));
        let wanted = HostRoute { to, len: 24, is_v4: true, interface: 7, gateway: None, source };
        assert_eq!(route, wanted);
        let local = [2, 32, 0, 0, 255, 2, 254, 2, 0, 0, 0, 0];
        assert_eq!(route_of(&message(24, 0, &local, &attributes)), None, "of another table");
        let own: [(u16, &[u8]); 2] = [(ADDRESS, &[10, 0, 0, 9]), (LOCAL, &[10, 0, 0, 1])];
        let fixed = [2, 24, 0, 0, 7, 0, 0, 0];
        let row = address_of(&message(20, 0, &fixed, &own)).unwrap();
        assert_eq!((row.address, row.len), ([10, 0, 0, 1].into(), 24));
    }

    #[test]
    fn the_kernel_is_asked() {
        let socket = Socket::open(None).unwrap();
        // There may be none of either.
        assert!(addresses(&socket).is_ok() && routes(&socket).is_ok());
        // By the loopback interface, which has no addresses of links.
        assert!(next_hop(&socket, Ipv4Addr::LOCALHOST).is_ok_and(|link| link != Some([1; 6])));
    }

    proptest! {
        #[test]
        fn any_row_can_be_read(row in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (address_of(&row), route_of(&row));
        }
    }
}
