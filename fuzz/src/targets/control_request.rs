//! Requests at a switch's control socket, one a line, as whoever may connect there may send them:
//! what is read can be sent, and what a request makes of the desired state is refused or true.

use daemon::check::check;
use daemon::{Address, Bridge, Port, State};
use packet::MacAddr;
use ringway::control::protocol::Request;

use super::configuration::there_and_back;

/// More lines are not read: each costs a copy of the state.
const MOST_LINES: usize = 64;

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut state = State::default().resolved();
    for line in data.split(|byte| *byte == b'\n').take(MOST_LINES) {
        let Ok(request) = serde_json::from_slice::<Request>(line) else { continue };
        let sent = serde_json::to_string(&request).expect("what was read can be written");
        assert_eq!(serde_json::from_str::<Request>(&sent).ok().as_ref(), Some(&request), "{sent}");
        let mut next = state.clone();
        match edit(&mut next, request) {
            Ok(()) => {}
            Err(reason) => {
                assert!(!reason.is_empty());
                continue;
            }
        }
        let next = next.resolved();
        if let Err(error) = check(&state, &next) {
            assert!(!error.to_string().is_empty());
            continue;
        }
        there_and_back(&state, &next);
        let shown = serde_json::to_value(&next).expect("a state can be shown");
        assert_eq!(serde_json::from_value::<State>(shown).ok().as_ref(), Some(&next));
        state = next;
    }
}

/// Changes the state as the switch does when it is asked to; requests of another kind change nothing.
fn edit(state: &mut State, request: Request) -> Result<(), String> {
    let text = |error: daemon::Error| error.to_string();
    match request {
        Request::PortAdd(new) => {
            daemon::check::check_name(&new.name).map_err(text)?;
            let port = Port {
                mtu: new.mtu,
                workers: new.workers,
                bridge: new.bridge,
                vlan: new.vlan,
                limits: new.limits,
                guard: new.guard,
                lldp: new.lldp,
                mcast_snooping: new.mcast_snooping,
                rstp: new.rstp,
                ..Port::new(new.device)
            };
            match new.peer_bridge {
                Some(bridge) => state.add_patch(&new.name, port, &bridge).map_err(text),
                None => state.add_port(&new.name, port).map_err(text),
            }
        }
        Request::PortSet { name, settings } => state.set_port(&name, settings).map_err(text),
        Request::PortDel { name } => state.remove(&name).map_err(text),
        Request::BridgeAdd { name, settings } => {
            state.add_bridge(&name, Bridge::of(settings)?).map_err(text)
        }
        Request::BridgeSet { name, settings } => state.set_bridge(&name, settings).map_err(text),
        Request::BridgeDel { name } => state.remove_bridge(&name).map_err(text),
        Request::BondAdd { name, members, settings, bridge, vlan } => {
            daemon::check::check_name(&name).map_err(text)?;
            let bond = Port { bridge, vlan, ..Port::bond() };
            state.add_bond(&name, bond, &members).map_err(text)?;
            state.set_bond(&name, settings, None).map_err(text)
        }
        Request::BondSet { name, members, settings } => {
            state.set_bond(&name, settings, members.as_deref()).map_err(text)
        }
        Request::BondDel { name } => state.remove_bond(&name).map_err(text),
        Request::MirrorAdd { name, mirror } => state.add_mirror(&name, mirror).map_err(text),
        Request::MirrorSet { name, mirror } => state.set_mirror(&name, mirror).map_err(text),
        Request::MirrorDel { name } => state.remove_mirror(&name).map_err(text),
        Request::FdbAdd { mac, port, vlan } => {
            let address = address(&mac, vlan)?;
            state.add_address(address, &port).map_err(text)?;
            let bridge = state.port_mut(&port).map_err(text)?.bridge_name().to_owned();
            assert_eq!(state.port_of(&bridge, address), Some(port.as_str()));
            Ok(())
        }
        Request::FdbDel { mac, vlan, bridge } => {
            let address = address(&mac, vlan)?;
            state.remove_address(&bridge, address);
            assert_eq!(state.port_of(&bridge, address), None);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn address(mac: &str, vlan: u16) -> Result<Address, String> {
    let mac: MacAddr = mac.parse().map_err(|_| format!("{mac:?} is no address"))?;
    Address::new(mac, vlan)
}
