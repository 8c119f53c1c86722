//! Arguments of `ringway gen` for the headers of its frames.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use packet::MacAddr;
use packet::headers::{EtherType, TcpFlags};

use super::number;
use crate::generate::headers::{
    DEFAULT_DST_PORT, DEFAULT_SRC_PORT, Headers, Network, Tag, Transport, combinations,
    default_dst_ip, default_src_ip,
};
use crate::generate::range::{L4Port, Range, Vlan, Vni};

const SRC_MAC: MacAddr = MacAddr([0x02, 0x52, 0x57, 0, 0, 1]);
const DST_MAC: MacAddr = MacAddr([0x02, 0x52, 0x57, 0, 0, 2]);
const OUTER_SRC_MAC: MacAddr = MacAddr([0x02, 0x52, 0x57, 0, 1, 1]);
const OUTER_DST_MAC: MacAddr = MacAddr([0x02, 0x52, 0x57, 0, 1, 2]);

/// What headers frames have.
#[derive(Clone, Debug, Default, Args)]
#[command(
    next_help_heading = "Headers (a RANGE is a value, FIRST-LAST or FIRST+COUNT, with @STEP)"
)]
pub struct HeaderArgs {
    /// Source MAC addresses [default: 02:52:57:00:00:01].
    #[arg(long, value_name = "RANGE")]
    pub src_mac: Option<Range<MacAddr>>,

    /// Destination MAC addresses [default: 02:52:57:00:00:02].
    #[arg(long, value_name = "RANGE")]
    pub dst_mac: Option<Range<MacAddr>>,

    /// VLANs of a tag.
    #[arg(long, value_name = "RANGE")]
    pub vlan: Option<Range<Vlan>>,

    /// VLANs of a service provider's tag (802.1ad) outside of it.
    #[arg(long, value_name = "RANGE")]
    pub svlan: Option<Range<Vlan>>,

    /// Priority in the tags, 0 to 7 [default: 0].
    #[arg(long, value_name = "N", value_parser = number(0..=7_u8))]
    pub priority: Option<u8>,

    /// Source addresses of IPv4 or IPv6 [default: 198.18.0.0 + flow].
    #[arg(long, value_name = "RANGE")]
    pub src_ip: Option<Range<IpAddr>>,

    /// Destination addresses [default: 198.19.0.1].
    #[arg(long, value_name = "RANGE")]
    pub dst_ip: Option<Range<IpAddr>>,

    /// IPv6 in place of IPv4, from 2001:2:: + flow to 2001:2:0:1::1 unless told otherwise.
    #[arg(long)]
    pub ipv6: bool,

    /// Time to live, or hop limit [default: 64].
    #[arg(long, value_name = "N", value_parser = number(1..=255_u8))]
    pub ttl: Option<u8>,

    /// Differentiated services code point, 0 to 63 [default: 0].
    #[arg(long, value_name = "N", value_parser = number(0..=63_u8))]
    pub dscp: Option<u8>,

    /// What is above IP [default: udp].
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub protocol: Option<Protocol>,

    /// Control bits of TCP, as in syn,ack [default: syn].
    #[arg(long, value_name = "LIST", value_parser = parse_flags)]
    pub tcp_flags: Option<TcpFlags>,

    /// Source ports [default: 49152 + flow].
    #[arg(long, value_name = "RANGE")]
    pub src_port: Option<Range<L4Port>>,

    /// Destination ports [default: 9].
    #[arg(long, value_name = "RANGE")]
    pub dst_port: Option<Range<L4Port>>,

    /// Networks of a VXLAN tunnel around all that; tags are outside of it.
    #[arg(long, value_name = "RANGE")]
    pub vxlan: Option<Range<Vni>>,

    /// The tunnel's source MAC addresses [default: 02:52:57:00:01:01].
    #[arg(long, value_name = "RANGE", requires = "vxlan")]
    pub outer_src_mac: Option<Range<MacAddr>>,

    /// Its destination MAC addresses [default: 02:52:57:00:01:02].
    #[arg(long, value_name = "RANGE", requires = "vxlan")]
    pub outer_dst_mac: Option<Range<MacAddr>>,

    /// Its source IP addresses [default: 198.18.0.0 + flow].
    #[arg(long, value_name = "RANGE", requires = "vxlan")]
    pub outer_src_ip: Option<Range<IpAddr>>,

    /// Its destination IP addresses [default: 198.19.0.1].
    #[arg(long, value_name = "RANGE", requires = "vxlan")]
    pub outer_dst_ip: Option<Range<IpAddr>>,

    /// In what order flows take their turns [default: sequence].
    #[arg(long, value_enum, value_name = "ORDER")]
    pub order: Option<Turns>,

    /// Which random order [default: 0].
    #[arg(long, value_name = "N", requires = "order")]
    pub seed: Option<u64>,
}

/// What is above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// In what order flows take their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Turns {
    /// One after the other.
    Sequence,
    /// Each once in a round, in an order that looks random and is the same for the same seed.
    Random,
}

/// The names of all options here that only matter to who makes frames.
pub const OPTIONS: &[&str] = &[
    "src_mac",
    "dst_mac",
    "vlan",
    "svlan",
    "priority",
    "src_ip",
    "dst_ip",
    "ipv6",
    "ttl",
    "dscp",
    "protocol",
    "tcp_flags",
    "src_port",
    "dst_port",
    "vxlan",
    "outer_src_mac",
    "outer_dst_mac",
    "outer_src_ip",
    "outer_dst_ip",
    "order",
    "seed",
];

