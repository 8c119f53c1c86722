//! What is asked: which packet, where, and how it is told.

use std::sync::Arc;

use flow::{Depth, Key, extract, place, slot};
use odp::action::Onward;
use odp::{Parsed, compose, parse, parse_hex};
use openflow::field::shown;
use openflow::text::{Names, matching};
use openflow::{Field, PortNo};
use ovs::numbers::LOCAL;

use super::super::Appctl;
use super::super::dpif::{PATHS, path_of};
use super::{numbers, tunnels};

/// The most bytes behind headers.
const MAX_PAYLOAD: usize = 64_000;

/// What is asked.
#[derive(Debug)]
pub struct Asked {
    pub bridge: String,
    pub key: Key,
    /// Where it goes on, if it has come again.
    pub onward: Option<Arc<Onward>>,
    /// The packet, if there is one.
    pub frame: Option<Vec<u8>>,
    pub names: bool,
    /// What connections are taken for, one after the other.
    pub states: Vec<u32>,
}

/// How it is told, and what of the packet is said beside what it is.
#[derive(Debug, Default)]
struct Options {
    generates: bool,
    names: bool,
    payload: Option<usize>,
    states: Vec<u32>,
}

impl Asked {
    /// Reads `[dp] odp_flow [packet]`, or `bridge br_flow [packet]`, with options anywhere.
    pub fn read(
        appctl: &Appctl<'_>,
        arguments: &[String],
        is_packet_out: bool,
    ) -> Result<Self, String> {
        let (options, mut words) = options(arguments, is_packet_out)?;
        let mut packet = None;
        if !options.generates
            && let [.., last] = words.as_slice()
            && words.len() > 1
        {
            packet = parse_hex(last);
            match &packet {
                Some(bytes) if bytes.len() < 14 => {
                    return Err("Must specify at least 14 bytes of packet data".to_owned());
                }
                Some(_) => drop(words.pop()),
                // What comes third has to be one.
                None if words.len() > 2 => return Err("Trailing garbage in packet data".to_owned()),
                None => {}
            }
        }
        let (place, text) = match words.as_slice() {
            [text] => (None, *text),
            [place, text] => (Some(*place), *text),
            _ => return Err("Syntax error".to_owned()),
        };
        let Place { bridge, mut key, onward } = where_and_what(appctl, place, text)?;
        let frame = match packet {
            Some(bytes) => {
                key = key.beside();
                let vlans = appctl.vlan_limit(&bridge).tags();
                extract(&mut key, &bytes, bytes.len(), vlans, Depth::All);
                Some(bytes)
            }
            None if options.generates => {
                let length = options.payload.map(|payload| headers(&key).saturating_add(payload));
                Some(compose(&key, length))
            }
            None => None,
        };
        Ok(Self { bridge, key, onward, frame, names: options.names, states: options.states })
    }
}

/// Where a packet is, and what it is.
#[derive(Debug)]
struct Place {
    bridge: String,
    key: Key,
    /// Where it goes on, if it has come again.
    onward: Option<Arc<Onward>>,
}

impl Place {
    /// That of a packet that comes in.
    fn inlet((bridge, key): (String, Key)) -> Self {
        Self { bridge, key, onward: None }
    }
}

/// How long the headers of a frame are.
fn headers(key: &Key) -> usize {
    compose(key, Some(0)).len()
}

fn options(arguments: &[String], is_packet_out: bool) -> Result<(Options, Vec<&str>), String> {
    let mut options = Options::default();
    let mut words = Vec::new();
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        let mut value =
            || rest.next().ok_or_else(|| format!("Missing argument for option {argument}"));
        match argument {
            "-generate" | "--generate" => options.generates = true,
            "-names" | "--names" => options.names = true,
            // That actions fit together is looked at in any case.
            "-consistent" | "--consistent" if is_packet_out => {}
            "--ct-next" => options.states.push(connection(value()?)?),
            "--l7" => {
                let bytes = parse_hex(value()?);
                options.payload = Some(bytes.ok_or("Trailing garbage in packet data")?.len());
            }
            "--l7-len" => {
                let text = value()?;
                let len = text.parse().unwrap_or(0);
                if len > MAX_PAYLOAD {
                    return Err(format!("{text}: too much L7 data"));
                }
                options.payload = Some(len);
            }
            option if option.starts_with('-') => return Err(format!("{option}: unknown option")),
            _ if words.len() >= 3 => return Err("too many arguments".to_owned()),
            word => words.push(word),
        }
    }
    Ok((options, words))
}

/// What a connection is taken for, by names of `ct_state`'s bits.
fn connection(text: &str) -> Result<u32, String> {
    const TRACKED: u32 = 0x20;
    let state = |part: &str| {
        let matching = matching(&format!("ct_state={part}"), Names::NONE).ok()?;
        let (bits, _) = matching.get(Field::CtState)?;
        u32::try_from(bits).ok()
    };
    let mut parts = text.split([',', ' ']).filter(|part| !part.is_empty());
    let all = parts.try_fold(0, |all, part| match state(part) {
        Some(bits) if bits != 0 => Ok(all | bits),
        _ => Err(format!("{part}: unknown connection tracking state flag")),
    })?;
    if all != 0 && all & TRACKED == 0 {
        let shown = shown(Field::CtState, all.into());
        return Err(format!(
            "{shown}: invalid connection state: If \"trk\" is unset, no other flags are set\n"
        ));
    }
    Ok(all)
}

