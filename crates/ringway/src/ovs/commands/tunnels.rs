//! What tunnels go by: routes, neighbours, and the ports that they come in at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ordered::Order as _;
use ovs::device::Dummies;
use ovs::unixctl::Answer;
use packet::MacAddr;
use switch::tunnel_settings;
use switch::tunnels::{Address, Inherited, Mode, Prefix, Route, Settings, TunnelKey};

use super::Appctl;
use crate::ovs::underlay::{refresh, update};

/// The head of the table of neighbours.
const NEIGHBOURS: &str = "\
IP                                            MAC                 Bridge
==========================================================================
";

/// Shows routes.
pub fn show_routes(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    refresh(appctl);
    let mut text = "Route Table:\n".to_owned();
    for route in appctl.underlay.shown(appctl.agent).iter() {
        let Route { to, bridge, gateway, source, mark, is_added } = route;
        let origin = if *is_added { "User" } else { "Cached" };
        let marked = if *mark == 0 { String::new() } else { format!(" MARK {mark}") };
        let _ = write!(text, "{origin}: {}/{}{marked} dev {bridge}", to.address(), to.len());
        gateway.iter().for_each(|gateway| _ = write!(text, " GW {gateway}"));
        source.iter().for_each(|source| _ = write!(text, " SRC {source}"));
        let is_local = !is_added && *source == Some(to.address()) && is_whole(*to);
        text.push_str(if is_local { " local\n" } else { "\n" });
    }
    Ok(text)
}

fn is_whole(prefix: Prefix) -> bool {
    prefix.len() == if prefix.address().is_ipv4() { 32 } else { 128 }
}

/// Adds a route.
pub fn add_route(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [to, bridge, rest @ ..] = arguments else { return Ok(String::new()) };
    let to = prefix(to)?;
    let (mut gateway, mut mark): (Option<IpAddr>, u32) = (None, 0);
    for word in rest {
        match mark_of(word) {
            Some(own) => mark = own?,
            None => gateway = Some(word.parse().map_err(|_| "Invalid pkt_mark or IP gateway")?),
        }
    }
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != to.address().is_ipv4()) {
        return Err("Invalid pkt_mark or IP gateway".to_owned());
    }
    refresh(appctl);
    let (bridge, source) = (bridge.clone(), None);
    if !appctl.underlay.add(Route { to, bridge, gateway, source, mark, is_added: true }) {
        return Err("Error while inserting route.".to_owned());
    }
    update(appctl);
    Ok("OK".to_owned())
}

/// Takes a route away that was added.
pub fn remove_route(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [to, rest @ ..] = arguments else { return Ok(String::new()) };
    if !appctl.underlay.remove(prefix(to)?, only_mark(rest)?) {
        return Err("Not found".to_owned());
    }
    update(appctl);
    Ok("OK".to_owned())
}

/// Tells by which route an address is reached.
pub fn look_up_route(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [address, rest @ ..] = arguments else { return Ok(String::new()) };
    let address: IpAddr = address.parse().map_err(|_| "Invalid parameters")?;
    refresh(appctl);
    let routes = appctl.underlay.shown(appctl.agent);
    let route = routes.lookup(address, only_mark(rest)?).ok_or("Not found")?;
    let none = || IpAddr::from([0; 16]);
    let [source, gateway] = [route.source, route.gateway].map(|end| end.unwrap_or_else(none));
    Ok(format!("src {source}\ngateway {gateway}\ndev {}\n", route.bridge))
}

/// The mark that a word says, `pkt_mark=..`; `None` if it is about something else.
fn mark_of(word: &str) -> Option<Result<u32, String>> {
    let text = word.strip_prefix("pkt_mark=")?;
    let hex = text.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16));
    let mark = hex.unwrap_or_else(|| text.parse());
    Some(mark.map_err(|_| "Invalid pkt_mark".to_owned()))
}

