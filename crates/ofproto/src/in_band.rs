//! Controllers that are reached through the bridge itself (in-band control): rules that let them and the bridge's own
//! port talk to each other, whatever other rules say. No controller sees them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use flow::HiddenRule;
use openflow::action::Action;
use openflow::{Field, Instructions, Match, PortNo};
use packet::MacAddr;

const IPV4: u128 = 0x0800;
const ARP: u128 = 0x0806;
const TCP: u128 = 6;
const UDP: u128 = 17;
const ARP_REQUEST: u128 = 1;
const ARP_REPLY: u128 = 2;
const DHCP_SERVER: u128 = 67;
const DHCP_CLIENT: u128 = 68;

/// The first table that controllers see.
const FIRST_TABLE: u8 = 0;

/// Somebody who is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it listens.
    pub address: SocketAddrV4,
    /// The address of the next hop to it, or its own, once it is known.
    pub next_hop: Option<MacAddr>,
}

/// Who is to be reached, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InBand {
    /// The address of the bridge's own port, once it is known.
    pub local: Option<MacAddr>,
    /// The queue of ports that all this goes out by.
    pub queue: Option<u32>,
    /// Who.
    pub remotes: Vec<Remote>,
}

impl InBand {
    /// The rules that see to it.
    #[must_use]
    pub fn rules(&self) -> Vec<HiddenRule> {
        let mut rules = Rules { all: Vec::new(), normal: self.normal() };
        if self.remotes.is_empty() {
            return rules.all;
        }
        if let Some(mac) = self.local {
            rules.local(number(mac));
        }
        for Remote { address, next_hop } in &self.remotes {
            if let Some(mac) = next_hop {
                rules.next_hop(number(*mac));
            }
            rules.neighbour(u32::from(*address.ip()).into());
            rules.remote(u32::from(*address.ip()).into(), address.port().into());
        }
        rules.all
    }

    /// What becomes of their packets.
    fn normal(&self) -> Arc<Instructions> {
        let queue = self.queue.map(Action::SetQueue);
        let normal = Action::output(PortNo::NORMAL);
        Arc::new(Instructions::apply(queue.into_iter().chain([normal]).collect()))
    }
}

struct Rules {
    all: Vec<HiddenRule>,
    normal: Arc<Instructions>,
}

impl Rules {
    fn add(&mut self, priority: u16, matching: Match) {
        let instructions = Arc::clone(&self.normal);
        let rule = HiddenRule { priority, matching, instructions };
        // Several may be reached by one next hop, or be at one address.
        if !self.all.contains(&rule) {
            self.all.push(rule);
        }
    }

    /// The bridge's own port asks for an address of IPv4, and for neighbours, and is answered.
    fn local(&mut self, mac: u128) {
        let dhcp = udp().with(Field::UdpSrc, DHCP_CLIENT).with(Field::UdpDst, DHCP_SERVER);
        let from = dhcp.with(Field::InPort, PortNo::LOCAL.0.into()).with(Field::EthSrc, mac);
        self.add(0, from);
        self.add(1, arp(ARP_REPLY).with(Field::EthDst, mac));
        self.add(2, arp(ARP_REQUEST).with(Field::EthSrc, mac));
        // What answers about its address, it hears, too, whoever else does.
        let matching = udp().with(Field::UdpSrc, DHCP_SERVER).with(Field::UdpDst, DHCP_CLIENT);
        let mut instructions = Instructions::apply(vec![Action::output(PortNo::LOCAL)]);
        instructions.goto_table = Some(FIRST_TABLE);
        self.all.push(HiddenRule { priority: 9, matching, instructions: Arc::new(instructions) });
    }

    /// The next hop asks for neighbours, and is answered.
    fn next_hop(&mut self, mac: u128) {
        self.add(3, arp(ARP_REPLY).with(Field::EthDst, mac));
        self.add(4, arp(ARP_REQUEST).with(Field::EthSrc, mac));
    }

    /// So does a controller, if it is a neighbour.
    fn neighbour(&mut self, address: u128) {
        self.add(5, arp(ARP_REPLY).with(Field::ArpTpa, address));
        self.add(6, arp(ARP_REQUEST).with(Field::ArpSpa, address));
    }

