//! Tunnels in the words of a datapath: what a packet has come with, what it is sent with, and the header that is
//! put in front of it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use flow::{Key, OptionField, Slot, slot};
use openflow::PortNo;
use tunnel::{Erspan, Gtpu, Kind, Meta, Options, Outer, Policy, Settings, TunnelKey, TunnelOption};

use crate::masked::signed;
use crate::value::{Fields, Style, hex, mac};

/// Flags of a tunnel's header, the lowest bit of their word first.
pub(crate) const FLAGS: [&str; 4] = ["oam", "df", "csum", "key"];

/// The last of them.
const HAS_KEY: u128 = 1 << (FLAGS.len() - 1);

/// A packet that goes into a tunnel.
#[derive(Clone, Debug)]
pub struct IntoTunnel {
    /// The port of the datapath.
    pub number: u32,
    /// What the tunnel's port is set to.
    pub settings: Arc<Settings>,
    /// What goes around the packet.
    pub meta: Meta,
    /// Where that goes; `None` if the datapath knows that, and not we.
    pub way: Option<Result<TunnelWay, String>>,
}

/// Where an outer packet goes.
#[derive(Clone, Debug)]
pub struct TunnelWay {
    /// The port by which it goes, as if that had sent it.
    pub port: String,
    /// The number of that in the datapath.
    pub number: u32,
    /// Its bridge, and its number there.
    pub inlet: (String, PortNo),
    /// The next hop.
    pub next: IpAddr,
    /// All that is in front of the packet.
    pub outer: Outer,
}

/// A header that is put in front of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The tunnel.
    pub interface: String,
    /// The port of the tunnel, and that by which the outer packet goes.
    pub ports: [u32; 2],
    /// The header, told.
    pub header: String,
}

/// Whether a packet has come by a tunnel.
pub(crate) fn is_tunnelled(key: &Key) -> bool {
    key.get(slot::TUN_DST) != 0 || key.get(slot::TUN_IPV6_DST) != 0
}

/// All flags of the tunnel that a packet has come by.
pub(crate) fn flags_of(key: &Key) -> u128 {
    key.get(slot::TUN_FLAGS) | key.get(slot::TUN_HEADER) << 1
}

/// Names of flags, with lines between them.
pub(crate) fn named_flags(flags: u128) -> String {
    let set = FLAGS.iter().enumerate().filter(|(at, _)| flags >> at & 1 != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join("|")
}

/// What a datapath sets so that a port of tunnels knows what goes around a packet.
pub(crate) fn set(settings: &Settings, meta: &Meta) -> String {
    let mut fields = Fields::default();
    let has_key = settings.out_key != TunnelKey::None;
    if has_key {
        fields.add("tun_id", format!("{:#x}", meta.key.unwrap_or(0)));
    }
    ends(meta, &mut fields);
    if meta.tos != 0 {
        fields.add("tos", hex(meta.tos.into()));
    }
    fields.add("ttl", meta.ttl);
    if settings.port != 0 {
        fields.add("tp_dst", settings.port);
    }
    let mut text = fields.0;
    if let Some(Policy { group, flags }) = meta.policy.filter(|policy| *policy != Policy::default())
    {
        let _ = write!(text, ",vxlan(gbp(id={group},flags={:#x}))", flags);
    }
    if settings.kind == Kind::Geneve && !meta.options.is_empty() {
        let _ = write!(text, ",geneve({})", options(&meta.options));
    }
    if let Some(erspan) = meta.erspan {
        let _ = write!(text, ",erspan({})", marks(erspan));
    }
    let flags = [meta.oam, meta.dont_fragment, meta.checksum, has_key];
    let bits = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u128::from(*flag));
    let _ = write!(text, ",flags({})", named_flags(bits));
    format!("set(tunnel({text}))")
}

/// What ERSPAN says of a frame.
fn marks(erspan: Erspan) -> String {
    let Erspan { version, index, direction, hardware } = erspan;
    match version {
        2 => format!("ver=2,dir={direction},hwid={}", hex(hardware.into())),
        _ => format!("ver={version},idx={index:#x}"),
    }
}

fn ends(meta: &Meta, fields: &mut Fields) {
    let ends = [("src", "ipv6_src", meta.source), ("dst", "ipv6_dst", meta.destination)];
    for (v4, v6, address) in ends.into_iter().filter(|(.., address)| !address.is_unspecified()) {
        fields.add(if address.is_ipv4() { v4 } else { v6 }, address);
    }
}

