//! All fields, a line each.
//!
//! A line has the field's names, its size in a message in bytes and how many bits of it have a meaning,
//! whether a match may have a mask for it, how people write it, what must be matched on before it, whether
//! actions may write it, and the numbers that stand for it: their class, name, number and the version of
//! OpenFlow that has it first. A family's number counts up from the one given.

use super::{Access, Class, Format, Header, Info, Mask, Prerequisite};
use crate::Version;

/// Makes the list of fields and what is known of them.
macro_rules! fields {
    (
        single { $(
            $field:ident($($name:literal),+) $bytes:literal/$bits:literal $mask:ident $format:ident
            $needs:ident $access:ident
            [$($class:ident $header:ident $number:literal $since:ident),*];
        )* }
        families { $(
            $family:literal $fbytes:literal/$fbits:literal $fmask:ident $fformat:ident $fneeds:ident
            $faccess:ident [$fclass:ident $fheader:ident $first:literal $fsince:ident]
            { $($member:ident $n:literal),+ }
        )* }
    ) => {
        /// A field of a packet, or of what travels with it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "their names are those of ovs-fields(7)")]
        pub enum Field {
            $($field,)*
            $($($member,)+)*
        }

        /// All fields, in the order of the enumeration.
        pub(super) static ALL: &[Field] = &[$(Field::$field,)* $($(Field::$member,)+)*];

        /// What is known of each.
        pub(super) static INFO: &[Info] = &[
            $(Info {
                names: &[$($name),+],
                bytes: $bytes,
                bits: $bits,
                mask: Mask::$mask,
                format: Format::$format,
                needs: Prerequisite::$needs,
                access: Access::$access,
                headers: &[$(Header {
                    class: Class::$class,
                    number: $number,
                    since: Version::$since,
                    name: concat!(stringify!($class), "_", stringify!($header)),
                }),*],
            },)*
            $($(Info {
                names: &[concat!($family, $n)],
                bytes: $fbytes,
                bits: $fbits,
                mask: Mask::$fmask,
                format: Format::$fformat,
                needs: Prerequisite::$fneeds,
                access: Access::$faccess,
                headers: &[Header {
                    class: Class::$fclass,
                    number: $first + $n,
                    since: Version::$fsince,
                    name: concat!(stringify!($fclass), "_", stringify!($fheader), $n),
                }],
            },)+)*
        ];
    };
}

