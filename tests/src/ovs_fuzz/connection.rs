use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openflow::message::flow_mod::Command;
use openflow::testing::Random;
use openflow::text::{Names, flow_mod};
use openflow::{Field, Match};
use packet::checksum::{Checksum, checksum};

use super::frame::Packet;
use super::rule::{Banned, Rule};
use super::values::PORTS;

/// Connections of a set, and packets of all of them.
const CONNECTIONS: u64 = 3;
const PACKETS: u64 = 24;

/// Who begins connections, and to whom; and what rules have addresses be instead.
const CLIENTS: [u32; 2] = [0x0A00_0001, 0x0A00_0002];
const SERVERS: [u32; 2] = [0xC0A8_0001, 0x0A00_0102];
const TRANSLATED: [u32; 2] = [0x0A00_0063, 0x0A00_0064];

/// What is in front of these in addresses of IPv6.
const PREFIX: u128 = 0x2001_0DB8 << 96;

/// One of these, as an address of IPv4 or IPv6.
fn address(of: u32, is_six: bool) -> IpAddr {
    if is_six { Ipv6Addr::from(PREFIX | u128::from(of)).into() } else { Ipv4Addr::from(of).into() }
}

/// What rules ask of a packet's connection.
const STATES: [&str; 13] = [
    "+trk+new",
    "+trk+est",
    "+trk+inv",
    "+trk+rpl",
    "-trk",
    "+trk",
    "+trk+est-rpl",
    "+est+rpl",
    "-new+trk",
    "+rel",
    "+snat",
    "+dnat",
    "-inv+trk",
];

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What packets rules are for, beside what is known of connections.
const KINDS: [&str; 13] = [
    "",
    "",
    "ip",
    "tcp",
    "udp",
    "icmp",
    "in_port=1",
    "ip,nw_src=10.0.0.0/8",
    "ipv6",
    "tcp6",
    "udp6",
    "icmp6",
    "ipv6,ipv6_src=2001:db8::a00:0/104",
];

/// Has rules track packets, and be for those whose connections are as they ask; gives packets of some.
pub fn tracked(random: &mut Random, rules: &mut Vec<Rule>, banned: &mut Banned) -> Vec<Packet> {
    let translates = random.once_in(2);
    // Packets without Ethernet are invalid to Open vSwitch.
    for word in ["mpls", "vlan", "check_pkt_larger", "learn(", "max_len", "encap", "decap"] {
        banned.add(word);
    }
    // A clause must not have the match of another rule: Open vSwitch does not find that one then.
    rules.retain(|rule| !rule.is_of_conjunction());
    for rule in rules.iter_mut().filter(|rule| rule.priority > 0) {
        if let Some(matching) = matching(random, rule.table) {
            rule.matching = matching;
        }
    }
    for rule in rules {
        banned.leave(&mut rule.actions);
        if random.once_in(if rule.table == 0 { 1 } else { 3 }) {
            let is_six = rule.matching.exact(Field::EthType) == Some(0x86DD);
            let action = track(random, rule.table, translates.then_some(is_six));
            let at = random.place(rule.actions.len() + 1);
            rule.insert(at, action);
        }
    }
    packets(random, translates)
}

/// Packets of some connections; in the first table there are none yet.
fn matching(random: &mut Random, table: u8) -> Option<Match> {
    let kind = random.one(&KINDS).unwrap_or("");
    let mut text = format!("table={table},{kind},");
    if table > 0 && !random.once_in(3) {
        text += &format!("ct_state={},", random.one(&STATES).unwrap_or("+trk"));
        text += &match random.below(6) {
            0 => format!("ct_zone={},", random.below(3)),
            1 => format!("ct_mark={:#x},", random.below(3)),
            2 => format!("ct_label={:#x},", random.below(3)),
            _ => String::new(),
        };
    }
    let change = flow_mod(&format!("{text}actions=drop"), Command::Add, Names::NONE);
    Some(change.ok()?.matching)
}

/// A `ct` in a rule of a table: packets go on in one behind it, if at all. It may translate their addresses, of IPv6 or not.
fn track(random: &mut Random, table: u8, translates: Option<bool>) -> String {
    if random.once_in(12) {
        return "ct_clear".to_owned();
    }
    let mut parts = Vec::new();
    let commits = random.once_in(2);
    if commits {
        parts.push("commit".to_owned());
        // Open vSwitch does not take answers for ones then.
        if random.once_in(6) && translates.is_none() {
            parts.push("force".to_owned());
        }
    }
    match random.below(4) {
        0 => {}
        1 => parts.push("zone=reg0[0..15]".to_owned()),
        // Most in one zone, so that packets are tracked there once more.
        2 => parts.push(format!("zone={}", random.below(3))),
        _ => parts.push("zone=1".to_owned()),
    }
    if !commits || random.once_in(2) {
        parts.push(format!("table={}", u64::from(table) + 1 + random.below(3)));
    }
    if commits && random.once_in(2) {
        let field = random.one(&["ct_mark", "ct_label"]).unwrap_or("ct_mark");
        parts.push(format!("exec(set_field:{:#x}->{field})", random.below(3)));
    }
    match random.below(4) {
        // Of a connection that begins Open vSwitch notes no addresses then.
        0 if !commits => parts.push("nat".to_owned()),
        1 => {
            let Some(is_six) = translates.filter(|_| commits) else { return done(&parts) };
            let address = address(random.one(&TRANSLATED).unwrap_or(TRANSLATED[0]), is_six);
            let end = random.one(&["src", "dst"]).unwrap_or("src");
            parts.push(format!("nat({end}={address})"));
        }
        _ => {}
    }
    done(&parts)
}