/// Options of Geneve.
fn options(all: &Options) -> String {
    let one = |option: TunnelOption<'_>| {
        let TunnelOption { class, kind, value } = option;
        let value = value.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let digits = value.trim_start_matches('0');
        let value = match (value.is_empty(), digits.is_empty()) {
            (true, _) => String::new(),
            (false, true) => ",0x0".to_owned(),
            (false, false) => format!(",0x{digits}"),
        };
        let len = option.value.len();
        format!("{{class={},type={},len={len}{value}}}", hex(class.into()), hex(kind.into()))
    };
    all.iter().map(one).collect()
}

/// The fields of a tunnel that a flow's packets have come by, of which those bits are told that count.
pub(crate) fn masked(
    key: &Key,
    mask: Option<&Key>,
    fields: &[OptionField],
    is_full: bool,
) -> String {
    const LINES: [(&str, Slot, Style); 7] = [
        ("tun_id", slot::TUN_ID, Style::Hex),
        ("src", slot::TUN_SRC, Style::Ipv4),
        ("dst", slot::TUN_DST, Style::Ipv4),
        ("ipv6_src", slot::TUN_IPV6_SRC, Style::Ipv6),
        ("ipv6_dst", slot::TUN_IPV6_DST, Style::Ipv6),
        ("tos", slot::TUN_TOS, Style::Hex),
        ("ttl", slot::TUN_TTL, Style::Decimal),
    ];
    let bits = |slot: Slot| mask.map_or_else(|| slot.ones(), |mask| mask.get(slot));
    let mut told = Fields::default();
    for (name, slot, style) in LINES {
        let is_there = key.get(slot) != 0
            || slot == slot::TUN_ID && key.get(slot::TUN_HAS_KEY) != 0
            || slot == slot::TUN_TTL;
        if is_there && (bits(slot) != 0 || is_full) {
            told.add(name, style.show(key.get(slot), bits(slot), slot.width()));
        }
    }
    let mut parts = vec![told.0];
    parts.extend(masked_policy(key, bits));
    parts.extend(masked_options(key, bits, fields));
    parts.extend(masked_erspan(key, mask));
    parts.extend(masked_gtpu(key, bits));
    let flags = flags_of(key);
    let counted = bits(slot::TUN_FLAGS) | bits(slot::TUN_HEADER) << 1;
    // Whether there is a key is told by the key itself, which is there even where it is 0.
    let counted = if key.get(slot::TUN_HAS_KEY) == 0 { counted & !HAS_KEY } else { counted };
    parts.push(match mask {
        Some(_) => format!("flags({})", signed(flags, counted, &FLAGS)),
        None => format!("flags({})", named_flags(flags)),
    });
    format!("tunnel({})", parts.join(","))
}

/// The group whose policy packets are under, where that counts.
fn masked_policy(key: &Key, bits: impl Fn(Slot) -> u128) -> Option<String> {
    let both = [(slot::TUN_GBP_ID, Style::Decimal), (slot::TUN_GBP_FLAGS, Style::Hex)];
    let is_there = both.iter().any(|(slot, _)| key.get(*slot) != 0 && bits(*slot) != 0);
    let [group, flags] =
        both.map(|(slot, style)| style.show(key.get(slot), bits(slot), slot.width()));
    is_there.then(|| format!("vxlan(gbp(id={group},flags={flags}))"))
}

/// What ERSPAN says of packets, where that counts.
fn masked_erspan(key: &Key, mask: Option<&Key>) -> Option<String> {
    let version = key.get(slot::TUN_ERSPAN_VER);
    let bits = |slot: Slot| mask.map_or_else(|| slot.ones(), |mask| mask.get(slot));
    let lines: &[(&str, Slot, Style)] = match version {
        1 => &[("ver", slot::TUN_ERSPAN_VER, Style::Decimal)],
        2 => &[
            ("ver", slot::TUN_ERSPAN_VER, Style::Decimal),
            ("dir", slot::TUN_ERSPAN_DIR, Style::Decimal),
            ("hwid", slot::TUN_ERSPAN_HWID, Style::Hex),
        ],
        _ => return None,
    };
    let counted = lines.iter().filter(|(_, slot, _)| bits(*slot) != 0);
    let show = |(name, slot, style): &(&str, Slot, Style)| {
        format!("{name}={}", style.show(key.get(*slot), bits(*slot), slot.width()))
    };
    let mut parts: Vec<String> = counted.map(show).collect();
    if version == 1 {
        let (index, own) = (key.get(slot::TUN_ERSPAN_IDX), bits(slot::TUN_ERSPAN_IDX));
        parts.push(match mask {
            Some(_) => format!("idx={index:#x}/{own:#x}"),
            None => format!("idx={index:#x}"),
        });
    }
    let all =
        [slot::TUN_ERSPAN_VER, slot::TUN_ERSPAN_IDX, slot::TUN_ERSPAN_DIR, slot::TUN_ERSPAN_HWID];
    all.iter().any(|slot| bits(*slot) != 0).then(|| format!("erspan({})", parts.join(",")))
}

