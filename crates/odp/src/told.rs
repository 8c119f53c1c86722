//! Packets in the words of `ofproto/trace`.

use flow::place::{is_present, place};
use flow::{Key, TAG_PRESENT, slot};
use openflow::matching::home;
use openflow::{Field, Match, PortNo};

use crate::kind::{Kind, is_discovery, is_later};
use crate::masked::signed;
use crate::tunnel::{FLAGS, flags_of, is_tunnelled, named_flags};

/// The bit of a label that says that no other follows (RFC 3032, section 2.1).
const LAST_LABEL: u32 = 1 << 8;

/// Names of a bridge's ports.
pub type PortNames<'a> = &'a dyn Fn(PortNo) -> Option<String>;

/// A packet, by all that it has, and what travels with it where that is not zero.
#[must_use]
pub fn packet(key: &Key, names: Option<PortNames<'_>>) -> String {
    let mut all = Match::new();
    let mut set = |field: Field| {
        if let Some(slot) = place(field) {
            all.set(field, key.get(slot));
        }
    };
    let is_not_zero = |field: &Field| place(*field).is_some_and(|slot| key.get(slot) != 0);
    let beside = [
        Field::InPortOxm,
        Field::SkbPriority,
        Field::PktMark,
        Field::RecircId,
        Field::DpHash,
        Field::CtState,
        Field::CtZone,
        Field::CtMark,
        Field::CtLabel,
        Field::Metadata,
    ];
    let registers = (0..slot::REGS).filter_map(Field::reg);
    beside.into_iter().chain(registers).filter(is_not_zero).for_each(&mut set);
    let link = [Field::PacketType, Field::EthSrc, Field::EthDst, Field::EthType, Field::VlanTci];
    link.into_iter().take(if key.is_ethernet() { 5 } else { 1 }).for_each(&mut set);
    of_network(key).iter().copied().for_each(&mut set);
    of_tunnel(key, &mut all);
    let text = with_inner_labels(with_inner_tag(all.to_string(), key, None), key);
    let text = with_tunnel_flags(text, key, None);
    match names {
        Some(names) => named(&text, names),
        None => text,
    }
}

/// Adds what is known of the tunnel that a packet has come by, or is to take.
fn of_tunnel(key: &Key, all: &mut Match) {
    if !is_tunnelled(key) {
        // Rules may have said in which network it is before they say whose tunnel it takes.
        if key.get(slot::TUN_ID) != 0 {
            all.set(Field::TunId, key.get(slot::TUN_ID));
        }
        return;
    }
    if key.get(slot::TUN_HAS_KEY) != 0 {
        all.set(Field::TunId, key.get(slot::TUN_ID));
    }
    let fields = [
        Field::TunSrc,
        Field::TunDst,
        Field::TunIpv6Src,
        Field::TunIpv6Dst,
        Field::TunGbpId,
        Field::TunGbpFlags,
        Field::TunTos,
        Field::TunTtl,
        Field::TunErspanVer,
        Field::TunErspanIdx,
        Field::TunErspanDir,
        Field::TunErspanHwid,
        Field::TunGtpuFlags,
        Field::TunGtpuMsgtype,
    ];
    // No packet has come with what there is no place for.
    fields.into_iter().for_each(|field| {
        all.set(field, place(field).map_or(0, |slot| key.get(slot)));
    });
    let options = (0..slot::OPTIONS).filter_map(Field::tun_metadata);
    for field in options.filter(|field| is_present(key, *field)) {
        let Some(slot) = place(field) else { continue };
        all.set_masked(field, key.get(slot), slot.ones());
    }
}

/// Adds flags of the tunnel, of which a match of OpenFlow has only one; and says so where it counts that an
/// option is not there.
fn with_tunnel_flags(text: String, key: &Key, mask: Option<&Key>) -> String {
    let counted = mask.map_or(0, flags_of);
    if !is_tunnelled(key) || mask.is_some() && counted == 0 {
        return text;
    }
    let flags = match mask {
        Some(_) => signed(flags_of(key), counted, &FLAGS),
        None if flags_of(key) == 0 => "0".to_owned(),
        None => named_flags(flags_of(key)),
    };
    let flags = format!("tun_flags={flags}");
    let is_option = |part: &&str| part.starts_with("tun_metadata");
    let is_other =
        |part: &&str| (part.starts_with("tun_") || part.starts_with("gtpu_")) && !is_option(part);
    let kept = text.split(',').filter(|part| !part.starts_with("tun_flags="));
    let mut parts: Vec<&str> = kept.collect();
    let at = parts.iter().rposition(is_other).map_or(0, |at| at + 1);
    parts.insert(at, &flags);
    parts.join(",")
}

/// Adds the labels of MPLS behind the outer one, up to the last, which no match of OpenFlow is about either.
fn with_inner_labels(mut text: String, key: &Key) -> String {
    if Kind::of(key) != Kind::Mpls {
        return text;
    }
    let inner = [("mpls_lse1", slot::MPLS_LSE1), ("mpls_lse2", slot::MPLS_LSE2)];
    let mut outer = key.get_u32(slot::MPLS_LSE);
    for (name, slot) in inner {
        if outer & LAST_LABEL != 0 {
            break;
        }
        outer = key.get_u32(slot);
        text += &format!(",{name}={outer}");
    }
    text
}