impl HeaderArgs {
    /// What they come to.
    ///
    /// # Errors
    /// When they do not go together.
    pub fn headers(&self) -> Result<Headers, String> {
        let tags = self.tags()?;
        let network = self.network()?;
        let tunnel = match self.vxlan {
            None => None,
            Some(vni) => Some((self.outer()?, vni)),
        };
        let transport = match (self.protocol, self.tcp_flags) {
            (Some(Protocol::Tcp), flags) => Transport::Tcp(flags.unwrap_or(TcpFlags::SYN)),
            (_, Some(_)) => return Err("--tcp-flags is of use with --protocol tcp only".into()),
            _ => Transport::Udp,
        };
        let src_port = self.src_port.unwrap_or(DEFAULT_SRC_PORT);
        let dst_port = self.dst_port.unwrap_or(DEFAULT_DST_PORT);
        let asked = self.asked();
        Ok(Headers { tags, tunnel, network, transport, src_port, dst_port, asked })
    }

    fn tags(&self) -> Result<Vec<Tag>, String> {
        let priority = self.priority.unwrap_or(0);
        if self.priority.is_some() && self.vlan.is_none() && self.svlan.is_none() {
            return Err("--priority needs a tag: --vlan 0 has one without a VLAN".into());
        }
        let tag = |ether_type, vlan: Option<Range<Vlan>>| {
            vlan.map(|vlan| Tag { ether_type, vlan, priority })
        };
        let tags = [tag(EtherType::QINQ, self.svlan), tag(EtherType::VLAN, self.vlan)];
        Ok(tags.into_iter().flatten().collect())
    }

    fn network(&self) -> Result<Network, String> {
        let is_v6 = self.ipv6 || is_v6(&[self.src_ip, self.dst_ip]);
        let network = Network {
            src_mac: self.src_mac.unwrap_or(Range::one(SRC_MAC)),
            dst_mac: self.dst_mac.unwrap_or(Range::one(DST_MAC)),
            src_ip: self.src_ip.unwrap_or(default_src_ip(is_v6)),
            dst_ip: self.dst_ip.unwrap_or(default_dst_ip(is_v6)),
            ttl: self.ttl.unwrap_or(64),
            class: self.dscp.unwrap_or(0) << 2,
        };
        if self.ipv6 && network.src_ip.first.is_ipv4() {
            return Err(format!("--ipv6 does not go with {}", network.src_ip.first));
        }
        check_versions(&network)?;
        Ok(network)
    }

    fn outer(&self) -> Result<Network, String> {
        let is_v6 = is_v6(&[self.outer_src_ip, self.outer_dst_ip]);
        let network = Network {
            src_mac: self.outer_src_mac.unwrap_or(Range::one(OUTER_SRC_MAC)),
            dst_mac: self.outer_dst_mac.unwrap_or(Range::one(OUTER_DST_MAC)),
            src_ip: self.outer_src_ip.unwrap_or(default_src_ip(is_v6)),
            dst_ip: self.outer_dst_ip.unwrap_or(default_dst_ip(is_v6)),
            ttl: 64,
            class: self.dscp.unwrap_or(0) << 2,
        };
        check_versions(&network)?;
        Ok(network)
    }

    /// The flows that the ranges given make.
    fn asked(&self) -> u64 {
        let count = |range: Option<u32>| range.unwrap_or(1);
        combinations([
            count(self.src_mac.map(|range| range.count)),
            count(self.dst_mac.map(|range| range.count)),
            count(self.vlan.map(|range| range.count)),
            count(self.svlan.map(|range| range.count)),
            count(self.src_ip.map(|range| range.count)),
            count(self.dst_ip.map(|range| range.count)),
            count(self.src_port.map(|range| range.count)),
            count(self.dst_port.map(|range| range.count)),
            count(self.vxlan.map(|range| range.count)),
            count(self.outer_src_mac.map(|range| range.count)),
            count(self.outer_dst_mac.map(|range| range.count)),
            count(self.outer_src_ip.map(|range| range.count)),
            count(self.outer_dst_ip.map(|range| range.count)),
        ])
    }
}

fn is_v6(given: &[Option<Range<IpAddr>>]) -> bool {
    given.iter().flatten().any(|range| range.first.is_ipv6())
}

fn check_versions(network: &Network) -> Result<(), String> {
    network.src_ip.differs(&network.dst_ip).map_or(Ok(()), Err)
}

fn parse_flags(text: &str) -> Result<TcpFlags, String> {
    let flag = |name: &str| {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "fin" => TcpFlags::FIN,
            "syn" => TcpFlags::SYN,
            "rst" => TcpFlags::RST,
            "psh" => TcpFlags::PSH,
            "ack" => TcpFlags::ACK,
            "urg" => TcpFlags::URG,
            "ece" => TcpFlags::ECE,
            "cwr" => TcpFlags::CWR,
            _ => {
                return Err(format!(
                    "'{name}': expected a list of fin, syn, rst, psh, ack, urg, ece, cwr"
                ));
            }
        })
    };
    text.split(',').try_fold(TcpFlags::default(), |all, name| Ok(all | flag(name)?))
}