/// What GTP-U has beside its key, where that counts.
fn masked_gtpu(key: &Key, bits: impl Fn(Slot) -> u128) -> Option<String> {
    let both = [(slot::TUN_GTPU_FLAGS, Style::Hex), (slot::TUN_GTPU_MSGTYPE, Style::Decimal)];
    let is_there = both.iter().any(|(slot, _)| key.get(*slot) != 0 && bits(*slot) != 0);
    let [flags, message] =
        both.map(|(slot, style)| style.show(key.get(slot), bits(slot), slot.width()));
    is_there.then(|| format!("gtpu(flags={flags},msgtype={message})"))
}

/// Options that packets of a flow have come with, or that it counts that they have not.
fn masked_options(
    key: &Key,
    bits: impl Fn(Slot) -> u128,
    fields: &[OptionField],
) -> Option<String> {
    let present = (key.get_u64(slot::TUN_PRESENT), bits(slot::TUN_PRESENT));
    let one = |field: &OptionField| {
        let is_there = present.0 & field.bit() != 0;
        let counts = present.1 & u128::from(field.bit()) != 0;
        if !is_there && !counts {
            return None;
        }
        let has_place = field.has_place();
        let OptionField { field, class, kind, len } = *field;
        let slot = slot::tun_metadata(field);
        let (value, bits) = match is_there && has_place {
            true => (key.get(slot), bits(slot)),
            false => (0, 0),
        };
        let whole = openflow::field::ones(u16::from(len).saturating_mul(8));
        let value = match bits & whole {
            0 => String::new(),
            bits if bits == whole => format!(",{value:#x}"),
            bits => format!(",{value:#x}/{bits:#x}"),
        };
        let (class, kind) = (hex(class.into()), hex(kind.into()));
        Some(format!("{{class={class},type={kind},len={len}{value}}}"))
    };
    let all: String = fields.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| format!("geneve({all})"))
}

/// An outer header, as it is put in front of packets.
pub(crate) fn header(kind: Kind, meta: &Meta, outer: &Outer) -> Option<String> {
    let bytes = outer.as_bytes();
    let (link, packet) = bytes.split_at_checked(14)?;
    let [a, b, c, d, e, f, rest @ ..] = link else { return None };
    let address =
        |bytes: &[u8]| mac(bytes.iter().take(6).fold(0, |all, byte| all << 8 | u128::from(*byte)));
    let ether_type = u16::from_be_bytes(*rest.get(6..)?.first_chunk()?);
    let number = match (kind, ether_type) {
        (Kind::Gre, 0x0800) => 3,
        (Kind::Gre, _) => 109,
        (Kind::Vxlan, _) => 4,
        (Kind::Geneve, _) => 5,
        (Kind::Erspan, 0x0800) => 107,
        (Kind::Erspan, _) => 108,
        (Kind::Gtpu, _) => 110,
    };
    let (network, inner) = network(ether_type, packet)?;
    let size = bytes.len();
    let (to, from) = (address(&[*a, *b, *c, *d, *e, *f]), address(rest));
    let own = match kind {
        Kind::Gre => gre(inner)?,
        Kind::Erspan => mirrored(meta)?,
        Kind::Vxlan | Kind::Geneve | Kind::Gtpu => {
            over_udp(kind, meta, outer.has_checksum(), inner)?
        }
    };
    Some(format!(
        "header(size={size},type={number},eth(dst={to},src={from},dl_type={ether_type:#06x}),{network},{own})"
    ))
}