/// The mark that is said where nothing else may be; 0 where none is.
fn only_mark(words: &[String]) -> Result<u32, String> {
    let Some(word) = words.first() else { return Ok(0) };
    mark_of(word).unwrap_or_else(|| Err("Invalid pkt_mark".to_owned()))
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let wrong = || "Invalid 'ip/plen' parameter".to_owned();
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, len.parse().map_err(|_| wrong())?),
        None => (text, if text.contains(':') { 128 } else { 32 }),
    };
    Prefix::new(address.parse().map_err(|_| wrong())?, len).ok_or_else(wrong)
}

/// Shows neighbours.
pub fn show_neighbours(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let mut text = NEIGHBOURS.to_owned();
    for own in appctl.daemon.switch().tunnel_neighbours() {
        let address = own.address.to_string();
        let _ = writeln!(text, "{address:<46}{}   {}", own.mac, own.bridge);
    }
    Ok(text)
}

/// Says where a neighbour is.
pub fn set_neighbour(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, address, mac] = arguments else { return Ok(String::new()) };
    let address: IpAddr = address.parse().map_err(|_| "bad IP address")?;
    let mac: MacAddr = mac.parse().map_err(|_| "bad MAC address")?;
    appctl.daemon.switch().set_tunnel_neighbour(bridge, address, mac);
    Ok("OK".to_owned())
}

/// Forgets all neighbours.
pub fn flush_neighbours(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    appctl.daemon.switch().flush_tunnel_neighbours(None);
    Ok("OK".to_owned())
}

/// Shows the ports of UDP that tunnels come in at, and how many tunnels there are at each.
pub fn show_ports(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let numbers = appctl.agent.path_numbers();
    let ports = appctl.daemon.state().ports.iter();
    let tunnels = ports.filter(|(_, port)| tunnel_settings(&port.device).is_some());
    let mut all: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for (port, _) in tunnels {
        let Some(number) = numbers.of(port) else { continue };
        let Some(name) = numbers.name(number) else { continue };
        let count = all.entry((name, number)).or_default();
        *count = count.saturating_add(1);
    }
    let line = |((name, number), count)| format!("{name} ({number}) ref_cnt={count}\n");
    Ok("Listening ports:\n".to_owned() + &all.into_iter().map(line).collect::<String>())
}

