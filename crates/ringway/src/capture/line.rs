//! A frame in a line, for people: who talks to whom, and about what.

use std::fmt::{self, Display, Write as _};

use packet::headers::{
    Arp, ArpOperation, EtherType, Ethernet, Icmp, IpProtocol, Ipv4, Ipv6, Tcp, TcpFlags, Udp,
};

/// The time of day, in UTC, of so many nanoseconds since 1970.
pub fn time_of_day(time: u64) -> String {
    let (seconds, micros) = (time / 1_000_000_000, time % 1_000_000_000 / 1_000);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// What a frame is about, with its Ethernet addresses if that is wanted (`ethernet`), or there are no
/// others.
pub fn summary(bytes: &[u8], ethernet: bool) -> String {
    let Some(link) = Ethernet::parse(bytes) else { return "too short for Ethernet".to_owned() };
    let (kind, payload) = link.inner().unwrap_or((link.ether_type(), link.payload()));
    let known = network(kind, payload);
    let mut line = String::new();
    if ethernet || known.is_none() {
        let _ = write!(line, "{} > {} ", link.source(), link.destination());
    }
    if let Some(tag) = link.vlan() {
        let _ = write!(line, "vlan {} ", tag.vlan());
    }
    line + &known.unwrap_or_else(|| format!("ethertype {:#06x}", kind.0))
}

/// What is behind the link's header; `None` if that is nothing known.
fn network(kind: EtherType, payload: &[u8]) -> Option<String> {
    Some(match kind {
        EtherType::ARP => arp_text(&Arp::parse(payload)?),
        EtherType::IPV4 => {
            let ip = Ipv4::parse(payload)?;
            let first = (ip.fragment_offset() == 0).then(|| ip.payload());
            ip_text(&(ip.source(), ip.destination()), ip.protocol(), first)
        }
        EtherType::IPV6 => {
            let ip = Ipv6::parse(payload)?;
            let addresses = (ip.source(), ip.destination());
            match ip.upper() {
                Some(upper) => {
                    let is_first = upper.fragment_offset.unwrap_or(0) == 0;
                    ip_text(&addresses, upper.protocol, is_first.then_some(upper.payload))
                }
                None => ip_text(&addresses, ip.next_header(), None),
            }
        }
        _ => return None,
    })
}

fn arp_text(arp: &Arp<'_>) -> String {
    let (sender, target) = (arp.sender_ip(), arp.target_ip());
    match arp.operation() {
        ArpOperation::REQUEST => format!("ARP who has {target}? tell {sender}"),
        ArpOperation::REPLY => format!("ARP {sender} is at {}", arp.sender_mac()),
        ArpOperation(other) => format!("ARP operation {other}, {sender} > {target}"),
    }
}

/// A packet from one address to another; `payload` is there unless it is a later fragment.
fn ip_text<A: Display>(addresses: &(A, A), protocol: IpProtocol, payload: Option<&[u8]>) -> String {
    let (source, destination) = addresses;
    let payload = payload.unwrap_or_default();
    let ports = |from: u16, to: u16| format!("{source}.{from} > {destination}.{to}");
    let name = name(protocol);
    let known = match protocol {
        IpProtocol::TCP => Tcp::parse(payload).map(|tcp| {
            format!(
                "{} {name} {}",
                ports(tcp.source_port(), tcp.destination_port()),
                Flags(tcp.flags())
            )
        }),
        IpProtocol::UDP => Udp::parse(payload)
            .map(|udp| format!("{} {name}", ports(udp.source_port(), udp.destination_port()))),
        IpProtocol::ICMP | IpProtocol::ICMPV6 => Icmp::parse(payload)
            .map(|icmp| format!("{source} > {destination} {name} {}", icmp_text(protocol, &icmp))),
        _ => None,
    };
    known.unwrap_or_else(|| format!("{source} > {destination} {name}"))
}

fn name(protocol: IpProtocol) -> String {
    match protocol {
        IpProtocol::TCP => "TCP".to_owned(),
        IpProtocol::UDP => "UDP".to_owned(),
        IpProtocol::ICMP => "ICMP".to_owned(),
        IpProtocol::ICMPV6 => "ICMPv6".to_owned(),
        IpProtocol(other) => format!("protocol {other}"),
    }
}

fn icmp_text(protocol: IpProtocol, icmp: &Icmp<'_>) -> String {
    match (protocol, icmp.kind()) {
        (IpProtocol::ICMP, 8) | (IpProtocol::ICMPV6, 128) => {
            format!("echo request {}", icmp.sequence())
        }
        (IpProtocol::ICMP, 0) | (IpProtocol::ICMPV6, 129) => {
            format!("echo reply {}", icmp.sequence())
        }
        (_, kind) => format!("type {kind} code {}", icmp.code()),
    }
}

/// TCP's flags, in short, as tcpdump has them.
struct Flags(TcpFlags);

impl Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(TcpFlags, char); 4] = [
            (TcpFlags::SYN, 'S'),
            (TcpFlags::FIN, 'F'),
            (TcpFlags::RST, 'R'),
            (TcpFlags::PSH, 'P'),
        ];
        f.write_char('[')?;
        for (flag, letter) in LETTERS {
            if self.0.contains(flag) {
                f.write_char(letter)?;
            }
        }
        if self.0.contains(TcpFlags::ACK) {
            f.write_char('.')?;
        }
        f.write_char(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn of(rest: &[&[u8]]) -> String {
        summary(&[&LINK[..], &rest.concat()].concat(), false)
    }

    fn ipv4(protocol: u8, offset: u8, payload: &[u8]) -> Vec<u8> {
        let len = 20 + u8::try_from(payload.len()).unwrap();
        let header =
            [0x45, 0, 0, len, 0, 0, 0, offset, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&[8, 0][..], &header, payload].concat()
    }

    #[test]
    fn lines_tell_who_talks_to_whom() {
        let arp = |operation| {
            let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 2, 10, 0, 0, 1];
            [&head[..], &[0, 0, 0, 0, 0, 0, 10, 0, 0, 2]].concat()
        };
        assert_eq!(of(&[&arp(1)]), "ARP who has 10.0.0.2? tell 10.0.0.1");
        assert_eq!(of(&[&arp(2)]), "ARP 10.0.0.1 is at 02:00:00:00:00:02");
        let mut tcp = [0_u8; 20];
        (tcp[1], tcp[3], tcp[12], tcp[13]) = (7, 80, 0x50, 0x12);
        assert_eq!(of(&[&ipv4(6, 0, &tcp)]), "10.0.0.1.7 > 10.0.0.2.80 TCP [S.]");
        assert_eq!(of(&[&ipv4(6, 9, &tcp)]), "10.0.0.1 > 10.0.0.2 TCP");
        let tagged = [&[0x81, 0, 0, 7][..], &ipv4(17, 0, &[0, 1, 0, 53, 0, 8, 0, 0])].concat();
        assert_eq!(of(&[&tagged]), "vlan 7 10.0.0.1.1 > 10.0.0.2.53 UDP");
        let echo = ipv4(1, 0, &[8, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(of(&[&echo]), "10.0.0.1 > 10.0.0.2 ICMP echo request 3");
        assert_eq!(of(&[&ipv4(89, 0, &[])]), "10.0.0.1 > 10.0.0.2 protocol 89");
        let mut ip6 = [0; 48];
        (ip6[0], ip6[5], ip6[6], ip6[23], ip6[39], ip6[40]) = (0x60, 8, 58, 1, 2, 135);
        assert_eq!(of(&[&[0x86, 0xDD], &ip6]), "::1 > ::2 ICMPv6 type 135 code 0");
        let other = "02:00:00:00:00:02 > 02:00:00:00:00:01 ethertype 0x88cc";
        assert_eq!(of(&[&[0x88, 0xCC, 1]]), other);
        assert_eq!(summary(&LINK, false), "too short for Ethernet");
        let with = summary(&[&LINK[..], &echo].concat(), true);
        assert!(with.starts_with("02:00:00:00:00:02 > 02:00:00:00:00:01 10.0.0.1 > "), "{with}");
        assert_eq!(time_of_day(1_800_000_000_123_456_789), "08:00:00.123456");
    }
}
