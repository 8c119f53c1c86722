//! By which address collectors know the switch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use eal::netlink::Socket;
use eal::routing;

use crate::agent::news::interface_index;

/// The address of the switch: what is said, or that of the interface that is, or that by which the first
/// collector is reached; `None` as long as there is none.
pub(super) fn address(said: Option<&str>, targets: &[SocketAddr]) -> Option<IpAddr> {
    said.and_then(of_text).or_else(|| targets.iter().find_map(by_route))
}

fn of_text(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| of_interface(text))
}

/// An address of an interface, of version 4 if it has one.
fn of_interface(name: &str) -> Option<IpAddr> {
    let index = interface_index(name)?;
    let all = routing::addresses(&Socket::open(None).ok()?).ok()?;
    let own = all.into_iter().filter(|one| one.interface == index).map(|one| one.address);
    own.min_by_key(|address| (address.is_ipv6(), is_local(address)))
}

/// Whether an address is none outside of its link.
fn is_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The address that the system would send from: nothing is sent.
fn by_route(target: &SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_goes_before_what_is_found_out() {
        let targets = ["127.0.0.1:6343".parse().unwrap()];
        let found = |said| address(said, &targets);
        assert_eq!(found(Some("192.0.2.7")), Some([192, 0, 2, 7].into()));
        assert_eq!(found(Some("2001:db8::7")), Some("2001:db8::7".parse().unwrap()));
        assert_eq!(found(Some("lo")), Some([127, 0, 0, 1].into()));
        assert_eq!(found(Some("no such interface")), Some([127, 0, 0, 1].into()));
        assert_eq!(found(None), Some([127, 0, 0, 1].into()));
        assert_eq!(address(None, &[]), None);
    }
}
