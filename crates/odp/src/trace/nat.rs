//! Translated addresses, as Open vSwitch tells them.

use std::net::IpAddr;

use conntrack::{Nat, NatEnd};
use flow::{Key, slot};

/// How addresses are translated, in words of a datapath.
pub(super) fn said(nat: &Nat) -> String {
    let Some(end) = nat.end else { return "nat".to_owned() };
    let mut text = match end {
        NatEnd::Source => "nat(src".to_owned(),
        NatEnd::Destination => "nat(dst".to_owned(),
    };
    let has_ports = nat.ports.is_some();
    let address = |address: IpAddr| match address {
        IpAddr::V6(address) if has_ports => format!("[{address}]"),
        address => address.to_string(),
    };
    if let Some((least, largest)) = nat.addresses {
        text += &format!("={}", address(least));
        if largest != least {
            text += &format!("-{}", address(largest));
        }
    }
    if let Some((least, largest)) = nat.ports {
        text += &format!(":{least}");
        if largest != least {
            text += &format!("-{largest}");
        }
    }
    for (is_set, name) in
        [(nat.is_persistent, ",persistent"), (nat.by_hash, ",hash"), (nat.is_random, ",random")]
    {
        text += if is_set { name } else { "" };
    }
    text + ")"
}

/// Has a packet have the first address and port that are asked for, since which ones it would get is not
/// known, and tells what it had and has.
pub(super) fn simulate(nat: &Nat, key: &mut Key) -> String {
    let before = ends(nat, key);
    if let Some((end, (address, _))) = nat.end.zip(nat.addresses) {
        let (v4, v6, port) = match end {
            NatEnd::Source => (slot::IPV4_SRC, slot::IPV6_SRC, slot::TP_SRC),
            NatEnd::Destination => (slot::IPV4_DST, slot::IPV6_DST, slot::TP_DST),
        };
        match address {
            IpAddr::V4(address) => key.set(v4, u128::from(address.to_bits())),
            IpAddr::V6(address) => key.set(v6, address.to_bits()),
        }
        if let Some((least, _)) = nat.ports {
            key.set(port, least.into());
        }
    }
    let after = ends(nat, key);
    format!(
        "Replacing src/dst IP/ports to simulate NAT:\n Initial flow: {before}\n Modified flow: \
         {after}\n"
    )
}

/// The ends of a packet, of the family of what is asked for.
fn ends(nat: &Nat, key: &Key) -> String {
    let (from, to) = (key.get_u16(slot::TP_SRC), key.get_u16(slot::TP_DST));
    let v4 = |slot| std::net::Ipv4Addr::from(key.get_u32(slot));
    let v6 = |slot| std::net::Ipv6Addr::from(key.get(slot));
    match nat.addresses {
        None => String::new(),
        Some((IpAddr::V4(_), _)) => {
            let (source, destination) = (v4(slot::IPV4_SRC), v4(slot::IPV4_DST));
            format!("nw_src={source},tp_src={from},nw_dst={destination},tp_dst={to}")
        }
        Some((IpAddr::V6(_), _)) => {
            let (source, destination) = (v6(slot::IPV6_SRC), v6(slot::IPV6_DST));
            format!("ipv6_src=[{source}],tp_src={from},ipv6_dst=[{destination}],tp_dst={to}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_by_open_vswitch() {
        let range = |least: &str, largest: &str| {
            Some((least.parse().unwrap(), largest.parse::<IpAddr>().unwrap()))
        };
        let plain = Nat::default();
        let source = Nat { end: Some(NatEnd::Source), ..plain };
        let pool = Nat { addresses: range("10.1.1.240", "10.1.1.255"), is_random: true, ..source };
        let one = Nat { addresses: range("fd00::1", "fd00::1"), is_persistent: true, ..source };
        let port = Nat {
            end: Some(NatEnd::Destination),
            addresses: range("fd00::1", "fd00::2"),
            ports: Some((80, 90)),
            ..plain
        };
        let texts = [plain, source, pool, one, port].map(|nat| said(&nat));
        assert_eq!(
            texts,
            [
                "nat",
                "nat(src)",
                "nat(src=10.1.1.240-10.1.1.255,random)",
                "nat(src=fd00::1,persistent)",
                "nat(dst=[fd00::1]-[fd00::2]:80-90)"
            ]
        );
    }

    #[test]
    fn a_packet_gets_the_first_of_what_is_asked_for() {
        let mut key = Key::default();
        key.set(slot::IPV4_SRC, 0x0A00_0001);
        key.set(slot::IPV4_DST, 0x0A00_0002);
        key.set(slot::TP_SRC, 1000);
        let least: IpAddr = "10.0.0.9".parse().unwrap();
        let nat = Nat {
            end: Some(NatEnd::Destination),
            addresses: Some((least, "10.0.0.12".parse().unwrap())),
            ports: Some((80, 90)),
            ..Nat::default()
        };
        let told = simulate(&nat, &mut key);
        let lines: Vec<&str> = told.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                " Initial flow: nw_src=10.0.0.1,tp_src=1000,nw_dst=10.0.0.2,tp_dst=0",
                " Modified flow: nw_src=10.0.0.1,tp_src=1000,nw_dst=10.0.0.9,tp_dst=80"
            ]
        );
        assert_eq!((key.get(slot::IPV4_DST), key.get(slot::TP_DST)), (0x0A00_0009, 80));
    }
}
