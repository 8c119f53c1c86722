//! Spanning tree between bridges of one switch, by patch ports.

use std::time::Duration;

use eal::time::Time;
use switch::{
    BridgeOptions, PortOptions, PortRstp, Rstp, RstpPort, RstpReport, RstpRole, RstpState, Switch,
    SwitchConfig,
};

fn rstp(priority: u16) -> Rstp {
    Rstp { enabled: true, priority: Some(priority), ..Rstp::default() }
}

fn on(bridge: &str, cost: u32) -> PortOptions {
    let rstp = PortRstp { path_cost: Some(cost), ..PortRstp::default() };
    PortOptions { bridge: Some(bridge.into()), rstp, ..PortOptions::default() }
}

/// Two bridges with two ways between them, and a clock that stands still.
fn looped() -> (Switch, Time) {
    let time = Time::stopped();
    let config = SwitchConfig { rstp: rstp(4096), ..SwitchConfig::default() };
    let switch = Switch::start_with(&config, time.clone()).unwrap();
    let red = BridgeOptions { rstp: rstp(8192), ..BridgeOptions::default() };
    switch.add_bridge("red", &red).unwrap();
    for n in 0..2 {
        let (a, b) = (format!("a{n}"), format!("b{n}"));
        switch.open_port(&a, &format!("patch:{b}"), &on("default", 100)).unwrap();
        switch.open_port(&b, &format!("patch:{a}"), &on("red", 100 + n)).unwrap();
    }
    (switch, time)
}

fn bridge(switch: &Switch, name: &str) -> RstpReport {
    switch.rstp().into_iter().find(|one| one.bridge == name).unwrap()
}

fn port(switch: &Switch, bridge_name: &str, name: &str) -> RstpPort {
    bridge(switch, bridge_name).ports.into_iter().find(|one| one.name == name).unwrap()
}

#[test]
fn of_two_ways_between_bridges_one_is_used_and_the_other_stands_in() {
    let (switch, _time) = looped();
    let (default, red) = (bridge(&switch, "default"), bridge(&switch, "red"));
    assert_eq!((default.root_port, red.root_port.as_deref()), (None, Some("b0")));
    assert_eq!((red.root, red.root_path_cost), (default.id, 100));
    let state = |name| {
        let port = port(&switch, "red", name);
        (port.role, port.state)
    };
    assert_eq!(state("b0"), (RstpRole::Root, RstpState::Forwarding));
    assert_eq!(state("b1"), (RstpRole::Alternate, RstpState::Discarding));
    assert_eq!(port(&switch, "red", "b1").designated, Some(default.id));
    // By proposal and agreement, while no time passes.
    switch.remove_port("a0").unwrap();
    assert_eq!(state("b1"), (RstpRole::Root, RstpState::Forwarding));
    assert!(bridge(&switch, "red").changes > 0);
    let other = PortRstp { enabled: false, ..PortRstp::default() };
    let options = PortOptions { rstp: other, ..on("red", 1) };
    switch.set_port("b1", &options).unwrap();
    assert!(bridge(&switch, "red").ports.iter().all(|port| port.name != "b1"), "it takes no part");
    switch.set_bridge("red", &BridgeOptions::default()).unwrap();
    assert_eq!(switch.rstp().len(), 1);
}

#[test]
fn who_is_not_heard_any_more_is_forgotten_by_the_clock() {
    let (switch, time) = looped();
    switch.open_port("edge", "null:", &on("red", 1)).unwrap();
    assert_eq!(port(&switch, "red", "edge").state, RstpState::Discarding);
    time.warp(Duration::from_secs(3));
    switch.catch_up();
    let edge = port(&switch, "red", "edge");
    assert!(edge.is_edge && edge.state == RstpState::Forwarding);
    // The other bridge says nothing any more.
    switch.set_bridge("default", &BridgeOptions::default()).unwrap();
    time.warp(Duration::from_secs(6));
    switch.catch_up();
    let red = bridge(&switch, "red");
    assert_eq!((red.root, red.root_port), (red.id, None));
    // Long afterwards, what is made up for is bounded.
    time.warp(Duration::from_secs(100_000));
    switch.catch_up();
    assert_eq!(bridge(&switch, "red").root_port, None);
}
