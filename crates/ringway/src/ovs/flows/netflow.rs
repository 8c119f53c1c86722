//! Packets on their way to collectors of NetFlow.

use std::net::Ipv4Addr;

use export::netflow::{Key, Output, Packets as Counted};
use flow::slot;
use odp::action::{Action, Onward};
use odp::flows::{Host as _, Packets, Way};

use super::super::commands::trace::tunnels;
use super::Path;

const IPV4: u16 = 0x0800;
const ICMP: u8 = 1;

/// How long it holds where packets of a flow go, in milliseconds: addresses that a bridge has learnt may move, as
/// tunnels' ways.
const HOLDS: u64 = 5_000;

/// What is known of packets that were counted.
#[derive(Debug)]
pub(super) struct Known<'k> {
    /// Of those that have come again the bridge, and the number of OpenFlow of the port where they came in.
    pub inlet: Option<(&'k str, u16)>,
    /// What becomes of them, by the flow that they are of.
    pub way: Option<&'k Way>,
    /// Whether that was made just now.
    pub is_new: bool,
    /// Since when rules are what they are, in milliseconds since the switch was started.
    pub changed: u64,
}

/// Counts packets where that is wanted of the bridge where they have come in. Those that are tracked count when they
/// have come again: then it is known where they go.
pub(super) fn count(
    host: &mut Path<'_, '_>,
    of: &Packets<'_>,
    onward: Option<&Onward>,
    known: &Known<'_>,
) {
    let comes_again = known.way.is_some_and(|way| is_tracked(&way.actions));
    if of.key.get_u16(slot::ETH_TYPE) != IPV4 || comes_again {
        return;
    }
    let inlet = known.inlet.map(|(bridge, number)| (bridge.to_owned(), number));
    let Some((bridge, input)) = inlet.or_else(|| inlet_of(host, of.key)) else { return };
    if !host.appctl.agent.exports().counts_flows_of(&bridge) {
        return;
    }
    let key = key(of, input);
    let since = known.changed.max(host.now.saturating_sub(HOLDS));
    let output = match known.way {
        Some(way) if known.is_new => Some(output(host, way)),
        _ if host.appctl.agent.exports().knows_flow(&bridge, &key, since) => None,
        _ => match walk(host, of.key, onward) {
            Some(way) if is_tracked(&way.actions) => return,
            way => way.map(|way| output(host, &way)),
        },
    };
    let packets = Counted {
        output,
        packets: of.packets,
        bytes: of.bytes,
        flags: u8::try_from(of.key.get_u16(slot::TCP_FLAGS) & 0xff).unwrap_or(0),
        last: of.last,
    };
    host.appctl.agent.exports_mut().count_flow(&bridge, key, &packets);
}

/// What becomes of packets, if that can be asked once more: of what others may ask nothing is taken.
fn walk(host: &mut Path<'_, '_>, key: &flow::Key, onward: Option<&Onward>) -> Option<Way> {
    host.own_ways = host.own_ways.checked_sub(1)?;
    let ways = host.ways;
    let way = host.way(key, onward);
    host.ways = ways;
    // That was not for the log.
    host.trouble.clear();
    host.trace = None;
    way
}

/// What the packets have in common, that came in on a port of this number of OpenFlow.
fn key(of: &Packets<'_>, input: u16) -> Key {
    let key = of.key;
    let protocol = key.get_u8(slot::IP_PROTO);
    let ports = [key.get_u16(slot::TP_SRC), key.get_u16(slot::TP_DST)];
    Key {
        input,
        source: Ipv4Addr::from(key.get_u32(slot::IPV4_SRC)),
        destination: Ipv4Addr::from(key.get_u32(slot::IPV4_DST)),
        protocol,
        tos: key.get_u8(slot::IP_TOS),
        ports: match protocol {
            ICMP => [0, ports[0] << 8 | ports[1] & 0xff],
            _ => ports,
        },
    }
}

