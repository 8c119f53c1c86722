//! A controller that is reached through the bridge itself, by rules that it does not see.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use e2e::{Peer, require_shared, wait};
use openflow::VersionSet;
use openflow::message::hello::Hello;

use super::{LIMIT, Lab};

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn a_controller_is_reached_through_its_bridge_which_carries_nothing_else() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    lab.vsctl("clear Port right tag");
    // The switch's host has its address by the bridge's own port, the controller behind another one.
    lab.host.sh("ip addr del 192.0.2.1/24 dev left").unwrap();
    lab.host.sh("ip addr add 192.0.2.1/24 dev br0 && ip link set br0 up").unwrap();
    let listener = lab.guest.within(|| TcpListener::bind("192.0.2.2:6653")).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    lab.vsctl("set-fail-mode br0 secure");
    let pings = || lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_ok();
    assert!(!pings());

    lab.vsctl(
        "set-controller br0 tcp:192.0.2.2:6653 -- set Controller br0 max_backoff=1000 inactivity_probe=0",
    );
    let accept = || Ok(listener.accept().ok());
    let (mut switch, _) = wait::until("the switch", LIMIT, PAUSE, accept).unwrap();
    switch.set_nonblocking(false).unwrap();
    switch.write_all(&Hello { versions: VersionSet::ALL }.encode(1)).unwrap();
    lab.vsctl("wait-until Controller . is_connected=true");
    assert!(!pings(), "nothing but what it takes to reach the controller");

    // Open vSwitch's rules, with the address of the controller's link once that is known.
    let link = lab.guest.sh("cat /sys/class/net/right/address").unwrap();
    let hop = format!("priority=180003,arp,dl_dst={},arp_op=2,actions=NORMAL", link.trim());
    let knows = || Ok(lab.appctl("bridge/dump-flows br0").contains(&hop).then_some(()));
    wait::until("the controller's link", LIMIT, PAUSE, knows).unwrap();
    let rules = lab.appctl("bridge/dump-flows br0");
    let counted = |line: &str| {
        let is_it = "priority=180007,tcp,nw_dst=192.0.2.2,tp_dst=6653,actions=NORMAL";
        line.contains(is_it) && !line.contains("n_packets=0,")
    };
    assert!(rules.lines().any(counted), "{rules}");
    // Whoever deletes all rules does not see them.
    let ofctl = |line: &str| lab.database.ofctl(&line.split(' ').collect::<Vec<_>>()).unwrap();
    ofctl("del-flows br0");
    assert!(!ofctl("dump-flows br0").contains("actions="));
    assert!(lab.appctl("bridge/dump-flows br0").contains("priority=180007,"));

    lab.vsctl("set Controller br0 connection_mode=out-of-band");
    assert!(!lab.appctl("bridge/dump-flows br0").contains("priority=18"));
    lab.vsctl("set Controller br0 connection_mode=in-band");
    assert!(lab.appctl("bridge/dump-flows br0").contains("priority=180007,"));
    lab.vsctl("set Bridge br0 other_config:disable-in-band=true");
    assert!(!lab.appctl("bridge/dump-flows br0").contains("priority=18"));
}
