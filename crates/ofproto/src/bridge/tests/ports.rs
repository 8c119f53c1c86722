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
        bridge.receive(id, &message, &mut Detached::default(), Instant::now()).unwrap();
        assert_eq!(told(&mut bridge, id, version).len(), usize::from(version == Version::V15));
    }
}

/// SET_ASYNC in each form that there is: as a secondary, it is told of ports that go, and of nothing else.
fn only_of_deleted_ports(version: Version, number: u32) -> Vec<u8> {
    let masks: [u32; 6] = [0x7, 0x0, 0x5, 0x2, 0x7, 0x0];
    let properties: [u8; 24] =
        [0, 0, 0, 8, 0, 0, 0, 0, 0, 2, 0, 8, 0, 0, 0, 2, 0, 4, 0, 8, 0, 0, 0, 0];
    let has_properties = number == 27 || version >= Version::V14;
    let body =
        if has_properties { properties.to_vec() } else { masks.map(u32::to_be_bytes).concat() };
    let head =
        if number == 28 { Vec::new() } else { [0x2320, number].map(u32::to_be_bytes).concat() };
    let kind = if number == 28 { 28 } else { 4 };
    let len = u8::try_from(8 + head.len() + body.len()).unwrap();
    [vec![version.wire(), kind, 0, len, 0, 0, 0, 1], head, body].concat()
}

#[test]
fn secondaries_are_told_what_they_have_asked_for_in_all_versions() {
    let nicira = Version::ALL.into_iter().map(|version| (version, 19));
    let second = Version::ALL.into_iter().take(4).map(|version| (version, 27));
    let own = Version::ALL.into_iter().skip(3).map(|version| (version, 28));
    for (version, number) in nicira.chain(second).chain(own) {
        for origin in [Origin::Controller, Origin::Service] {
            let (mut bridge, id) = connected(version, origin);
            let session = bridge.connections.get_mut(&id).unwrap().session.as_mut().unwrap();
            session.role = Role::Secondary;
            let set = only_of_deleted_ports(version, number);
            assert!(ask(&mut bridge, id, &set).is_empty(), "{version} {number}");
            bridge.set_ports(vec![port(1, "p1"), port(2, "p2"), with(0, state::LIVE)]);
            bridge.set_ports(vec![port(1, "p1"), port(2, "p2")]);
            let told = told(&mut bridge, id, version).into_iter().map(|(reason, ..)| reason);
            assert_eq!(told.collect::<Vec<_>>(), [PortReason::Delete], "{version} {number}");
        }
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
            bridge
                .receive(id, &request.finish(), &mut Detached::default(), Instant::now())
                .unwrap();
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

#[test]
fn a_bridge_with_a_port_that_does_less_is_no_plain_one() {
    let (mut bridge, id) = connected(Version::V10, Origin::Service);
    bridge.reset(true, &mut Detached::default());
    assert!(bridge.is_plain());
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut set = |config, mask| {
        let wanted = PortMod { number: PortNo(2), mac, config, mask, advertise: 0 };
        let message = wanted.encode(Version::V10, 1);
        bridge.receive(id, &message, &mut Detached::default(), Instant::now()).unwrap();
        (bridge.is_plain(), bridge.ports[&PortNo(2)].desc.config)
    };
    for bit in [config::NO_RECV, config::NO_RECV_STP, config::NO_FLOOD, config::NO_FWD] {
        assert_eq!(set(bit, bit), (false, bit));
        assert_eq!(set(0, bit), (true, 0));
    }
    let bit = config::NO_PACKET_IN;
    assert_eq!(set(bit, bit), (true, bit), "controllers are not asked");
}