fn done(parts: &[String]) -> String {
    format!("ct({})", parts.join(","))
}

/// One of a connection's ends.
#[derive(Clone, Copy, Debug)]
struct End {
    address: u32,
    /// Of TCP and UDP; the number of an echo.
    port: u16,
    /// The number of the next byte that it sends.
    next: u32,
}

/// A connection, as far as it has come.
#[derive(Clone, Debug)]
struct Connection {
    /// Of TCP, UDP, or ICMP, whatever the version of IP.
    protocol: u8,
    is_six: bool,
    client: End,
    server: End,
    /// Which of the ends has another address for the other one, if addresses are translated: whether it is the
    /// client. Always the same, since what port is taken where an address is not enough is a matter of chance.
    translated: (bool, u32),
    step: u32,
}

/// Packets of a few connections in turn: most as they should be, some that are not next. If rules translate
/// addresses, what comes back is from or to one that they may have put in: ours does not begin a connection
/// the other way where a translated one is.
fn packets(random: &mut Random, translates: bool) -> Vec<Packet> {
    let mut all: Vec<Connection> = (0..CONNECTIONS).map(|id| connection(random, id)).collect();
    let mut packets = Vec::new();
    for _ in 0..PACKETS {
        let at = random.place(all.len());
        let Some(connection) = all.get_mut(at) else { continue };
        packets.push(connection.next(random, translates));
    }
    packets
}

fn connection(random: &mut Random, id: u64) -> Connection {
    let end = |random: &mut Random, all: &[u32], port: u16| {
        let next = u32::try_from(random.below(1 << 32)).unwrap_or(0);
        End { address: random.one(all).unwrap_or_default(), port, next }
    };
    let (port, service) = (1000 + u16::try_from(id).unwrap_or(0), random_port(random));
    // Some are taken up in mid-stream.
    let step = if random.once_in(4) { 3 } else { 0 };
    Connection {
        protocol: random.one(&[6, 6, 17, 1]).unwrap_or(6),
        is_six: random.once_in(3),
        client: end(random, &CLIENTS, port),
        server: end(random, &SERVERS, service),
        translated: (random.once_in(2), random.one(&TRANSLATED).unwrap_or_default()),
        step,
    }
}

fn random_port(random: &mut Random) -> u16 {
    random.one(&[53, 80, 443]).unwrap_or(80)
}

impl Connection {
    /// Its next packet; sometimes one of another kind.
    fn next(&mut self, random: &mut Random, translates: bool) -> Packet {
        let step = self.step;
        self.step += 1;
        let from_client = match (self.protocol, step) {
            (6, 0 | 2) => true,
            (6, 1) => false,
            _ => random.once_in(2),
        };
        let flags = match step {
            // One that is translated and begins anew may have another port.
            _ if random.once_in(12) => {
                let resets: &[u8] = if translates { &[] } else { &[RST, RST | ACK] };
                random.one(&[resets, &[SYN, FIN | ACK, 0]].concat()).unwrap_or(0)
            }
            0 => SYN,
            1 => SYN | ACK,
            _ => ACK,
        };
        // Of two that begin at once Open vSwitch takes no numbers from the second.
        let flags = if flags == SYN && !from_client { SYN | ACK } else { flags };
        let (mut from, mut to) =
            if from_client { (self.client, self.server) } else { (self.server, self.client) };
        if translates && !from_client {
            let (is_client, other) = self.translated;
            *(if is_client { &mut to.address } else { &mut from.address }) = other;
        }
        let length = if flags & (SYN | FIN | RST) == 0 { random.below(9) } else { 0 };
        let length = u32::try_from(length).unwrap_or(0);
        let sent = length + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let port = 1 + u16::try_from(random.below(PORTS.into())).unwrap_or(0);
        let bytes = self.bytes((&from, &to), (flags, length), from_client);
        let end = if from_client { &mut self.client } else { &mut self.server };
        end.next = end.next.wrapping_add(sent);
        Packet { port, bytes }
    }