/// The header of IP, and what follows it.
fn network(ether_type: u16, packet: &[u8]) -> Option<(String, &[u8])> {
    if ether_type == 0x0800 {
        let (header, inner) = packet.split_first_chunk::<20>()?;
        let [_, tos, _, _, _, _, high, low, ttl, proto, _, _, ends @ ..] = header;
        let [a, b, c, d, e, f, g, h] = *ends;
        let (from, to) = (Ipv4Addr::from([a, b, c, d]), Ipv4Addr::from([e, f, g, h]));
        let fragment = u16::from_be_bytes([*high, *low]);
        let tos = hex((*tos).into());
        let text = format!(
            "ipv4(src={from},dst={to},proto={proto},tos={tos},ttl={ttl},frag={fragment:#x})"
        );
        return Some((text, inner));
    }
    let (header, inner) = packet.split_first_chunk::<40>()?;
    let [a, b, c, d, _, _, proto, ttl, ends @ ..] = header;
    let first = u32::from_be_bytes([*a, *b, *c, *d]);
    let (from, to): (&[u8; 16], &[u8; 16]) = (ends.first_chunk()?, ends.last_chunk()?);
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to));
    let (label, class) = (first & 0xF_FFFF, first >> 20 & 0xFF);
    let text = format!(
        "ipv6(src={from},dst={to},label={label},proto={proto},tclass={class:#x},hlimit={ttl})"
    );
    Some((text, inner))
}

fn over_udp(kind: Kind, meta: &Meta, has_checksum: bool, bytes: &[u8]) -> Option<String> {
    let ([_, _, high, low, ..], own) = bytes.split_first_chunk::<8>()?;
    let port = u16::from_be_bytes([*high, *low]);
    // Whoever puts it in front of a packet completes it.
    let sum = if has_checksum { "0xffff" } else { "0x0" };
    let udp = format!("udp(src=0,dst={port},csum={sum})");
    let [a, b, c, d, key @ ..] = *own.first_chunk::<8>()?;
    if kind == Kind::Gtpu {
        let key = u32::from_be_bytes(key);
        return Some(format!("{udp},gtpu(flags={a:#x},msgtype={b},teid={key:#x})"));
    }
    let [e, f, g, _] = key;
    let key = u32::from_be_bytes([0, e, f, g]);
    if kind == Kind::Vxlan {
        let flags = u32::from_be_bytes([a, b, c, d]);
        return Some(format!("{udp},vxlan(flags={flags:#x},vni={key:#x})"));
    }
    let (oam, critical) = (b & 0x80 != 0, b & 0x40 != 0);
    let mut text = format!("{udp},geneve(");
    text += if oam { "oam," } else { "" };
    text += if critical { "crit," } else { "" };
    let _ = write!(text, "vni={key:#x}");
    if !meta.options.is_empty() {
        let _ = write!(text, ",options({})", options(&meta.options));
    }
    Some(text + ")")
}

fn mirrored(meta: &Meta) -> Option<String> {
    let Erspan { version, index, direction, hardware } = meta.erspan?;
    let session = meta.key.unwrap_or(0);
    Some(match version {
        2 => format!("erspan(ver=2,sid={session:#x},dir={direction},hwid={hardware:#x})"),
        _ => format!("erspan(ver={version},sid={session:#x},idx={index:#x})"),
    })
}

fn gre(bytes: &[u8]) -> Option<String> {
    let ([a, b, c, d], rest) = bytes.split_first_chunk()?;
    let (flags, protocol) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
    let mut text = format!("gre((flags={flags:#x},proto={protocol:#x})");
    let (words, _) = rest.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
    for (bit, name) in [(0x8000, "csum"), (0x2000, "key"), (0x1000, "seq")] {
        if flags & bit != 0 {
            let word = words.next()?;
            let value = if bit == 0x8000 { word >> 16 } else { word };
            let _ = write!(text, ",{name}={value:#x}");
        }
    }
    Some(text + ")")
}

/// Reads what is written of the tunnel that a packet has come by.
pub(crate) fn parse(text: &str) -> Option<Meta> {
    let [mut from, mut to] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); 2];
    let mut meta = Meta { ttl: 0, dont_fragment: false, ..Meta::new(from, to) };
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at_checked(end)?;
        if let Some(inside) = behind.strip_prefix('(') {
            let close = inside.find(')')?;
            let (inside, after) = inside.split_at_checked(close)?;
            match word.trim() {
                "flags" => flags(inside, &mut meta)?,
                "geneve" => parse_options(inside, &mut meta.options)?,
                "erspan" => meta.erspan = Some(parse_erspan(inside)?),
                "gtpu" => meta.gtpu = Some(parse_gtpu(inside)?),
                _ => return None,
            }
            rest = after.trim_start_matches([')', ',', ' ']);
            continue;
        }
        let (name, value) = word.split_once('=')?;
        let value = value.split('/').next()?.trim();
        match name.trim() {
            "tun_id" => meta.key = Some(number(value)?),
            "src" | "ipv6_src" => from = value.parse().ok()?,
            "dst" | "ipv6_dst" => to = value.parse().ok()?,
            "tos" => meta.tos = number(value)?.try_into().ok()?,
            "ttl" => meta.ttl = number(value)?.try_into().ok()?,
            // Ports of the header are not looked at.
            "tp_src" | "tp_dst" => {}
            _ => return None,
        }
        rest = behind.trim_start_matches([',', ' ']);
    }
    (meta.source, meta.destination) = (from, to);
    Some(meta)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Flags, which may have signs before them. Whether there is a key is said by that.
