//! Into tunnels, and out of them: where packets go is asked of the switch, whose workers go by the same.

use flow::{Key, OptionField, slot};
use odp::{IntoTunnel, Parsed, TunnelWay, compose};
use openflow::PortNo;
use switch::tunnels::{Kind, Meta, Mode};
use switch::{NoTunnelWay, tunnel_inner, tunnel_meta, tunnel_words};

use super::super::Appctl;
use super::question::bridge_of;

/// The fields of a bridge for options of tunnels.
pub fn options(appctl: &Appctl<'_>, bridge: &str) -> Vec<OptionField> {
    let flows = appctl.daemon.switch().flows(bridge).ok().flatten();
    flows.map(|flows| flows.pipeline.tunnels.options.clone()).unwrap_or_default()
}

/// What becomes of a packet that goes to a port of a tunnel.
pub fn into(appctl: &Appctl<'_>, bridge: &str, port: &str, key: &Key) -> Option<IntoTunnel> {
    let fields = options(appctl, bridge);
    let into = appctl.daemon.switch().enter_tunnel(port, key, &fields)?;
    let numbers = appctl.agent.path_numbers();
    let way = into.way.map_err(reason).and_then(|way| {
        let none = || reason(NoTunnelWay::Route);
        let number = numbers.of(&way.port).ok_or_else(none)?;
        let inlet = inlet(appctl, &way.port).ok_or_else(none)?;
        Ok(TunnelWay { port: way.port, number, inlet, next: way.next, outer: way.outer })
    });
    let way = appctl.underlay.pushes().then_some(way);
    let number = numbers.of(port)?;
    Some(IntoTunnel { number, settings: into.settings, meta: into.meta, way })
}

/// The bridge of a port, and its number there.
fn inlet(appctl: &Appctl<'_>, port: &str) -> Option<(String, PortNo)> {
    let bridge = bridge_of(appctl, port)?;
    let number = appctl.agent.number(&bridge, port)?;
    Some((bridge, PortNo::from_v10(number)))
}

fn reason(none: NoTunnelWay) -> String {
    match none {
        NoTunnelWay::Route => "native tunnel routing failed".to_owned(),
        NoTunnelWay::Neighbour(next) => {
            let asks = if next.is_ipv4() { "ARP" } else { "ND" };
            format!("neighbor cache miss for {next}, sending {asks} request")
        }
    }
}

/// The port of tunnels where a packet comes out that is sent to this port of the datapath.
pub fn out_of(appctl: &Appctl<'_>, port: u32, key: &Key) -> Option<u32> {
    let numbers = appctl.agent.path_numbers();
    let name = numbers.name(port).filter(|_| appctl.underlay.pushes())?;
    let (kind, own) = appctl.daemon.switch().ended_tunnel(name, &compose(key, None))?;
    let interfaces = appctl.agent.content()?.interfaces();
    let mut all = interfaces.map(|(_, _, name, _)| name);
    let is_it = |name: &&str| is_of(appctl, name, (kind, own));
    numbers.of(all.find(is_it)?)
}

/// Whether an interface is a tunnel of this kind, over this port of UDP.
fn is_of(appctl: &Appctl<'_>, interface: &str, found: (Kind, u16)) -> bool {
    appctl.tunnel_settings(interface).is_some_and(|own| (own.kind, own.port) == found)
}

/// Whether packets come out of a tunnel at this port without a header of Ethernet, and rules see one.
pub fn puts_ethernet_on(appctl: &Appctl<'_>, port: &str) -> bool {
    appctl.tunnel_settings(port).is_some_and(|settings| settings.mode == Mode::Packets)
}

/// Where a packet comes in that has come by a tunnel: the bridge, and the packet.
pub(super) fn arrive(
    appctl: &Appctl<'_>,
    parsed: &Parsed,
    meta: &Meta,
) -> Result<(String, Key), String> {
    let none = || "no OpenFlow tunnel port for this packet".to_owned();
    let asked = parsed.in_port.as_deref().and_then(|port| port.parse().ok());
    let meta = &Meta { inner: tunnel_inner(&parsed.key), ..*meta };
    let port = asked.and_then(|number| tunnel_port(appctl, number, meta));
    let Some(port) = port else {
        tracing::warn!(target: "tunnel", "receive tunnel port not found ({meta:?})");
        return Err(none());
    };
    let bridge = bridge_of(appctl, &port).ok_or_else(none)?;
    let number = appctl.agent.number(&bridge, &port).ok_or_else(none)?;
    let words = tunnel_words(meta, &options(appctl, &bridge)).ok_or_else(none)?;
    let mut key = parsed.key.with_tags(appctl.vlan_limit(&bridge));
    key.set_tunnel(&words);
    key.set(slot::IN_PORT, PortNo::from_v10(number).0.into());
    Ok((bridge, key))
}

/// The interface where a packet of a flow comes in: its port is a number of the datapath.
pub fn port_of(appctl: &Appctl<'_>, key: &Key) -> Option<String> {
    let number = key.get_u32(slot::IN_PORT);
    match tunnel_meta(key) {
        Some(meta) => tunnel_port(appctl, number, &meta),
        None => appctl.agent.path_numbers().name(number).map(str::to_owned),
    }
}

/// The interface that is meant where a packet comes out of this port of tunnels.
fn tunnel_port(appctl: &Appctl<'_>, number: u32, meta: &Meta) -> Option<String> {
    let one = appctl.agent.path_numbers().tunnel(number)?;
    let settings = appctl.tunnel_settings(one)?;
    appctl.daemon.switch().tunnel_port((settings.kind, settings.port), meta)
}
