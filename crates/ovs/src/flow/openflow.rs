//! The words of OpenFlow, as far as they are about what a bridge looks at.

use super::{Arguments, Body, Flow, number};

/// Words that stand for a type of frame, and the protocol in it.
const SHORT: [(&str, u16, u8); 9] = [
    ("ip", 0x0800, 0),
    ("icmp", 0x0800, 1),
    ("tcp", 0x0800, 6),
    ("udp", 0x0800, 17),
    ("sctp", 0x0800, 132),
    ("ipv6", 0x86dd, 0),
    ("tcp6", 0x86dd, 6),
    ("udp6", 0x86dd, 17),
    ("arp", 0x0806, 0),
];

/// Reads them.
///
/// # Errors
/// Names the word that is not understood.
pub fn parse(text: &str) -> Result<Flow, String> {
    let mut flow = Flow::default();
    let args = Arguments(text);
    let mut proto = 0;
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let short = SHORT.iter().find(|(name, ..)| *name == word);
        if let Some((_, kind, of_kind)) = short {
            (flow.ethertype, proto) = (Some(*kind), *of_kind);
            continue;
        }
        let wrong = |()| format!("{key}: invalid value {value}");
        match key {
            "in_port" => flow.in_port = Some(value.trim_matches('"').to_owned()),
            "dl_src" | "eth_src" => flow.src = args.or_default(key).map_err(wrong)?,
            "dl_dst" | "eth_dst" => flow.dst = args.or_default(key).map_err(wrong)?,
            "dl_type" | "eth_type" => flow.ethertype = Some(number(value).map_err(wrong)?),
            "dl_vlan" => tag(&mut flow, 0x0fff, number(value).map_err(wrong)?),
            "dl_vlan_pcp" => {
                let pcp: u16 = number(value).map_err(wrong)?;
                tag(&mut flow, 0xe000, pcp.checked_mul(1 << 13).ok_or_else(|| wrong(()))?);
            }
            "vlan_tci" => match number(value).map_err(wrong)? {
                0 => {}
                tci => tag(&mut flow, 0xefff, tci),
            },
            "nw_proto" => proto = number(value).map_err(wrong)?,
            "tp_src" | "icmp_type" => flow.upper.src = number(value).map_err(wrong)?,
            "tp_dst" | "icmp_code" => flow.upper.dst = number(value).map_err(wrong)?,
            "nw_src" | "nw_dst" | "nw_tos" | "nw_ttl" | "arp_op" | "arp_spa" | "arp_tpa"
            | "arp_sha" | "arp_tha" | "ipv6_src" | "ipv6_dst" => {}
            other => return Err(format!("unknown field {other}")),
        }
    }
    flow.body = body(&flow, args, proto).map_err(|()| format!("syntax error in {text}"))?;
    Ok(flow)
}

/// Sets some bits of the only tag.
fn tag(flow: &mut Flow, mask: u16, bits: u16) {
    if flow.tags.is_empty() {
        flow.tags.push((0x8100, 0));
    }
    if let Some((_, content)) = flow.tags.first_mut() {
        *content = *content & !mask | bits & mask;
    }
}

fn body(flow: &Flow, args: Arguments<'_>, proto: u8) -> Result<Body, ()> {
    let (tos, ttl) = (args.number("nw_tos")?, args.number("nw_ttl")?);
    Ok(match flow.ethertype {
        Some(0x0800) => Body::V4 {
            src: args.v4("nw_src")?,
            dst: args.v4("nw_dst")?,
            proto,
            tos,
            ttl,
            frag: Default::default(),
        },
        Some(0x86dd) => {
            let (src, dst) = (args.v6("ipv6_src")?, args.v6("ipv6_dst")?);
            Body::V6 { src, dst, proto, tos, ttl, label: 0 }
        }
        Some(0x0806) => Body::Arp {
            op: args.number("arp_op")?,
            from: (args.or_default("arp_sha")?, args.v4("arp_spa")?),
            to: (args.or_default("arp_tha")?, args.v4("arp_tpa")?),
        },
        _ => Body::None,
    })
}