/// Shows tunnels, by their numbers in the datapath.
pub fn list(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let numbers = appctl.agent.path_numbers();
    let interfaces = appctl.agent.content().into_iter().flat_map(ovs::Content::interfaces);
    let tunnels = interfaces.filter_map(|(_, _, name, row)| {
        let (settings, number) = (appctl.tunnel_settings(name)?, numbers.of(name)?);
        let told = told(&settings, number);
        Some((number, format!("port {number}: {name} ({}: {told})\n", row.kind)))
    });
    let mut lines: Vec<(u32, String)> = tunnels.collect();
    lines.order();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

/// What a tunnel is set to, in Open vSwitch's words.
fn told(settings: &Settings, number: u32) -> String {
    let Settings { remote, local, in_key, out_key, tos, ttl, checksum, dont_fragment, .. } =
        *settings;
    let none = IpAddr::from([0; 16]);
    let end = |address| match address {
        Address::Is(address) => address,
        Address::Any | Address::Flow => none,
    };
    let ends = match (local, remote) {
        (Address::Flow, Address::Flow) => "flow->flow".to_owned(),
        (local, Address::Flow) => format!("{}->flow", end(local)),
        (local, remote) => format!("{}->{}", end(local), end(remote)),
    };
    let key = match in_key {
        TunnelKey::Flow => "flow".to_owned(),
        TunnelKey::None => "0".to_owned(),
        TunnelKey::Is(key) => key_of(key),
    };
    let mode = match settings.mode {
        Mode::Frames => "legacy_l2",
        Mode::Packets => "legacy_l3",
        Mode::Any => "ptap",
    };
    let mut text = format!("{ends}, key={key}, {mode}, dp port={number}");
    if out_key != in_key {
        let key = match out_key {
            TunnelKey::Flow => "flow".to_owned(),
            TunnelKey::None => "none".to_owned(),
            TunnelKey::Is(key) => key_of(key),
        };
        let _ = write!(text, ", out_key={key}");
    }
    let _ = match ttl {
        Inherited::Inner => write!(text, ", ttl=inherit"),
        Inherited::Is(ttl) => write!(text, ", ttl={ttl}"),
    };
    let _ = match tos {
        Inherited::Inner => write!(text, ", tos=inherit"),
        Inherited::Is(0) => Ok(()),
        Inherited::Is(tos) => write!(text, ", tos={tos:#x}"),
    };
    text.push_str(if dont_fragment { "" } else { ", df=false" });
    text.push_str(if checksum { ", csum=true" } else { "" });
    text
}

/// A key as C writes it.
fn key_of(key: u64) -> String {
    if key == 0 { "0".to_owned() } else { format!("{key:#x}") }
}

/// Gives a dummy port an address.
pub fn add_dummy_address(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [port, address] = arguments else { return Ok(String::new()) };
    let dummies = appctl.daemon.switch().dummies().clone();
    if appctl.agent.dummies() == Dummies::None || dummies.get(port).is_none() {
        return Err("Unknown Dummy Interface".to_owned());
    }
    let (address, len) = address.split_once('/').unwrap_or((address, ""));
    let address: IpAddr = address.parse().map_err(|_| "Invalid parameter")?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let len = if len.is_empty() { whole } else { len.parse().map_err(|_| "Invalid parameter")? };
    if len > whole {
        return Err("Invalid parameter".to_owned());
    }
    if let IpAddr::V4(address) = address {
        dummies.add_address(port, address);
    }
    appctl.underlay.add_dummy(port, (address, len));
    update(appctl);
    Ok("OK".to_owned())
}

#[cfg(test)]
mod tests {
    use switch::tunnels::Kind;

    use super::*;

    #[test]
    fn tunnels_are_told_as_open_vswitch_tells_them() {
        let end = |address: &str| Address::Is(address.parse().unwrap());
        let mut settings = Settings::new(Kind::Gre, end("1.2.3.4"));
        assert_eq!(told(&settings, 1), "::->1.2.3.4, key=0, legacy_l2, dp port=1, ttl=64");
        settings.local = end("fd00::1");
        settings.remote = Address::Flow;
        (settings.in_key, settings.out_key) = (TunnelKey::Is(0x1f), TunnelKey::Flow);
        (settings.tos, settings.ttl) = (Inherited::Is(4), Inherited::Inner);
        (settings.checksum, settings.dont_fragment) = (true, false);
        let rest = "key=0x1f, legacy_l2, dp port=7, out_key=flow, ttl=inherit, tos=0x4, df=false, csum=true";
        assert_eq!(told(&settings, 7), format!("fd00::1->flow, {rest}"));
        (settings.local, settings.out_key) = (Address::Flow, TunnelKey::None);
        assert!(told(&settings, 7).starts_with("flow->flow, key=0x1f, "));
        assert!(told(&settings, 7).contains(", out_key=none, "));
    }

    #[test]
    fn prefixes_are_read() {
        assert_eq!(prefix("10.1.2.3/8").unwrap().address(), IpAddr::from([10, 0, 0, 0]));
        assert_eq!(
            (prefix("10.1.2.3").unwrap().len(), prefix("fd00::1").unwrap().len()),
            (32, 128)
        );
        for wrong in ["10.1.2.3/33", "10.1.2/8", "x", "fd00::/x", "fd00::/129"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
        assert_eq!(mark_of("pkt_mark=0x10"), Some(Ok(16)));
        assert_eq!((mark_of("10.0.0.1"), only_mark(&[])), (None, Ok(0)));
        assert!(only_mark(&["pkt_mark=x".to_owned()]).is_err());
        assert!(only_mark(&["10.0.0.1".to_owned()]).is_err());
        assert!(is_whole(prefix("fd00::1").unwrap()) && !is_whole(prefix("10.0.0.0/8").unwrap()));
    }
}