fn flags(text: &str, meta: &mut Meta) -> Option<()> {
    let text = text.replace('+', "|").replace('-', "|-");
    let words = text.split(['|', ',']).map(str::trim).filter(|word| !word.is_empty());
    for word in words.filter(|word| !word.starts_with('-')) {
        match word {
            "df" => meta.dont_fragment = true,
            "csum" => meta.checksum = true,
            "oam" => meta.oam = true,
            "key" | "0" => {}
            _ => return None,
        }
    }
    Some(())
}

/// Numbers by names, what they are not masked.
fn numbers(text: &str) -> impl Iterator<Item = Option<(&str, u64)>> {
    text.split(',').map(|part| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim(), number(value.split('/').next()?.trim())?))
    })
}

fn parse_erspan(text: &str) -> Option<Erspan> {
    let mut erspan = Erspan::default();
    for part in numbers(text) {
        match part? {
            ("ver", own) => erspan.version = own.try_into().ok()?,
            ("idx", own) => erspan.index = own.try_into().ok()?,
            ("dir", own) => erspan.direction = own.try_into().ok()?,
            ("hwid", own) => erspan.hardware = own.try_into().ok()?,
            _ => return None,
        }
    }
    Some(erspan)
}

fn parse_gtpu(text: &str) -> Option<Gtpu> {
    let mut gtpu = Gtpu { flags: 0, message: 0 };
    for part in numbers(text) {
        match part? {
            ("flags", own) => gtpu.flags = own.try_into().ok()?,
            ("msgtype", own) => gtpu.message = own.try_into().ok()?,
            _ => return None,
        }
    }
    Some(gtpu)
}