/// The bridge and the packet, in words of a datapath or of OpenFlow, whichever they are.
fn where_and_what(appctl: &Appctl<'_>, place: Option<&str>, text: &str) -> Result<Place, String> {
    match (parse(text), place) {
        (Ok(parsed), _) => {
            if !is_path(appctl, place) {
                return Err("Cannot find the datapath".to_owned());
            }
            of_path(appctl, &parsed)
        }
        (Err(error), None) => Err(format!("{error} (or the bridge name was omitted)")),
        (Err(_), Some(bridge)) => {
            let known = appctl.check_bridge(bridge);
            known.map_err(|_| format!("{bridge}: unknown bridge"))?;
            let key = of_bridge(appctl, bridge, text);
            let key = key.map_err(|error| format!("Bad openflow flow syntax: {text}: {error}"))?;
            // What has come again goes on in the bridge where it was.
            let onward = numbers::onward(key.get_u32(slot::RECIRC_ID));
            let onward = onward.filter(|onward| appctl.check_bridge(&onward.bridge).is_ok());
            let bridge = onward.as_ref().map_or(bridge, |onward| &onward.bridge).to_owned();
            Ok(Place { bridge, key, onward })
        }
    }
}

/// Whether there is a datapath of this name; of none, whether there is just one.
fn is_path(appctl: &Appctl<'_>, name: Option<&str>) -> bool {
    let Some(content) = appctl.agent.content() else { return false };
    let is_used = |path: &&&str| {
        content.bridges.values().any(|bridge| path_of(&bridge.datapath_type) == **path)
    };
    let mut used =
        PATHS.iter().filter(is_used).map(|path| path.split('@').next().unwrap_or_default());
    match name {
        None => used.count() == 1,
        Some(name) => {
            let kind = name.strip_prefix("ovs-").unwrap_or(name);
            used.any(|used| used == kind)
        }
    }
}

fn of_path(appctl: &Appctl<'_>, parsed: &Parsed) -> Result<Place, String> {
    let recirculated = parsed.key.get_u32(slot::RECIRC_ID);
    if recirculated != 0 {
        let unknown = || format!("no recirculation data for recirc_id {recirculated:#x}");
        let onward = numbers::onward(recirculated).ok_or_else(unknown)?;
        appctl.check_bridge(&onward.bridge).map_err(|_| unknown())?;
        let key = parsed.key.with_tags(appctl.vlan_limit(&onward.bridge));
        return Ok(Place { bridge: onward.bridge.clone(), key, onward: Some(onward) });
    }
    let asked = parsed.in_port.as_deref().unwrap_or("0");
    let unknown = || format!("no OpenFlow port for datapath port {asked}");
    if let Some(meta) = &parsed.tunnel {
        return tunnels::arrive(appctl, parsed, meta).map(Place::inlet);
    }
    let numbers = appctl.agent.path_numbers();
    let port = match asked.parse() {
        Ok(number) => numbers.name(number).ok_or_else(unknown)?,
        Err(_) if numbers.of(asked).is_some() => asked,
        Err(_) => return Err(unknown()),
    };
    let bridge = bridge_of(appctl, port).ok_or_else(unknown)?;
    let number = appctl.agent.number(&bridge, port).ok_or_else(unknown)?;
    let mut key = parsed.key.with_tags(appctl.vlan_limit(&bridge));
    key.set(slot::IN_PORT, PortNo::from_v10(number).0.into());
    Ok(Place::inlet((bridge, key)))
}

/// The bridge of a port.
pub(super) fn bridge_of(appctl: &Appctl<'_>, port: &str) -> Option<String> {
    Some(appctl.agent.content()?.interface(port)?.0.to_owned())
}

fn of_bridge(appctl: &Appctl<'_>, bridge: &str, text: &str) -> Result<Key, String> {
    let port = |name: &str| {
        let number = appctl.agent.number(bridge, name)?;
        Some(if number == LOCAL { PortNo::LOCAL } else { PortNo(number.into()) })
    };
    let asked = matching(text, Names { port: &port }).map_err(|error| {
        let error = error.to_string();
        match error.strip_prefix("unknown keyword ") {
            Some(field) => format!("unknown field {field}"),
            None => error,
        }
    })?;
    let pattern = place::pattern(&asked);
    let mut key = pattern.map_err(|field| format!("unknown field {field}"))?.to_key();
    if key.get(slot::IN_PORT) == 0 {
        key.set(slot::IN_PORT, PortNo::ANY.0.into());
    }
    if key.get_u16(slot::VLAN_TCI) & flow::TAG_PRESENT != 0 && key.get(slot::VLAN_TPID) == 0 {
        key.set(slot::VLAN_TPID, 0x8100);
    }
    Ok(key)
}