    fn bytes(
        &self,
        (from, to): (&End, &End),
        (flags, length): (u8, u32),
        from_client: bool,
    ) -> Vec<u8> {
        let mut above = match self.protocol {
            6 => tcp(from, to, flags),
            17 => [from.port.to_be_bytes(), to.port.to_be_bytes(), [0, 0], [0, 0]].concat(),
            _ => echo(self.client.port, from_client, self.is_six),
        };
        above.extend((0..length).map(|at| at.to_be_bytes()[3]));
        let size = u16::try_from(above.len()).unwrap_or(0);
        if self.protocol == 17 {
            above[4..6].copy_from_slice(&size.to_be_bytes());
        }
        let ends = [from, to].map(|end| match address(end.address, self.is_six) {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        });
        let addresses = ends.concat();
        let protocol = if self.is_six && self.protocol == 1 { 58 } else { self.protocol };
        let mut sum = Checksum::new();
        if protocol != 1 {
            sum.add(&addresses);
            let [high, low] = size.to_be_bytes();
            sum.add(&[0, protocol, high, low]);
        }
        sum.add(&above);
        let at = match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
        above[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        let header = if self.is_six {
            let [high, low] = size.to_be_bytes();
            [&[0x86, 0xDD, 0x60, 0, 0, 0, high, low, protocol, 64], addresses.as_slice()].concat()
        } else {
            let mut header = vec![0x45, 0];
            header.extend((size + 20).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(addresses);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [&[0x08, 0x00], header.as_slice()].concat()
        };
        [&ethernet[..], &header, &above].concat()
    }
}

/// Whether a connection, as `dpctl/dump-conntrack` tells it, has other ports where it is answered: that an
/// address was not enough, and which ones were taken, is a matter of chance.
pub fn has_other_ports(line: &str) -> bool {
    let port = |name: &str| {
        let mut all = line.match_indices(name).map(|(at, _)| {
            let digits = line.get(at + name.len()..).unwrap_or_default();
            digits.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default()
        });
        (all.next(), all.next())
    };
    let ((from, back_from), (to, back_to)) = (port("sport="), port("dport="));
    from != back_to || to != back_from
}

fn tcp(from: &End, to: &End, flags: u8) -> Vec<u8> {
    let acknowledged = if flags & ACK == 0 { 0 } else { to.next };
    let mut header = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    header.extend(from.next.to_be_bytes());
    header.extend(acknowledged.to_be_bytes());
    header.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    header
}

fn echo(id: u16, asks: bool, is_six: bool) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let kind = match (asks, is_six) {
        (true, false) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (false, true) => 129,
    };
    vec![kind, 0, 0, 0, high, low, 0, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_track_packets_and_ask_for_their_connections() {
        let mut random = Random::new(1);
        let mut texts = Vec::new();
        for _ in 0..60 {
            let (mut rules, mut banned) = super::super::rule::rules(&mut random, false, &mut []);
            tracked(&mut random, &mut rules, &mut banned);
            rules.retain(|rule| rule.change().is_some());
            texts.extend(rules.iter().map(ToString::to_string));
        }
        let words =
            ["ct(", "commit", "nat(src=", "exec(", "ct_state=", "ct_zone=", "ct_mark=", "ct_clear"];
        for word in words {
            assert!(texts.iter().any(|text| text.contains(word)), "{word}");
        }
    }

    #[test]
    fn connections_with_other_ports_are_found() {
        let line = |ports: [u16; 4]| {
            let [a, b, c, d] = ports;
            let ends = "src=10.0.0.2,dst=192.168.0.1";
            let answer = "src=192.168.0.1,dst=10.0.0.99";
            format!("udp,orig=({ends},sport={a},dport={b}),reply=({answer},sport={c},dport={d})")
        };
        assert!(!has_other_ports(&line([1001, 80, 80, 1001])));
        assert!(has_other_ports(&line([1001, 80, 80, 1002])));
        assert!(has_other_ports(&line([1001, 80, 81, 1001])));
        assert!(!has_other_ports("icmp,orig=(src=1.1.1.1,dst=2.2.2.2,id=1,type=8,code=0)"));
    }

    /// Whoever tracks them takes most for those of connections.
    #[test]
    fn packets_are_whole_and_their_checksums_right() {
        let mut random = Random::new(1);
        let packets: Vec<Packet> = (0..20).flat_map(|_| packets(&mut random, false)).collect();
        for Packet { bytes, .. } in &packets {
            let (protocol, addresses, above) = if bytes[12] == 0x08 {
                assert_eq!(checksum(&bytes[14..34]), 0);
                (bytes[23], &bytes[26..34], &bytes[34..])
            } else {
                (bytes[20], &bytes[22..54], &bytes[54..])
            };
            let mut sum = Checksum::new();
            if protocol != 1 {
                sum.add(addresses);
                let [high, low] = u16::try_from(above.len()).unwrap().to_be_bytes();
                sum.add(&[0, protocol, high, low]);
            }
            sum.add(above);
            assert!(matches!(sum.finish(), 0 | 0xFFFF), "{bytes:02x?}");
        }
        assert!(packets.iter().filter(|packet| packet.bytes[12] == 0x86).count() > 5);
        let answers = |packet: &&Packet| packet.bytes[23] == 6 && packet.bytes[47] == SYN | ACK;
        assert!(packets.iter().filter(answers).count() > 5);
    }
}
