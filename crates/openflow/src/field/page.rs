//! The page of the guide that lists fields, which must be true.

use super::*;

const PAGE: &str = include_str!("../../../../docs/openflow-fields.md");

/// What must be matched on before a field, in words.
fn needs(field: Field) -> &'static str {
    match field.prerequisite() {
        Prerequisite::Nothing => "",
        Prerequisite::Ethernet => "Ethernet",
        Prerequisite::Arp => "ARP or RARP",
        Prerequisite::Vlan => "a VLAN tag",
        Prerequisite::Ipv4 => "IPv4",
        Prerequisite::Ipv6 => "IPv6",
        Prerequisite::Ip => "IPv4 or IPv6",
        Prerequisite::Mpls => "MPLS",
        Prerequisite::Tracked => "a tracked connection",
        Prerequisite::Nsh => "NSH",
        Prerequisite::Tcp => "TCP",
        Prerequisite::Udp => "UDP",
        Prerequisite::Sctp => "SCTP",
        Prerequisite::Icmpv4 => "ICMP",
        Prerequisite::Icmpv6 => "ICMPv6",
        Prerequisite::Nd => "neighbour discovery",
        Prerequisite::NdSolicit => "a neighbour solicitation",
        Prerequisite::NdAdvert => "a neighbour advertisement",
    }
}

/// A field's line.
fn line(field: Field) -> String {
    let names: Vec<String> = field.names().iter().map(|name| format!("`{name}`")).collect();
    let header = |header: &Header| match header.since {
        Version::V10 => header.name.to_owned(),
        since => format!("{} ({})", header.name, since.short()),
    };
    let headers: Vec<String> = field.headers().iter().map(header).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        names.join(", "),
        field.bits(),
        if field.is_maskable() { "yes" } else { "" },
        if field.is_writable() { "yes" } else { "" },
        needs(field),
        headers.join(", "),
    )
}

#[test]
fn the_page_lists_all_fields() {
    // Of families the first stands for all.
    let families =
        [(Field::TunMetadata0, 64), (Field::Reg0, 16), (Field::Xreg0, 8), (Field::Xxreg0, 4)];
    let is_other = |field: Field| {
        families.iter().any(|(first, count)| field.number_in(*first, *count).is_some_and(|n| n > 0))
    };
    let lines: Vec<String> =
        Field::all().iter().filter(|field| !is_other(**field)).map(|field| line(*field)).collect();
    let missing: Vec<&String> =
        lines.iter().filter(|line| !PAGE.lines().any(|known| known == *line)).collect();
    assert!(missing.is_empty(), "docs/openflow-fields.md lacks:\n{missing:#?}");
    let listed = PAGE.lines().filter(|known| known.matches('|').count() == 7).count();
    // A head and a rule besides.
    assert_eq!(listed, lines.len() + 2);
}