    /// It is connected to.
    fn remote(&mut self, address: u128, port: u128) {
        self.add(7, tcp().with(Field::IpDst, address).with(Field::TcpDst, port));
        self.add(8, tcp().with(Field::IpSrc, address).with(Field::TcpSrc, port));
    }
}

fn number(mac: MacAddr) -> u128 {
    mac.0.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn arp(operation: u128) -> Match {
    Match::new().with(Field::EthType, ARP).with(Field::ArpOp, operation)
}

fn udp() -> Match {
    Match::new().with(Field::EthType, IPV4).with(Field::IpProto, UDP)
}

fn tcp() -> Match {
    Match::new().with(Field::EthType, IPV4).with(Field::IpProto, TCP)
}

/// Where somebody is who is to be reached in band: `tcp:` or `ssl:` with an address of IPv4 that is not this host's own
/// alone, and a port, or the one that is usual.
#[must_use]
pub fn address(target: &str, usual_port: u16) -> Option<SocketAddrV4> {
    let rest = target.strip_prefix("tcp:").or_else(|| target.strip_prefix("ssl:"))?;
    let whole = || rest.parse::<SocketAddrV4>().ok();
    let bare = rest.parse::<Ipv4Addr>().ok().map(|ip| SocketAddrV4::new(ip, usual_port));
    bare.or_else(whole).filter(|address| !address.ip().is_loopback() && address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(in_band: &InBand) -> Vec<String> {
        let text = |rule: &HiddenRule| {
            let HiddenRule { priority, matching, instructions } = rule;
            format!("{priority} {matching} {instructions}")
        };
        in_band.rules().iter().map(text).collect()
    }

    #[test]
    fn rules_are_those_of_open_vswitch() {
        let remote = Remote { address: address("tcp:240.0.0.1", 6653).unwrap(), next_hop: None };
        let mut in_band = InBand { remotes: vec![remote], ..InBand::default() };
        let known = [
            "5 arp,arp_tpa=240.0.0.1,arp_op=2 NORMAL",
            "6 arp,arp_spa=240.0.0.1,arp_op=1 NORMAL",
            "7 tcp,nw_dst=240.0.0.1,tp_dst=6653 NORMAL",
            "8 tcp,nw_src=240.0.0.1,tp_src=6653 NORMAL",
        ];
        assert_eq!(texts(&in_band), known);
        in_band.local = Some(MacAddr([2, 0, 0, 0, 0, 1]));
        in_band.remotes[0].next_hop = Some(MacAddr([2, 0, 0, 0, 0, 9]));
        in_band.queue = Some(7);
        let all = texts(&in_band);
        assert_eq!(all.len(), 10);
        assert_eq!(
            all[0],
            "0 udp,in_port=LOCAL,dl_src=02:00:00:00:00:01,tp_src=68,tp_dst=67 set_queue:7,NORMAL"
        );
        assert_eq!(all[1], "1 arp,dl_dst=02:00:00:00:00:01,arp_op=2 set_queue:7,NORMAL");
        assert_eq!(all[3], "9 udp,tp_src=67,tp_dst=68 LOCAL,goto_table:0");
        assert_eq!(all[5], "4 arp,dl_src=02:00:00:00:00:09,arp_op=1 set_queue:7,NORMAL");
        // A second one by the same hop takes rules of its own for its address alone.
        let next_hop = in_band.remotes[0].next_hop;
        let address = SocketAddrV4::new(Ipv4Addr::new(240, 0, 0, 2), 1);
        in_band.remotes.push(Remote { address, next_hop });
        assert_eq!(in_band.rules().len(), 14);
        in_band.remotes.clear();
        assert!(in_band.rules().is_empty());
    }

    #[test]
    fn only_other_hosts_are_reached_through_bridges() {
        let of = |target| address(target, 6640).map(|address| address.to_string());
        assert_eq!(of("tcp:10.0.0.1").as_deref(), Some("10.0.0.1:6640"));
        assert_eq!(of("ssl:10.0.0.1:6").as_deref(), Some("10.0.0.1:6"));
        for other in
            ["tcp:127.0.0.1:6653", "tcp:[::1]:1", "ptcp:6640", "unix:a", "tcp:h", "tcp:1.2.3.4:0"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