#[rustfmt::skip]
fields! {
    single {
    DpHash("dp_hash") 4/32 Masked Hex Nothing Fixed [NXOXM_ET DP_HASH 0 V10, NXM_NX DP_HASH 35 V10];
    RecircId("recirc_id") 4/32 Exact Decimal Nothing Fixed [NXM_NX RECIRC_ID 36 V10];
    PacketType("packet_type") 4/32 Exact PacketType Nothing Fixed [OXM_OF PACKET_TYPE 44 V15];
    ConjId("conj_id") 4/32 Exact Decimal Nothing Fixed [NXM_NX CONJ_ID 37 V10];
    TunId("tun_id", "tunnel_id") 8/64 Masked Hex Nothing Write
        [NXM_NX TUN_ID 16 V10, OXM_OF TUNNEL_ID 38 V13];
    TunSrc("tun_src") 4/32 Masked Ipv4 Nothing Write [NXM_NX TUN_IPV4_SRC 31 V10];
    TunDst("tun_dst") 4/32 Masked Ipv4 Nothing Write [NXM_NX TUN_IPV4_DST 32 V10];
    TunIpv6Src("tun_ipv6_src") 16/128 Masked Ipv6 Nothing Write [NXM_NX TUN_IPV6_SRC 109 V10];
    TunIpv6Dst("tun_ipv6_dst") 16/128 Masked Ipv6 Nothing Write [NXM_NX TUN_IPV6_DST 110 V10];
    TunFlags("tun_flags") 2/1 Masked TunnelFlags Nothing Write [NXM_NX TUN_FLAGS 104 V10];
    TunTtl("tun_ttl") 1/8 Exact Decimal Nothing Fixed [];
    TunTos("tun_tos") 1/8 Exact Decimal Nothing Fixed [];
    TunGbpId("tun_gbp_id") 2/16 Masked Decimal Nothing Write [NXM_NX TUN_GBP_ID 38 V10];
    TunGbpFlags("tun_gbp_flags") 1/8 Masked Hex Nothing Write [NXM_NX TUN_GBP_FLAGS 39 V10];
    TunErspanIdx("tun_erspan_idx") 4/20 Masked Hex Nothing Write [NXOXM_ET ERSPAN_IDX 11 V10];
    TunErspanVer("tun_erspan_ver") 1/4 Masked Decimal Nothing Write [NXOXM_ET ERSPAN_VER 12 V10];
    TunErspanDir("tun_erspan_dir") 1/1 Masked Decimal Nothing Write [NXOXM_ET ERSPAN_DIR 13 V10];
    TunErspanHwid("tun_erspan_hwid") 1/6 Masked Hex Nothing Write [NXOXM_ET ERSPAN_HWID 14 V10];
    TunGtpuFlags("tun_gtpu_flags") 1/8 Masked Hex Nothing Fixed [NXOXM_ET GTPU_FLAGS 15 V10];
    TunGtpuMsgtype("tun_gtpu_msgtype") 1/8 Masked Decimal Nothing Fixed
        [NXOXM_ET GTPU_MSGTYPE 16 V10];
    Metadata("metadata") 8/64 Masked Hex Nothing Write [OXM_OF METADATA 2 V12];
    InPort("in_port") 2/16 Exact Port Nothing Write [NXM_OF IN_PORT 0 V10];
    InPortOxm("in_port_oxm") 4/32 Exact PortOxm Nothing Write [OXM_OF IN_PORT 0 V12];
    ActsetOutput("actset_output") 4/32 Exact PortOxm Nothing Fixed
        [ONFOXM_ET ACTSET_OUTPUT 43 V13, OXM_OF ACTSET_OUTPUT 43 V15];
    SkbPriority("skb_priority") 4/32 Exact Hex Nothing Fixed [];
    PktMark("pkt_mark") 4/32 Masked Hex Nothing Write [NXM_NX PKT_MARK 33 V10];
    CtState("ct_state") 4/32 Masked CtState Nothing Fixed [NXM_NX CT_STATE 105 V10];
    CtZone("ct_zone") 2/16 Exact Hex Nothing Fixed [NXM_NX CT_ZONE 106 V10];
    CtMark("ct_mark") 4/32 Masked Hex Nothing Write [NXM_NX CT_MARK 107 V10];
    CtLabel("ct_label") 16/128 Masked Hex Nothing Write [NXM_NX CT_LABEL 108 V10];
    CtNwProto("ct_nw_proto") 1/8 Exact Decimal Tracked Fixed [NXM_NX CT_NW_PROTO 119 V10];
    CtNwSrc("ct_nw_src") 4/32 Masked Ipv4 Tracked Fixed [NXM_NX CT_NW_SRC 120 V10];
    CtNwDst("ct_nw_dst") 4/32 Masked Ipv4 Tracked Fixed [NXM_NX CT_NW_DST 121 V10];
    CtIpv6Src("ct_ipv6_src") 16/128 Masked Ipv6 Tracked Fixed [NXM_NX CT_IPV6_SRC 122 V10];
    CtIpv6Dst("ct_ipv6_dst") 16/128 Masked Ipv6 Tracked Fixed [NXM_NX CT_IPV6_DST 123 V10];
    CtTpSrc("ct_tp_src") 2/16 Masked Decimal Tracked Fixed [NXM_NX CT_TP_SRC 124 V10];
    CtTpDst("ct_tp_dst") 2/16 Masked Decimal Tracked Fixed [NXM_NX CT_TP_DST 125 V10];
    EthSrc("eth_src", "dl_src") 6/48 Masked Ethernet Ethernet Write
        [NXM_OF ETH_SRC 2 V10, OXM_OF ETH_SRC 4 V12];
    EthDst("eth_dst", "dl_dst") 6/48 Masked Ethernet Ethernet Write
        [NXM_OF ETH_DST 1 V10, OXM_OF ETH_DST 3 V12];
    EthType("eth_type", "dl_type") 2/16 Exact Hex Ethernet Fixed
        [NXM_OF ETH_TYPE 3 V10, OXM_OF ETH_TYPE 5 V12];
    VlanTci("vlan_tci") 2/16 Masked Hex Ethernet Write [NXM_OF VLAN_TCI 4 V10];
    DlVlan("dl_vlan") 2/12 Exact Decimal Ethernet Write [];
    VlanVid("vlan_vid") 2/12 Masked Decimal Ethernet Write [OXM_OF VLAN_VID 6 V12];
    DlVlanPcp("dl_vlan_pcp") 1/3 Exact Decimal Ethernet Write [];
    VlanPcp("vlan_pcp") 1/3 Exact Decimal Vlan Write [OXM_OF VLAN_PCP 7 V12];
    MplsLabel("mpls_label") 4/20 Exact Decimal Mpls Write [OXM_OF MPLS_LABEL 34 V12];
    MplsTc("mpls_tc") 1/3 Exact Decimal Mpls Write [OXM_OF MPLS_TC 35 V12];
    MplsBos("mpls_bos") 1/1 Exact Decimal Mpls Fixed [OXM_OF MPLS_BOS 36 V13];
    MplsTtl("mpls_ttl") 1/8 Exact Decimal Mpls Write [NXM_NX MPLS_TTL 30 V10];
    IpSrc("ip_src", "nw_src") 4/32 Masked Ipv4 Ipv4 Write
        [NXM_OF IP_SRC 7 V10, OXM_OF IPV4_SRC 11 V12];
    IpDst("ip_dst", "nw_dst") 4/32 Masked Ipv4 Ipv4 Write
        [NXM_OF IP_DST 8 V10, OXM_OF IPV4_DST 12 V12];
    Ipv6Src("ipv6_src") 16/128 Masked Ipv6 Ipv6 Write
        [NXM_NX IPV6_SRC 19 V10, OXM_OF IPV6_SRC 26 V12];
    Ipv6Dst("ipv6_dst") 16/128 Masked Ipv6 Ipv6 Write
        [NXM_NX IPV6_DST 20 V10, OXM_OF IPV6_DST 27 V12];
    Ipv6Label("ipv6_label") 4/20 Masked Hex Ipv6 Write
        [NXM_NX IPV6_LABEL 27 V10, OXM_OF IPV6_FLABEL 28 V12];
    IpProto("nw_proto", "ip_proto") 1/8 Exact Decimal Ip Fixed
        [NXM_OF IP_PROTO 6 V10, OXM_OF IP_PROTO 10 V12];
    NwTos("nw_tos") 1/8 Exact Decimal Ip Write [NXM_OF IP_TOS 5 V10];
    IpDscp("ip_dscp") 1/6 Exact Decimal Ip Write [OXM_OF IP_DSCP 8 V12];
    IpEcn("nw_ecn", "ip_ecn") 1/2 Exact Decimal Ip Write
        [NXM_NX IP_ECN 28 V10, OXM_OF IP_ECN 9 V12];
    NwTtl("nw_ttl") 1/8 Exact Decimal Ip Write [NXM_NX IP_TTL 29 V10];
    IpFrag("ip_frag", "nw_frag") 1/2 Masked Frag Ip Fixed [NXM_NX IP_FRAG 26 V10];
    ArpOp("arp_op") 2/16 Exact Decimal Arp Write [NXM_OF ARP_OP 15 V10, OXM_OF ARP_OP 21 V12];
    ArpSpa("arp_spa") 4/32 Masked Ipv4 Arp Write [NXM_OF ARP_SPA 16 V10, OXM_OF ARP_SPA 22 V12];
    ArpTpa("arp_tpa") 4/32 Masked Ipv4 Arp Write [NXM_OF ARP_TPA 17 V10, OXM_OF ARP_TPA 23 V12];
    ArpSha("arp_sha") 6/48 Masked Ethernet Arp Write [NXM_NX ARP_SHA 17 V10, OXM_OF ARP_SHA 24 V12];
    ArpTha("arp_tha") 6/48 Masked Ethernet Arp Write [NXM_NX ARP_THA 18 V10, OXM_OF ARP_THA 25 V12];
    TcpSrc("tcp_src", "tp_src") 2/16 Masked Decimal Tcp Write
        [NXM_OF TCP_SRC 9 V10, OXM_OF TCP_SRC 13 V12];
    TcpDst("tcp_dst", "tp_dst") 2/16 Masked Decimal Tcp Write
        [NXM_OF TCP_DST 10 V10, OXM_OF TCP_DST 14 V12];
    TcpFlags("tcp_flags") 2/12 Masked TcpFlags Tcp Fixed
        [NXM_NX TCP_FLAGS 34 V10, ONFOXM_ET TCP_FLAGS 42 V13, OXM_OF TCP_FLAGS 42 V15];
    UdpSrc("udp_src") 2/16 Masked Decimal Udp Write [NXM_OF UDP_SRC 11 V10, OXM_OF UDP_SRC 15 V12];
    UdpDst("udp_dst") 2/16 Masked Decimal Udp Write [NXM_OF UDP_DST 12 V10, OXM_OF UDP_DST 16 V12];
    SctpSrc("sctp_src") 2/16 Masked Decimal Sctp Write [OXM_OF SCTP_SRC 17 V12];
    SctpDst("sctp_dst") 2/16 Masked Decimal Sctp Write [OXM_OF SCTP_DST 18 V12];
    IcmpType("icmp_type") 1/8 Exact Decimal Icmpv4 Write
        [NXM_OF ICMP_TYPE 13 V10, OXM_OF ICMPV4_TYPE 19 V12];
    IcmpCode("icmp_code") 1/8 Exact Decimal Icmpv4 Write
        [NXM_OF ICMP_CODE 14 V10, OXM_OF ICMPV4_CODE 20 V12];
    Icmpv6Type("icmpv6_type") 1/8 Exact Decimal Icmpv6 Write
        [NXM_NX ICMPV6_TYPE 21 V10, OXM_OF ICMPV6_TYPE 29 V12];
    Icmpv6Code("icmpv6_code") 1/8 Exact Decimal Icmpv6 Write
        [NXM_NX ICMPV6_CODE 22 V10, OXM_OF ICMPV6_CODE 30 V12];
    NdTarget("nd_target") 16/128 Masked Ipv6 Nd Write
        [NXM_NX ND_TARGET 23 V10, OXM_OF IPV6_ND_TARGET 31 V12];
    NdSll("nd_sll") 6/48 Masked Ethernet NdSolicit Write
        [NXM_NX ND_SLL 24 V10, OXM_OF IPV6_ND_SLL 32 V12];
    NdTll("nd_tll") 6/48 Masked Ethernet NdAdvert Write
        [NXM_NX ND_TLL 25 V10, OXM_OF IPV6_ND_TLL 33 V12];
    NdReserved("nd_reserved") 4/32 Exact Decimal Nd Write [ERICOXM_OF ICMPV6_ND_RESERVED 1 V10];
    NdOptionsType("nd_options_type") 1/8 Exact Decimal Nd Write
        [ERICOXM_OF ICMPV6_ND_OPTIONS_TYPE 2 V10];
    NshFlags("nsh_flags") 1/8 Masked Decimal Nsh Write [NXOXM_NSH FLAGS 1 V10];
    NshMdtype("nsh_mdtype") 1/8 Exact Decimal Nsh Fixed [NXOXM_NSH MDTYPE 2 V10];
    NshNp("nsh_np") 1/8 Exact Decimal Nsh Fixed [NXOXM_NSH NP 3 V10];
    NshSpi("nsh_spi", "nsp") 4/24 Exact Hex Nsh Write [NXOXM_NSH SPI 4 V10];
    NshSi("nsh_si", "nsi") 1/8 Exact Decimal Nsh Write [NXOXM_NSH SI 5 V10];
    NshC1("nsh_c1", "nshc1") 4/32 Masked Hex Nsh Write [NXOXM_NSH C1 6 V10];
    NshC2("nsh_c2", "nshc2") 4/32 Masked Hex Nsh Write [NXOXM_NSH C2 7 V10];
    NshC3("nsh_c3", "nshc3") 4/32 Masked Hex Nsh Write [NXOXM_NSH C3 8 V10];
    NshC4("nsh_c4", "nshc4") 4/32 Masked Hex Nsh Write [NXOXM_NSH C4 9 V10];
    NshTtl("nsh_ttl") 1/8 Exact Decimal Nsh Write [NXOXM_NSH TTL 10 V10];
    TunOptions("tun_options") 8/64 Masked Hex Nothing Fixed [];
    }
    families {
    "tun_metadata" 124/992 Masked Hex Nothing Write [NXM_NX TUN_METADATA 40 V10] {
        TunMetadata0 0, TunMetadata1 1, TunMetadata2 2, TunMetadata3 3, TunMetadata4 4,
        TunMetadata5 5, TunMetadata6 6, TunMetadata7 7, TunMetadata8 8, TunMetadata9 9,
        TunMetadata10 10, TunMetadata11 11, TunMetadata12 12, TunMetadata13 13, TunMetadata14 14,
        TunMetadata15 15, TunMetadata16 16, TunMetadata17 17, TunMetadata18 18, TunMetadata19 19,
        TunMetadata20 20, TunMetadata21 21, TunMetadata22 22, TunMetadata23 23, TunMetadata24 24,
        TunMetadata25 25, TunMetadata26 26, TunMetadata27 27, TunMetadata28 28, TunMetadata29 29,
        TunMetadata30 30, TunMetadata31 31, TunMetadata32 32, TunMetadata33 33, TunMetadata34 34,
        TunMetadata35 35, TunMetadata36 36, TunMetadata37 37, TunMetadata38 38, TunMetadata39 39,
        TunMetadata40 40, TunMetadata41 41, TunMetadata42 42, TunMetadata43 43, TunMetadata44 44,
        TunMetadata45 45, TunMetadata46 46, TunMetadata47 47, TunMetadata48 48, TunMetadata49 49,
        TunMetadata50 50, TunMetadata51 51, TunMetadata52 52, TunMetadata53 53, TunMetadata54 54,
        TunMetadata55 55, TunMetadata56 56, TunMetadata57 57, TunMetadata58 58, TunMetadata59 59,
        TunMetadata60 60, TunMetadata61 61, TunMetadata62 62, TunMetadata63 63
    }
    "reg" 4/32 Masked Hex Nothing Write [NXM_NX REG 0 V10] {
        Reg0 0, Reg1 1, Reg2 2, Reg3 3, Reg4 4, Reg5 5, Reg6 6, Reg7 7, Reg8 8, Reg9 9, Reg10 10,
        Reg11 11, Reg12 12, Reg13 13, Reg14 14, Reg15 15
    }
    "xreg" 8/64 Masked Hex Nothing Write [OXM_OF_PKT REG 0 V13] {
        Xreg0 0, Xreg1 1, Xreg2 2, Xreg3 3, Xreg4 4, Xreg5 5, Xreg6 6, Xreg7 7
    }
    "xxreg" 16/128 Masked Hex Nothing Write [NXM_NX XXREG 111 V10] {
        Xxreg0 0, Xxreg1 1, Xxreg2 2, Xxreg3 3
    }
    }
}
