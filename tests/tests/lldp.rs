//! Discovery of neighbours with Debian's lldpd on the other side.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::process::Process;
use e2e::{Netns, Peer, Ringway, process, require_shared, wait};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

const PORTS: &str = r#"
    [ports.vm]
    device = "null:"

    [ports.up0]
    device = "af-packet:up0"
    lldp = "both"
"#;

/// An lldpd in a network namespace, on one interface.
struct Lldpd<'n> {
    netns: &'n Netns,
    socket: String,
    process: Process,
}

impl<'n> Lldpd<'n> {
    fn start(netns: &'n Netns, dir: &Path, interface: &str) -> Self {
        let socket = dir.join("lldpd.sock").display().to_string();
        let line = format!("lldpd -d -u {socket} -I {interface} -O /dev/null");
        let process = netns.spawn(&line).unwrap();
        process.wait_for_listener(Path::new(&socket), LIMIT).unwrap();
        Self { netns, socket, process }
    }

    fn client(&self, words: &str) -> anyhow::Result<String> {
        self.netns.sh(&format!("timeout 20 lldpcli -u {} {words}", self.socket))
    }

    /// Waits until what it knows of its neighbours is as expected.
    fn wait(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let found = wait::until(what, LIMIT, PAUSE, || {
            let text = self.client("show neighbors details")?;
            Ok(is_so(&text).then_some(text))
        });
        assert!(found.is_ok(), "{found:?}: {}", self.process.log());
        found.unwrap()
    }
}

/// Waits until so many neighbours are known behind `up0`, and returns what is known there.
fn wait_known(ringway: &Ringway, count: usize) -> Value {
    wait::until("neighbours are known", LIMIT, PAUSE, || {
        let port = ringway.show("neighbours")?["ports"][0].clone();
        Ok((port["neighbours"].as_array().map(Vec::len) == Some(count)).then_some(port))
    })
    .unwrap()
}

#[test]
fn lldpd_and_the_switch_know_each_other() {
    let Some(_turn) = require_shared(&[Peer::Netns, Peer::Lldpd]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (host, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
    let (at, to) = (host.name(), outside.name());
    process::sh(&format!("ip link add up0 netns {at} type veth peer name p0 netns {to}")).unwrap();
    host.sh("ip link set up0 up").unwrap();
    outside.sh("ip link set p0 up").unwrap();
    let mut ringway = Ringway::configured_in(&host, dir.path(), PORTS, "0").unwrap();
    ringway.wait_links(&["up0"]).unwrap();
    let mut lldpd = Lldpd::start(&outside, dir.path(), "p0");
    lldpd.client("update").unwrap();

    let port = wait_known(&ringway, 1);
    assert_eq!((&port["port"], &port["mode"]), (&"up0".into(), &"both".into()));
    let neighbour = &port["neighbours"][0];
    let mac = outside.sh("cat /sys/class/net/p0/address").unwrap();
    assert_eq!(
        (&neighbour["port_id_type"], &neighbour["port_id"]),
        (&"mac".into(), &mac.trim().into())
    );
    assert_eq!(
        (&neighbour["port_description"], &neighbour["ttl_seconds"]),
        (&"p0".into(), &120.into())
    );
    assert!(neighbour["system_description"].as_str().unwrap().contains("Linux"), "{neighbour}");
    let shown = ringway.client(&["show", "neighbours"]).unwrap();
    assert!(shown.lines().nth(1).unwrap().contains("p0"), "{shown}");

    let known = lldpd.wait("lldpd knows the switch", |text| text.contains("ifname up0"));
    for expected in
        ["up0, bridge default", "SysDescr:     Ringway", "TTL:          120", "Bridge, on"]
    {
        assert!(known.contains(expected), "{expected}: {known}");
    }
    let host_name = process::sh("uname -n").unwrap();
    assert!(known.contains(&format!("SysName:      {}", host_name.trim())), "{known}");

    // A port that has told who it is says so when it tells no more, and so does lldpd.
    ringway.client(&["port", "set", "up0", "--lldp", "receive"]).unwrap();
    lldpd.wait("lldpd has forgotten the switch", |text| !text.contains("up0"));
    wait_known(&ringway, 1);
    ringway.client(&["port", "set", "up0", "--lldp", "both"]).unwrap();
    lldpd.wait("lldpd knows the switch again", |text| text.contains("ifname up0"));
    outside.sh("ip link set p0 down").unwrap();
    wait_known(&ringway, 0);
    outside.sh("ip link set p0 up").unwrap();
    lldpd.client("update").unwrap();
    wait_known(&ringway, 1);
    lldpd.process.stop(LIMIT).unwrap();
    wait_known(&ringway, 0);
    assert!(ringway.stop(Duration::from_secs(60)).unwrap().success(), "{}", ringway.log());
}