/// `{class=..,type=..,len=..,0x..}` as often as there are options.
fn parse_options(text: &str, options: &mut Options) -> Option<()> {
    for option in text.split('}').map(str::trim).filter(|option| !option.is_empty()) {
        let (mut class, mut kind, mut len, mut digits) = (0_u16, 0_u8, 0_usize, "");
        for part in option.trim_start_matches(['{', ',', ' ']).split(',').map(str::trim) {
            let unmasked = part.split('/').next()?;
            match unmasked.split_once('=') {
                Some(("class", value)) => class = number(value)?.try_into().ok()?,
                Some(("type", value)) => kind = number(value)?.try_into().ok()?,
                Some(("len", value)) => len = number(value)?.try_into().ok()?,
                Some(_) => return None,
                None => digits = unmasked.strip_prefix("0x")?,
            }
        }
        if len > tunnel::MAX_OPTIONS || digits.len() > len.saturating_mul(2) {
            return None;
        }
        let padded = format!("{digits:0>width$}", width = len.saturating_mul(2));
        let value = if len == 0 { Vec::new() } else { crate::parse_hex(&padded)? };
        options.push(class, kind, &value).then_some(())?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;
    use tunnel::{Address, Link};

    use super::*;

    fn meta() -> Meta {
        let mut meta = Meta::new([2, 2, 2, 2].into(), [1, 1, 1, 1].into()).with_key(5);
        assert!(meta.options.push(0xFFFF, 0, &[0, 0, 0, 10]));
        assert!(meta.options.push(0xFFFF, 0x80, &[0, 0x12, 0x34, 0x56]));
        meta
    }

    #[test]
    fn what_is_set_is_told_as_open_vswitch_tells_it() {
        let remote = Address::Is([1, 1, 1, 1].into());
        let mut gre = Settings::new(Kind::Gre, remote);
        let plain = Meta { key: None, ..Meta::new([0; 4].into(), [1, 1, 1, 1].into()) };
        assert_eq!(set(&gre, &plain), "set(tunnel(dst=1.1.1.1,ttl=64,flags(df)))");
        gre.out_key = TunnelKey::Is(5);
        assert_eq!(
            set(&gre, &Meta { tos: 1, ..meta() }),
            "set(tunnel(tun_id=0x5,src=2.2.2.2,dst=1.1.1.1,tos=0x1,ttl=64,flags(df|key)))"
        );
        let geneve = Settings::new(Kind::Geneve, remote);
        let open = Meta { dont_fragment: false, checksum: true, ..meta() };
        assert_eq!(
            set(&geneve, &open),
            "set(tunnel(src=2.2.2.2,dst=1.1.1.1,ttl=64,tp_dst=6081,geneve({class=0xffff,type=0,len=4,0xa}\
             {class=0xffff,type=0x80,len=4,0x123456}),flags(csum)))"
        );
    }

    #[test]
    fn headers_are_told_as_open_vswitch_tells_them() {
        let link = Link {
            source: MacAddr([0xAA, 0x55, 0xAA, 0x55, 0, 0]),
            destination: MacAddr([2, 0, 0, 0, 0, 2]),
        };
        let told = |kind: Kind, meta: &Meta| {
            header(kind, meta, &Outer::new(kind, meta, link, kind.port()).unwrap()).unwrap()
        };
        let (eth, ip) =
            ("eth(dst=02:00:00:00:00:02,src=aa:55:aa:55:00:00,dl_type=0x0800)", |proto: u8| {
                format!("ipv4(src=2.2.2.2,dst=1.1.1.1,proto={proto},tos=0,ttl=64,frag=0x4000)")
            });
        let plain = Meta { options: Options::NONE, ..meta() };
        assert_eq!(
            told(Kind::Vxlan, &plain),
            format!(
                "header(size=50,type=4,{eth},{},udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x5))",
                ip(17)
            )
        );
        assert_eq!(
            told(Kind::Gre, &plain),
            format!(
                "header(size=42,type=3,{eth},{},gre((flags=0x2000,proto=0x6558),key=0x5))",
                ip(47)
            )
        );
        let geneve = told(Kind::Geneve, &meta());
        assert!(geneve.starts_with("header(size=66,type=5,"), "{geneve}");
        assert!(geneve.contains("geneve(crit,vni=0x5,options({class=0xffff,type=0,len=4,0xa}"));
        let ends: [IpAddr; 2] = ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()];
        let six = told(Kind::Vxlan, &Meta::new(ends[0], ends[1]).with_key(5));
        let ip = "ipv6(src=fd00::1,dst=fd00::2,label=0,proto=17,tclass=0x0,hlimit=64)";
        assert!(six.contains(&format!("{ip},udp(src=0,dst=4789,csum=0xffff)")), "{six}");
    }

    /// As Open vSwitch tells it: a key that is not there counts for no flag.
    #[test]
    fn whether_there_is_a_key_is_told_by_the_key_itself() {
        let (mut key, mut mask) = (Key::default(), Key::default());
        key.set(slot::TUN_DST, 0x0A00_0001);
        [slot::TUN_DST, slot::TUN_HEADER].into_iter().for_each(|slot| mask.set(slot, slot.ones()));
        let told = |key: &Key| masked(key, Some(&mask), &[], false);
        assert_eq!(told(&key), "tunnel(dst=10.0.0.1,flags(-df-csum))");
        key.set(slot::TUN_HAS_KEY, 1);
        assert_eq!(told(&key), "tunnel(dst=10.0.0.1,flags(-df-csum+key))");
    }

    #[test]
    fn what_is_written_of_tunnels_is_read() {
        let text = "tun_id=0x5,src=2.2.2.2,dst=1.1.1.1,ttl=64,geneve({class=0xffff,type=0,len=4,0xa}\
                    {class=0xffff,type=0x80,len=4,0x123456}),flags(df|key)";
        assert_eq!(parse(text), Some(meta()));
        let six = parse("ipv6_src=fd00::1,ipv6_dst=fd00::2/ff::,tos=0x3,tp_dst=7,flags(-df+csum)")
            .unwrap();
        assert_eq!((six.key, six.tos, six.checksum, six.dont_fragment), (None, 3, true, false));
        assert_eq!(six.destination, "fd00::2".parse::<IpAddr>().unwrap());
        for wrong in
            ["x", "src=1.1.1", "flags(x)", "geneve({class=1,type=1,len=4", "tun_id=x", "x(1)"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
