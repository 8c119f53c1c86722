//! Packets on their way to collectors of NetFlow.

use std::net::Ipv4Addr;

use export::netflow::{Key, Output, Packets as Counted};
use flow::slot;
use odp::action::{Action, Onward};
use odp::flows::{Host as _, Packets};

use super::Path;

const IPV4: u16 = 0x0800;
const ICMP: u8 = 1;

/// Counts packets where that is wanted of the bridge where they have come in. Those that are tracked count when they
/// have come again: then it is known where they go.
pub(super) fn count(host: &mut Path<'_, '_>, of: &Packets<'_>, onward: Option<&Onward>) {
    if !host.appctl.agent.exports().counts_flows() || of.key.get_u16(slot::ETH_TYPE) != IPV4 {
        return;
    }
    let Some((bridge, input)) = place(host, of.key.get_u32(slot::IN_PORT)) else { return };
    if !host.appctl.agent.exports().counts_flows_of(&bridge) {
        return;
    }
    let key = key(of, input);
    let output = if host.is_tired() {
        None
    } else {
        let way = host.way(of.key, onward);
        // That was not for the log.
        host.trouble.clear();
        host.trace = None;
        match way {
            Some(way) if is_tracked(&way.actions) => return,
            way => way.map(|way| output(host, &bridge, &way.actions)),
        }
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

/// The bridge of a port of the data path, and its number of OpenFlow there.
fn place(host: &Path<'_, '_>, number: u32) -> Option<(String, u16)> {
    let agent = &host.appctl.agent;
    let port = agent.path_numbers().name(number)?;
    let mut interfaces = agent.content()?.interfaces();
    let (bridge, ..) = interfaces.find(|(_, _, name, _)| *name == port)?;
    Some((bridge.to_owned(), agent.number(bridge, port)?))
}

/// Whether packets are tracked, and come again.
fn is_tracked(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Said(said) if said.contains("recirc(")))
}

/// Where packets go that these actions are done with.
fn output(host: &Path<'_, '_>, bridge: &str, actions: &[Action]) -> Output {
    let mut ports = Vec::new();
    gather(actions, &mut ports);
    match *ports {
        [] => Output::Dropped,
        // Of a port of another bridge the number is that which it has there.
        [port] => place(host, port).map_or(Output::Several, |(_, number)| Output::Port(number)),
        _ if is_flood(host, bridge, &ports) => Output::Flood,
        _ => Output::Several,
    }
}

/// Whether these are all ports of a bridge but one.
fn is_flood(host: &Path<'_, '_>, bridge: &str, ports: &[u32]) -> bool {
    let agent = &host.appctl.agent;
    let all = agent.content().and_then(|content| content.bridges.get(bridge)).map(|bridge| {
        bridge.ports.values().map(|port| port.interfaces.len().min(1)).sum::<usize>()
    });
    all == Some(ports.len().saturating_add(1))
}

/// The ports of outputs.
fn gather(actions: &[Action], ports: &mut Vec<u32>) {
    for action in actions {
        match action {
            Action::Output(port) => ports.push(*port),
            Action::Clone(actions) | Action::ByLen(_, [_, actions]) => gather(actions, ports),
            // One of a bond's members, or what a bucket says: which one is not known here.
            Action::Balance(_) => ports.extend([u32::MAX; 2]),
            // What is behind that is done with the outer packet.
            Action::Push(push) => {
                let [tunnel, _] = push.ports;
                return ports.push(tunnel);
            }
            Action::Pop(tunnel) => ports.push(*tunnel),
            Action::Said(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_where_all_actions_send_them() {
        let said = || Action::Said("set(eth(dst=50:54:00:00:00:01))".to_owned());
        let cloned = Action::Clone(vec![said(), Action::Output(4)]);
        let actions = [Action::Output(2), said(), cloned];
        let mut ports = Vec::new();
        gather(&actions, &mut ports);
        assert_eq!(ports, [2, 4]);
        gather(&[Action::Pop(5), Action::Output(6)], &mut ports);
        assert_eq!(ports, [2, 4, 5, 6]);
        assert!(!is_tracked(&actions));
        assert!(is_tracked(&[Action::Said("ct,recirc(0x1)".to_owned())]));
    }
}
