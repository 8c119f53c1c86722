//! Matches as ovs-ofctl shows them.

use std::fmt::{self, Display, Formatter};

use super::Match;
use super::prerequisite::{
    ETH_TYPE_ARP, ETH_TYPE_IP, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH,
    ETH_TYPE_RARP, PROTO_ICMP, PROTO_ICMPV6, PROTO_SCTP, PROTO_TCP, PROTO_UDP,
};
use crate::field::text::Hex;
use crate::field::{Field, text};
use crate::port_no::PortNo;

/// How a field is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// In base 16 without zeroes in front, with the mask behind it.
    Hex,
    /// In base 10; with a mask in base 16.
    Decimal,
    /// The same, but with a mask of so many digits.
    Padded(usize),
    /// In base 10 whatever the mask is.
    Plain,
    /// In base 16 whatever the mask is.
    PlainHex,
    /// In base 16 of so many digits, with the mask behind it.
    Digits(usize),
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A MAC address.
    Mac,
}

/// Fields, by what they are called, in the order in which they are shown.
type Line = (&'static str, Field, Style);

/// Those that come first.
static FIRST: &[Line] = &[
    ("pkt_mark", Field::PktMark, Style::Hex),
    ("recirc_id", Field::RecircId, Style::Hex),
    ("dp_hash", Field::DpHash, Style::Hex),
    ("conj_id", Field::ConjId, Style::Plain),
    ("skb_priority", Field::SkbPriority, Style::PlainHex),
];

/// Those of a connection.
static CONNECTION: &[Line] = &[
    ("ct_zone", Field::CtZone, Style::Decimal),
    ("ct_mark", Field::CtMark, Style::Hex),
    ("ct_label", Field::CtLabel, Style::Hex),
    ("ct_nw_src", Field::CtNwSrc, Style::Ipv4),
    ("ct_ipv6_src", Field::CtIpv6Src, Style::Ipv6),
    ("ct_nw_dst", Field::CtNwDst, Style::Ipv4),
    ("ct_ipv6_dst", Field::CtIpv6Dst, Style::Ipv6),
];

/// Those of a connection that are shown only with its protocol.
static CONNECTION_PORTS: &[Line] = &[
    ("ct_nw_proto", Field::CtNwProto, Style::Plain),
    ("ct_tp_src", Field::CtTpSrc, Style::Decimal),
    ("ct_tp_dst", Field::CtTpDst, Style::Decimal),
];

/// Those of a tunnel.
static TUNNEL: &[Line] = &[
    ("tun_id", Field::TunId, Style::Hex),
    ("tun_src", Field::TunSrc, Style::Ipv4),
    ("tun_dst", Field::TunDst, Style::Ipv4),
    ("tun_ipv6_src", Field::TunIpv6Src, Style::Ipv6),
    ("tun_ipv6_dst", Field::TunIpv6Dst, Style::Ipv6),
    ("tun_gbp_id", Field::TunGbpId, Style::Decimal),
    ("tun_gbp_flags", Field::TunGbpFlags, Style::PlainHex),
    ("tun_tos", Field::TunTos, Style::Plain),
    ("tun_ttl", Field::TunTtl, Style::Plain),
    ("tun_erspan_ver", Field::TunErspanVer, Style::Plain),
];

/// Those of a tunnel that the first version of ERSPAN has, and those that the second has.
static ERSPAN_1: &[Line] = &[("tun_erspan_idx", Field::TunErspanIdx, Style::PlainHex)];
static ERSPAN_2: &[Line] = &[
    ("tun_erspan_dir", Field::TunErspanDir, Style::Plain),
    ("tun_erspan_hwid", Field::TunErspanHwid, Style::PlainHex),
];

/// Those of a tunnel of GTP.
static GTP: &[Line] = &[
    ("gtpu_flags", Field::TunGtpuFlags, Style::PlainHex),
    ("gtpu_msgtype", Field::TunGtpuMsgtype, Style::Plain),
];

/// Those of a network service header.
static NSH: &[Line] = &[
    ("nsh_flags", Field::NshFlags, Style::Padded(2)),
    ("nsh_ttl", Field::NshTtl, Style::Padded(2)),
    ("nsh_mdtype", Field::NshMdtype, Style::Padded(2)),
    ("nsh_np", Field::NshNp, Style::Padded(2)),
    ("nsh_spi", Field::NshSpi, Style::Digits(1)),
    ("nsh_si", Field::NshSi, Style::Padded(2)),
];

/// Those of its metadata of the first type.
static NSH_CONTEXT: &[Line] = &[
    ("nsh_c1", Field::NshC1, Style::Digits(1)),
    ("nsh_c2", Field::NshC2, Style::Digits(1)),
    ("nsh_c3", Field::NshC3, Style::Digits(1)),
    ("nsh_c4", Field::NshC4, Style::Digits(1)),
];

/// Those behind addresses.
static BEHIND: &[Line] = &[
    ("nw_tos", Field::NwTos, Style::Plain),
    ("nw_ecn", Field::IpEcn, Style::Plain),
    ("nw_ttl", Field::NwTtl, Style::Plain),
    ("mpls_label", Field::MplsLabel, Style::Plain),
    ("mpls_tc", Field::MplsTc, Style::Plain),
    ("mpls_ttl", Field::MplsTtl, Style::Plain),
    ("mpls_bos", Field::MplsBos, Style::Plain),
];

/// What is behind the network header, by what that has.
static PORTS: &[Line] =
    &[("tp_src", Field::TcpSrc, Style::Decimal), ("tp_dst", Field::TcpDst, Style::Decimal)];
static ICMP: &[Line] =
    &[("icmp_type", Field::TcpSrc, Style::Decimal), ("icmp_code", Field::TcpDst, Style::Decimal)];
static DISCOVERY: &[Line] = &[
    ("nd_target", Field::NdTarget, Style::Ipv6),
    ("nd_sll", Field::ArpSha, Style::Mac),
    ("nd_tll", Field::ArpTha, Style::Mac),
    ("nd_reserved", Field::NdReserved, Style::Padded(8)),
    ("nd_options_type", Field::NdOptionsType, Style::Decimal),
];

/// What is written so far, and the comma before the next.
struct Out<'a, 'f> {
    f: &'a mut Formatter<'f>,
    comma: &'static str,
    matching: &'a Match,
}

/// Writes by a function.
struct By<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for By<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

impl Out<'_, '_> {
    fn word(&mut self, word: impl Display) -> fmt::Result {
        write!(self.f, "{}{word}", self.comma)?;
        self.comma = ",";
        Ok(())
    }

    fn value(&mut self, name: &str, value: impl Display) -> fmt::Result {
        self.word(format_args!("{name}={value}"))
    }

    fn lines(&mut self, lines: &[Line]) -> fmt::Result {
        lines.iter().try_for_each(|(name, field, style)| self.line(name, *field, *style))
    }

    /// Shows a field, if it counts.
    fn line(&mut self, name: &str, field: Field, style: Style) -> fmt::Result {
        let Some((value, mask)) = self.matching.get(field) else { return Ok(()) };
        let is_exact = self.matching.exact(field).is_some();
        let both = format_args!("{}/{}", Hex(value), Hex(mask));
        match style {
            Style::Hex if is_exact => self.value(name, Hex(value)),
            Style::Hex => self.value(name, both),
            Style::Plain => self.value(name, value),
            Style::PlainHex => self.value(name, Hex(value)),
            Style::Decimal | Style::Padded(_) if is_exact => self.value(name, value),
            Style::Decimal => self.value(name, format_args!("{value:#x}/{mask:#x}")),
            Style::Padded(digits) => {
                let width = digits + 2;
                self.value(name, format_args!("{value:#0width$x}/{mask:#0width$x}"))
            }
            Style::Digits(digits) => {
                let width = digits + 2;
                if is_exact {
                    return self.value(name, format_args!("{value:#0width$x}"));
                }
                self.value(name, format_args!("{value:#0width$x}/{mask:#0width$x}"))
            }
            Style::Ipv4 => self.value(name, By(|f: &mut Formatter<'_>| text::ipv4(f, value, mask))),
            Style::Ipv6 => self.value(name, By(|f: &mut Formatter<'_>| text::ipv6(f, value, mask))),
            Style::Mac => self.value(name, By(|f: &mut Formatter<'_>| text::mac(f, value, mask))),
        }
    }

    fn flags(&mut self, name: &str, field: Field, names: text::Flags) -> fmt::Result {
        let Some((value, mask)) = self.matching.get(field) else { return Ok(()) };
        let is_exact = self.matching.exact(field).is_some();
        self.value(
            name,
            By(|f: &mut Formatter<'_>| {
                if is_exact {
                    text::flags(f, names, value)
                } else {
                    text::masked_flags(f, names, value, mask)
                }
            }),
        )
    }

    fn port(&mut self, name: &str, field: Field) -> fmt::Result {
        let Some((value, _)) = self.matching.get(field) else { return Ok(()) };
        self.value(name, PortNo(u32::try_from(value).unwrap_or(u32::MAX)))
    }

    fn tunnel(&mut self) -> fmt::Result {
        self.lines(TUNNEL)?;
        match self.matching.get(Field::TunErspanVer) {
            Some((1, _)) => self.lines(ERSPAN_1)?,
            Some((2, _)) => self.lines(ERSPAN_2)?,
            _ => {}
        }
        self.lines(GTP)?;
        let Some((value, mask)) = self.matching.get(Field::TunFlags) else { return Ok(()) };
        // There are more than can be matched on, so that these are never all.
        let flags = |f: &mut Formatter<'_>| text::masked_flags(f, text::TUNNEL_FLAGS, value, mask);
        self.value("tun_flags", By(flags))
    }

    /// Shows an option of a tunnel, of which all bits count where all of the bytes do that are not 0 in its
    /// mask: how many it has is known by the bridge alone.
    fn option(&mut self, field: Field) -> fmt::Result {
        if self.matching.presence(field) == Some(false) {
            return self.value(field.name(), "NP");
        }
        let Some((value, mask)) = self.matching.get(field) else {
            let is_there = self.matching.presence(field).is_some();
            return if is_there { self.word(field.name()) } else { Ok(()) };
        };
        let is_whole = mask.trailing_ones() == 128 - mask.leading_zeros();
        if is_whole && mask.trailing_ones().is_multiple_of(8) {
            return self.value(field.name(), Hex(value));
        }
        self.line(field.name(), field, Style::Hex)
    }

    fn connection(&mut self) -> fmt::Result {
        self.flags("ct_state", Field::CtState, text::CT_STATE)?;
        self.lines(CONNECTION)?;
        if self.matching.get(Field::CtNwProto).is_some() {
            self.lines(CONNECTION_PORTS)?;
        }
        Ok(())
    }

    /// Shows the type by a word, and the protocol, too; returns whether it has shown each.
    fn kind(&mut self) -> Result<(bool, bool), fmt::Error> {
        if let Some(kind) = self.matching.exact(Field::PacketType)
            && kind != 0
        {
            let (space, number) = (kind >> 16, kind & 0xFFFF);
            self.value("packet_type", format_args!("({space},{})", Hex(number)))?;
        } else if self.matching.get(Field::RecircId).is_some() && self.matching.says_ethernet() {
            self.word("eth")?;
        }
        if self.matching.get(Field::EthType).is_none() {
            return Ok((false, false));
        }
        let protocol = self.matching.get(Field::IpProto).map(|_| self.matching.protocol());
        let eth_type = self.matching.eth_type();
        let word = match (eth_type, protocol) {
            (ETH_TYPE_IP, Some(PROTO_ICMP)) => "icmp",
            (ETH_TYPE_IP, Some(PROTO_TCP)) => "tcp",
            (ETH_TYPE_IP, Some(PROTO_UDP)) => "udp",
            (ETH_TYPE_IP, Some(PROTO_SCTP)) => "sctp",
            (ETH_TYPE_IPV6, Some(PROTO_ICMPV6)) => "icmp6",
            (ETH_TYPE_IPV6, Some(PROTO_TCP)) => "tcp6",
            (ETH_TYPE_IPV6, Some(PROTO_UDP)) => "udp6",
            (ETH_TYPE_IPV6, Some(PROTO_SCTP)) => "sctp6",
            (ETH_TYPE_IP, _) => "ip",
            (ETH_TYPE_IPV6, _) => "ipv6",
            (ETH_TYPE_ARP, _) => "arp",
            (ETH_TYPE_RARP, _) => "rarp",
            (ETH_TYPE_MPLS, _) => "mpls",
            (ETH_TYPE_MPLS_MCAST, _) => "mplsm",
            _ => return Ok((false, false)),
        };
        self.word(word)?;
        Ok((true, !["ip", "ipv6", "arp", "rarp", "mpls", "mplsm"].contains(&word)))
    }

    fn vlan(&mut self) -> fmt::Result {
        let Some((tci, mask)) = self.matching.get(Field::VlanTci) else { return Ok(()) };
        let (vid, pcp) = (mask & 0xFFF, mask & 0xE000);
        let whole = |part: u128, all: u128| part == 0 || part == all;
        if mask & tci & 0x1000 != 0 && whole(vid, 0xFFF) && whole(pcp, 0xE000) && vid | pcp != 0 {
            if vid != 0 {
                self.value("dl_vlan", tci & 0xFFF)?;
            }
            if pcp != 0 {
                self.value("dl_vlan_pcp", tci >> 13)?;
            }
            return Ok(());
        }
        self.line("vlan_tci", Field::VlanTci, Style::Digits(4))
    }

    fn addresses(&mut self, eth_type: u16) -> fmt::Result {
        match eth_type {
            ETH_TYPE_IPV6 => {
                self.line("ipv6_src", Field::Ipv6Src, Style::Ipv6)?;
                self.line("ipv6_dst", Field::Ipv6Dst, Style::Ipv6)?;
                self.line("ipv6_label", Field::Ipv6Label, Style::Digits(5))
            }
            ETH_TYPE_ARP | ETH_TYPE_RARP => {
                self.line("arp_spa", Field::IpSrc, Style::Ipv4)?;
                self.line("arp_tpa", Field::IpDst, Style::Ipv4)
            }
            ETH_TYPE_NSH => {
                self.lines(NSH)?;
                let is_first = self.matching.exact(Field::NshMdtype) == Some(1);
                if is_first { self.lines(NSH_CONTEXT) } else { Ok(()) }
            }
            _ => {
                self.line("nw_src", Field::IpSrc, Style::Ipv4)?;
                self.line("nw_dst", Field::IpDst, Style::Ipv4)
            }
        }
    }

    fn fragment(&mut self) -> fmt::Result {
        let Some((value, mask)) = self.matching.get(Field::IpFrag) else { return Ok(()) };
        let name = match (mask & 3, value & 3) {
            (3, 3) => "later",
            (3, 1) => "first",
            (3, 2) => "<error>",
            (1, 1) => "yes",
            (3 | 1, _) => "no",
            (_, 2 | 3) => "later",
            _ => "not_later",
        };
        self.value("nw_frag", name)
    }

    fn behind(&mut self, eth_type: u16) -> fmt::Result {
        let protocol = self.matching.protocol();
        match (eth_type, protocol) {
            (ETH_TYPE_IP, PROTO_ICMP) => self.lines(ICMP)?,
            (ETH_TYPE_IPV6, PROTO_ICMPV6) => {
                self.lines(ICMP)?;
                self.lines(DISCOVERY)?;
            }
            _ => self.lines(PORTS)?,
        }
        if self.matching.is_ip() && protocol == PROTO_TCP {
            self.flags("tcp_flags", Field::TcpFlags, text::TCP_FLAGS)?;
        }
        Ok(())
    }

    fn all(&mut self) -> fmt::Result {
        self.lines(FIRST)?;
        self.port("actset_output", Field::ActsetOutput)?;
        self.connection()?;
        let (has_type, has_protocol) = self.kind()?;
        for register in (0..16).filter_map(Field::reg) {
            self.line(register.name(), register, Style::Hex)?;
        }
        self.tunnel()?;
        for option in (0..64).filter_map(Field::tun_metadata) {
            self.option(option)?;
        }
        self.line("metadata", Field::Metadata, Style::Hex)?;
        self.port("in_port", Field::InPortOxm)?;
        self.vlan()?;
        self.line("dl_src", Field::EthSrc, Style::Mac)?;
        self.line("dl_dst", Field::EthDst, Style::Mac)?;
        if !has_type {
            self.line("dl_type", Field::EthType, Style::Digits(4))?;
        }
        let eth_type = self.matching.eth_type();
        self.addresses(eth_type)?;
        let is_arp = [ETH_TYPE_ARP, ETH_TYPE_RARP].contains(&eth_type);
        if !has_protocol {
            let name = if is_arp { "arp_op" } else { "nw_proto" };
            self.line(name, Field::IpProto, Style::Plain)?;
        }
        if is_arp {
            self.line("arp_sha", Field::ArpSha, Style::Mac)?;
            self.line("arp_tha", Field::ArpTha, Style::Mac)?;
        }
        self.lines(BEHIND)?;
        self.fragment()?;
        self.behind(eth_type)
    }
}

/// As ovs-ofctl shows it: `tcp,in_port=1,nw_dst=10.0.0.0/8,tp_dst=80`; nothing for all packets.
impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Out { f, comma: "", matching: self }.all()
    }
}
