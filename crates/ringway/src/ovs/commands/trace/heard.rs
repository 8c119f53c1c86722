//! Packets that speak to the switch itself.

use flow::{Key, slot};
use odp::{Protocol, compose};
use switch::{Listens, Protocol as Heard};

use super::super::Appctl;

/// Types of Ethernet: CFM, LACP, LLDP, IPv4.
const CFM: u16 = 0x8902;
const SLOW: u16 = 0x8809;
const LLDP: u16 = 0x88CC;
const IPV4: u16 = 0x0800;

const UDP: u8 = 17;

/// By which protocol a packet that comes in on a port speaks to the switch, if it does, and which bits of it tell.
pub(super) fn heard(
    appctl: &Appctl<'_>,
    port: &str,
    key: &Key,
    frame: Option<&[u8]>,
) -> (Option<Protocol>, Key) {
    let composed = || compose(key, None);
    appctl.daemon.switch().listens(port, |listens| {
        let bits = bits(&listens, key);
        let is_any = listens.lldp || listens.bpdu || listens.slow || listens.watch.is_some();
        let frame = is_any.then(|| frame.map_or_else(composed, <[u8]>::to_vec));
        let tunnel = || key.get_u64(slot::TUN_ID);
        let protocol = frame.and_then(|frame| listens.protocol(&frame, tunnel));
        (protocol.map(|protocol| named(protocol, key)), bits)
    })
}

fn named(protocol: Heard, key: &Key) -> Protocol {
    match protocol {
        Heard::Lldp => Protocol::Lldp,
        Heard::SpanningTree => Protocol::Stp,
        Heard::Lacp => Protocol::Lacp,
        Heard::Watch if key.get_u16(slot::ETH_TYPE) == CFM => Protocol::Cfm,
        Heard::Watch => Protocol::Bfd,
    }
}

/// What is looked at: beside the type, which always is.
fn bits(listens: &Listens<'_>, key: &Key) -> Key {
    let mut bits = Key::default();
    let mut look = |slot: flow::Slot| bits.set(slot, slot.ones());
    let kind = key.get_u16(slot::ETH_TYPE);
    let watched = listens.watch;
    let is_cfm = kind == CFM && watched.is_some_and(|watched| watched.extended.is_some());
    let is_own = kind == SLOW && listens.slow || kind == LLDP && listens.lldp;
    let bfd = watched.and_then(|watched| watched.bfd.as_ref());
    let is_to_one = bfd.is_some_and(|bfd| bfd.remote_dst_mac.is_some());
    if listens.bpdu || is_own || is_cfm || is_to_one {
        look(slot::ETH_DST);
    }
    if let Some(bfd) = bfd.filter(|_| kind == IPV4) {
        look(slot::IP_PROTO);
        if key.get_u8(slot::IP_PROTO) == UDP {
            look(slot::TP_DST);
            // Those to others are of no session.
            if u32::from(bfd.src_ip) == key.get_u32(slot::IPV4_DST) {
                look(slot::IPV4_DST);
            }
        }
        if bfd.check_tnl_key {
            look(slot::TUN_ID);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use switch::{Bfd, Watched};

    use super::*;

    fn key(text: &str) -> Key {
        odp::parse(text).unwrap().key
    }

    fn looked(listens: &Listens<'_>, text: &str) -> Vec<flow::Slot> {
        let all = [slot::ETH_DST, slot::IP_PROTO, slot::TP_DST, slot::IPV4_DST, slot::TUN_ID];
        let bits = bits(listens, &key(text));
        all.into_iter().filter(|slot| bits.get(*slot) != 0).collect()
    }

    const UDP: &str = "in_port(1),eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02),eth_type(0x0800),\
        ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=255,frag=no),udp(src=49152,dst=3784)";

    #[test]
    fn only_what_is_listened_for_is_looked_at() {
        let none = Listens::default();
        assert_eq!(looked(&none, UDP), []);
        assert_eq!(looked(&Listens { bpdu: true, ..none }, UDP), [slot::ETH_DST]);
        let slow = Listens { slow: true, ..none };
        assert_eq!(looked(&slow, UDP), []);
        let lacp = "in_port(1),eth(src=00:00:00:00:00:01,dst=01:80:c2:00:00:02),eth_type(0x8809)";
        assert_eq!(looked(&slow, lacp), [slot::ETH_DST]);
        let watched = Watched { extended: None, bfd: Some(Bfd::default()) };
        let bfd = Listens { watch: Some(&watched), ..none };
        assert_eq!(looked(&bfd, UDP), [slot::IP_PROTO, slot::TP_DST]);
        assert_eq!(looked(&bfd, lacp), []);
        let near = Bfd { src_ip: [10, 0, 0, 2].into(), check_tnl_key: true, ..Bfd::default() };
        let watched = Watched { extended: None, bfd: Some(near) };
        let bfd = Listens { watch: Some(&watched), ..none };
        let all = [slot::IP_PROTO, slot::TP_DST, slot::IPV4_DST, slot::TUN_ID];
        assert_eq!(looked(&bfd, UDP), all);
    }
}
