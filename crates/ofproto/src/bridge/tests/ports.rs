//! What controllers are told of ports, and of their queues.

use openflow::message::stats::queue;

use super::*;

/// What a controller of this version is told of ports.
fn told(bridge: &mut Bridge, id: ConnectionId, version: Version) -> Vec<(PortReason, u32, u32)> {
    let statuses = sent(bridge, id).into_iter().map(|message| {
        let status = PortStatus::decode(version, Raw::read(&message).unwrap().body).unwrap();
        (status.reason, status.port.config, status.port.state)
    });
    statuses.collect()
}

fn with(config: u32, state: u32) -> Port {
    let mut port = port(9, "p9");
    (port.desc.config, port.desc.state) = (config, state);
    port
}

#[test]
fn a_port_comes_to_life_and_goes_down_step_by_step() {
    let down = config::PORT_DOWN;
    for version in [Version::V10, Version::V14] {
        let (mut bridge, id) = connected(version, Origin::Controller);
        let all = |last| vec![port(1, "p1"), port(2, "p2"), last];
        bridge.set_ports(all(with(0, state::LIVE)));
        let mut came = vec![(PortReason::Add, 0, 0)];
        // OpenFlow 1.0 has no word for that it lives.
        came.extend((version > Version::V10).then_some((PortReason::Modify, 0, state::LIVE)));
        assert_eq!(told(&mut bridge, id, version), came, "{version}");
        bridge.set_ports(all(with(down, state::LINK_DOWN)));
        let went = [0, state::LINK_DOWN].map(|state| (PortReason::Modify, down, state));
        assert_eq!(told(&mut bridge, id, version), went, "{version}");
    }
}

#[test]
fn who_changes_a_port_is_only_told_from_version_1_5_on() {
    for version in [Version::V13, Version::V15] {
        let (mut bridge, id) = connected(version, Origin::Controller);
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let (config, mask) = (config::NO_FWD, config::NO_FWD);
        let wanted = PortMod { number: PortNo(2), mac, config, mask, advertise: 0 };
        let message = wanted.encode(version, 1);
        bridge.receive(id, &message, &mut Detached, Instant::now()).unwrap();
        assert_eq!(told(&mut bridge, id, version).len(), usize::from(version == Version::V15));
    }
}

#[test]
fn queues_are_told_of_in_all_versions() {
    for version in Version::ALL {
        let (mut bridge, id) = connected(version, Origin::Service);
        bridge.set_ports(vec![port(1, "p1"), Port { queues: [3, 5].into(), ..port(2, "p2") }]);
        let mut ask = |kind, port: PortNo, queue: u32| {
            let mut request = Message::new(version, kind, 1);
            match version {
                Version::V10 => {
                    request.body().u16(if port == PortNo::ANY {
                        0xFFFC
                    } else {
                        port.v10().unwrap()
                    });
                    request.body().zeroes(2);
                }
                _ => request.body().u32(port.0),
            }
            request.body().u32(queue);
            bridge.receive(id, &request.finish(), &mut Detached, Instant::now()).unwrap();
            let answer = sent(&mut bridge, id).remove(0);
            let raw = Raw::read(&answer).unwrap();
            let code = || ErrorMessage::decode(raw.body).unwrap().code(version).unwrap();
            if raw.kind == Kind::Error { Err(code()) } else { Ok(raw.body.len()) }
        };
        let entry = if version >= Version::V14 { 48 } else { 32 };
        let entry = if version == Version::V13 { 40 } else { entry };
        for (port, number, count) in
            [(PortNo::ANY, queue::ALL, 3), (PortNo(2), queue::ALL, 2), (PortNo(2), 5, 1)]
        {
            let answer = ask(Kind::QueueStatsRequest, port, number);
            assert_eq!(answer, Ok(count * entry), "{version} {port} {number}");
        }
        let stats = Kind::QueueStatsRequest;
        assert_eq!(ask(stats, PortNo(7), queue::ALL), Err(ErrorCode::QofcBadPort));
        assert_eq!(ask(stats, PortNo::ANY, 4), Err(ErrorCode::QofcBadQueue));
    }
}