/// The bridge where packets have come in, and the port's number of OpenFlow there.
fn inlet_of(host: &Path<'_, '_>, key: &flow::Key) -> Option<(String, u16)> {
    place(host, &tunnels::port_of(host.appctl, key)?)
}

/// The bridge of an interface, and its number of OpenFlow there.
fn place(host: &Path<'_, '_>, interface: &str) -> Option<(String, u16)> {
    let agent = &host.appctl.agent;
    let (bridge, _) = agent.content()?.interface(interface)?;
    Some((bridge.to_owned(), agent.number(bridge, interface)?))
}

/// Whether packets are tracked, and come again.
fn is_tracked(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Said(said) if said.contains("recirc(")))
}

/// Where packets go by this way.
fn output(host: &Path<'_, '_>, way: &Way) -> Output {
    if way.is_flooded {
        return Output::Flood;
    }
    let mut all = Vec::new();
    gather(&way.actions, &mut all);
    let numbers = host.appctl.agent.path_numbers();
    let interface = match *all {
        [] => return Output::Dropped,
        [To::Hidden] => return Output::Unknown,
        [To::Port(port)] => numbers.interface(port),
        [To::Tunnel(interface)] => Some(interface),
        _ => return Output::Several,
    };
    // Of a port of another bridge the number is that which it has there.
    let place = interface.and_then(|interface| place(host, interface));
    place.map_or(Output::Several, |(_, number)| Output::Port(number))
}

/// Where an action sends packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To<'a> {
    /// Out on a port of the data path.
    Port(u32),
    /// Into a tunnel.
    Tunnel(&'a str),
    /// To one of several, by their hash.
    Any,
    /// What is done with them is not told.
    Hidden,
}

/// All that actions send packets to.
fn gather<'a>(actions: &'a [Action], all: &mut Vec<To<'a>>) {
    for action in actions {
        match action {
            Action::Output(port) => all.push(To::Port(*port)),
            // It is for the host, at a port whose number (`OFPP_LOCAL`) is that of several ports.
            Action::Pop(_) => all.push(To::Any),
            Action::Clone(actions) | Action::Sample(actions) | Action::ByLen(_, [_, actions]) => {
                gather(actions, all);
            }
            // One of a bond's members, or what a bucket says: which one is not known here.
            Action::Balance(_) => all.push(To::Any),
            // What is behind that is done with the outer packet.
            Action::Push(push) => return all.push(To::Tunnel(&push.interface)),
            Action::Said(said) if said.starts_with("lb_output(") => all.push(To::Any),
            Action::Said(said) if said.contains("slow_path(action)") => all.push(To::Hidden),
            Action::Said(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use odp::Push;

    use super::*;

    #[test]
    fn packets_go_where_all_actions_send_them() {
        let said = || Action::Said("set(eth(dst=50:54:00:00:00:01))".to_owned());
        let cloned = Action::Clone(vec![said(), Action::Output(4)]);
        let actions = [Action::Output(2), said(), cloned];
        let push = Push { interface: "t".to_owned(), ports: [6, 7], header: String::new() };
        let into = [Action::Push(Box::new(push)), Action::Output(8)];
        let mut all = Vec::new();
        gather(&actions, &mut all);
        assert_eq!(all, [To::Port(2), To::Port(4)]);
        gather(&into, &mut all);
        assert_eq!(all, [To::Port(2), To::Port(4), To::Tunnel("t")]);
        let told = ["lb_output(3)", "userspace(pid=0,slow_path(action))", "trunc(99)"];
        let told = told.map(|said| Action::Said(said.to_owned()));
        all.clear();
        gather(&told, &mut all);
        assert_eq!(all, [To::Any, To::Hidden]);
        assert!(!is_tracked(&actions));
        assert!(is_tracked(&[Action::Said("ct,recirc(0x1)".to_owned())]));
    }
}