/// The fields that a packet of its kind has above the link layer.
fn of_network(key: &Key) -> Vec<Field> {
    let mut fields = match Kind::of(key) {
        Kind::Ipv4 => vec![Field::IpSrc, Field::IpDst],
        Kind::Ipv6 if is_discovery(key) => {
            let link = [Field::ArpSha, Field::ArpTha, Field::NdTarget];
            [&[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label][..], &link].concat()
        }
        Kind::Ipv6 => vec![Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label],
        Kind::Arp => {
            return vec![Field::IpSrc, Field::IpDst, Field::IpProto, Field::ArpSha, Field::ArpTha];
        }
        Kind::Mpls => {
            return vec![Field::MplsLabel, Field::MplsTc, Field::MplsTtl, Field::MplsBos];
        }
        Kind::Nsh => {
            let mut fields = vec![
                Field::NshFlags,
                Field::NshTtl,
                Field::NshMdtype,
                Field::NshNp,
                Field::NshSpi,
                Field::NshSi,
            ];
            if key.get_u8(slot::NSH_MDTYPE) == 1 {
                fields.extend([Field::NshC1, Field::NshC2, Field::NshC3, Field::NshC4]);
            }
            // Open vSwitch tells of IP that there is none.
            fields.extend([
                Field::IpFrag,
                Field::NwTos,
                Field::IpEcn,
                Field::NwTtl,
                Field::IpProto,
            ]);
            return fields;
        }
        Kind::Other => return Vec::new(),
    };
    fields.extend([Field::IpFrag, Field::NwTos, Field::IpEcn, Field::NwTtl, Field::IpProto]);
    let proto = key.get_u8(slot::IP_PROTO);
    if !is_later(key) && matches!(proto, 1 | 2 | 6 | 17 | 58 | 132) {
        fields.extend([Field::TcpSrc, Field::TcpDst]);
        if proto == 6 {
            fields.push(Field::TcpFlags);
        }
    }
    fields
}

/// A packet, by what has been looked at of it.
#[must_use]
pub fn megaflow(key: &Key, mask: &Key, names: Option<PortNames<'_>>) -> String {
    let key = &with_type(key);
    let mut all = Match::new();
    for field in Field::all().iter().copied().filter(|field| home(*field) == *field) {
        let Some(slot) = place(field) else { continue };
        let bits = mask.get(slot);
        // Several fields may have the place of an option.
        let is_own = !field.is_tun_metadata() || is_present(mask, field) && is_present(key, field);
        if bits != 0 && is_own && field != Field::TunOptions {
            all.set_masked(field, key.get(slot), bits);
        }
    }
    all.set_masked(Field::TunOptions, key.get(slot::TUN_PRESENT), mask.get(slot::TUN_PRESENT));
    let text = with_inner_tag(all.to_string(), key, Some(mask));
    let text = with_tunnel_flags(text, key, Some(mask));
    match names {
        Some(names) => named(&text, names),
        None => text,
    }
}

/// The same packet; what it carries is what it begins with, where that is no header of Ethernet.
fn with_type(key: &Key) -> Key {
    let (mut key, packet_type) = (*key, key.get_u32(slot::PACKET_TYPE));
    if packet_type >> 16 == 1 && key.get(slot::ETH_TYPE) == 0 {
        key.set(slot::ETH_TYPE, u128::from(packet_type & 0xFFFF));
    }
    key
}

/// Adds the tag behind the outer one, which no match of OpenFlow is about.
fn with_inner_tag(text: String, key: &Key, mask: Option<&Key>) -> String {
    // What is written where there is no tag is shown as if it were one.
    if key.get_u16(slot::VLAN_TCI) == 0 {
        return text;
    }
    let tci = key.get_u16(slot::INNER_TCI);
    let mask = mask.map_or(u16::MAX, |mask| mask.get_u16(slot::INNER_TCI));
    let inner = match (mask, tci & TAG_PRESENT != 0) {
        (0, _) => return text,
        (_, false) => "vlan_tci1=0x0000".to_owned(),
        (mask, true) => {
            let vid = (mask & 0xFFF != 0).then(|| format!("dl_vlan1={}", tci & 0xFFF));
            let pcp = (mask & 0xE000 != 0).then(|| format!("dl_vlan_pcp1={}", tci >> 13));
            [vid, pcp].into_iter().flatten().collect::<Vec<_>>().join(",")
        }
    };
    let mut parts: Vec<&str> = text.split(',').collect();
    let is_tag = |part: &&str| part.starts_with("dl_vlan") || part.starts_with("vlan_tci");
    let at = parts.iter().rposition(is_tag).map_or(parts.len(), |at| at + 1);
    parts.insert(at, &inner);
    parts.join(",")
}

/// Has the port of a match be called by its name.
pub(crate) fn named(text: &str, names: PortNames<'_>) -> String {
    let name = |part: &str| names(PortNo(part.strip_prefix("in_port=")?.parse().ok()?));
    let parts = text.split(',').map(|part| match name(part) {
        Some(name) => format!("in_port={}", quoted(&name)),
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// A port's name as it is shown: in quotes if it could be taken for a number or a keyword.
#[must_use]
pub fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
    if is_plain { name.to_owned() } else { format!("\"{name}\"") }
}
