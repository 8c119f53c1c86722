//! What a port may send, and how much, by kernels that do as they are told: their own ARP, neighbour
//! discovery and DHCP, honest and spoofed, through TAP ports in network namespaces.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{Netns, Peer, Ringway, require_shared, traffic, wait};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A tenant's port, and two of others.
const PORTS: &str = r#"
[ports.tenant]
device = "tap:rwt,mac=02:00:00:00:24:01"
guard.allowed-macs = ["02:00:00:00:24:01"]
guard.allowed-ips = ["10.24.0.1", "10.24.0.128/25", "2001:db8:24::1"]
[ports.other]
device = "tap:rwo,mac=02:00:00:00:24:02"
[ports.watcher]
device = "tap:rww"
"#;

/// A switch, and a namespace for each of the tenant and another.
struct Stage {
    ringway: Ringway,
    tenant: Netns,
    other: Netns,
    // What others use goes last.
    _host: Netns,
}

impl Stage {
    fn new(dir: &Path) -> Self {
        let [host, tenant, other] = [(); 3].map(|()| Netns::new().unwrap());
        let ringway = Ringway::configured_in(&host, dir, PORTS, "1").unwrap();
        ringway.wait_links(&["tenant", "other", "watcher"]).unwrap();
        for (interface, netns, number) in [("rwt", &tenant, 1), ("rwo", &other, 2)] {
            host.sh(&format!("ip link set {interface} netns {}", netns.name())).unwrap();
            // What a kernel says by itself would be counted, too.
            netns.sh("echo 0 >/proc/sys/net/ipv6/conf/all/router_solicitations || true").unwrap();
            netns
                .sh(&format!(
                    "ip address add 10.24.0.{number}/24 dev {interface}; \
                     ip address add 2001:db8:24::{number}/64 dev {interface}; \
                     ip link set {interface} up"
                ))
                .unwrap();
        }
        Self { ringway, tenant, other, _host: host }
    }

    /// How many of the tenant's frames were dropped for a reason.
    fn dropped(&self, reason: &str) -> u64 {
        self.dropped_of("tenant", reason)
    }

    /// The same of a port.
    fn dropped_of(&self, name: &str, reason: &str) -> u64 {
        let stats = self.ringway.show("stats").unwrap();
        let ports = stats["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        port["rx"]["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Has the tenant run a shell line, of which frames are to be dropped for a reason.
    fn is_stopped(&self, line: &str, reason: &str) {
        let before = self.dropped(reason);
        self.tenant.sh(&format!("{line} || true")).unwrap();
        wait::until(reason, LIMIT, PAUSE, || Ok((self.dropped(reason) > before).then_some(())))
            .unwrap();
    }
}

#[test]
fn a_tenant_is_what_it_may_be_and_nobody_else() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(dir.path());
    honest(&stage, dir.path());
    for reason in ["mac_spoofed", "ip_spoofed", "arp_spoofed", "nd_spoofed", "dhcp_spoofed"] {
        assert_eq!(stage.dropped(reason), 0, "{reason}");
    }
    spoofed(&stage);
    server(&stage, dir.path());
    limited(&stage);
    mirrored(&stage);
    isolated(&stage);
    stormy(&stage);
    crowded(&stage);
    bridging(&stage);
    let ringway = &mut stage.ringway;
    assert!(ringway.stop(LIMIT).unwrap().success());
}

/// Where a DHCP server in `netns` has its files; the first has its settings.
fn dhcp_server(netns: &Netns, dir: &Path, interface: &str) -> e2e::Process {
    let [settings, leases] = ["conf", "leases"].map(|end| dir.join(format!("{interface}.{end}")));
    let text = format!(
        "start 10.24.0.200\nend 10.24.0.210\ninterface {interface}\nlease_file {}\npidfile {}\n",
        leases.display(),
        dir.join(format!("{interface}.pid")).display()
    );
    std::fs::write(&settings, text).unwrap();
    std::fs::write(&leases, "").unwrap();
    netns.spawn(&format!("busybox udhcpd -f -a 100 {}", settings.display())).unwrap()
}

/// A shell line that asks for an address and does nothing with it.
fn dhcp_client(interface: &str, times: u32) -> String {
    format!("busybox udhcpc -i {interface} -s /bin/true -f -q -n -t {times} -T 1 2>&1")
}

/// Pings, neighbour discovery and DHCP of a kernel that says what it may.
fn honest(stage: &Stage, dir: &Path) {
    let Stage { tenant, other, .. } = stage;
    tenant.ping("10.24.0.2", "-c 3 -i 0.01").unwrap();
    other.ping("10.24.0.1", "-c 3 -i 0.01").unwrap();
    // Until duplicate address detection is through, a kernel sends from ::1.
    for (netns, interface) in [(tenant, "rwt"), (other, "rwo")] {
        wait::until("IPv6", LIMIT, PAUSE, || {
            let left = netns.sh(&format!("ip -6 address show dev {interface} tentative"))?;
            Ok(left.is_empty().then_some(()))
        })
        .unwrap();
    }
    tenant.sh("ping -6 -c 3 -i 0.01 2001:db8:24::2").unwrap();
    other.sh("ping -6 -c 3 -i 0.01 2001:db8:24::1").unwrap();
    tenant.sh("busybox arping -c 1 -D -I rwt 10.24.0.130; true").unwrap();
    let _server = dhcp_server(other, dir, "rwo");
    gets_a_lease(tenant, "rwt");
}

/// Has a namespace ask until it is given an address: a server looks first whether one is taken.
fn gets_a_lease(netns: &Netns, interface: &str) {
    let lease = || netns.sh(&dhcp_client(interface, 3));
    let text = wait::until_ok("a lease", LIMIT, PAUSE, lease).unwrap();
    assert!(text.contains("lease of 10.24.0.2"), "{text}");
}

/// The same of one that says what it may not.
fn spoofed(stage: &Stage) {
    let Stage { tenant, ringway, .. } = stage;
    let learnt = ringway.show("fdb").unwrap()["learned"].clone();
    tenant.sh("ip address add 10.24.0.9/24 dev rwt").unwrap();
    stage.is_stopped("busybox arping -c 1 -w 1 -U -I rwt 10.24.0.9", "arp_spoofed");
    tenant.sh("ip neighbour replace 10.24.0.2 lladdr 02:00:00:00:24:02 dev rwt").unwrap();
    stage.is_stopped("ping -c 1 -W 0.1 -I 10.24.0.9 10.24.0.2", "ip_spoofed");
    // Duplicate address detection of an address that it may not have.
    stage.is_stopped("ip address add 2001:db8:24::9/64 dev rwt", "nd_spoofed");
    stage.is_stopped(
        "ip link set rwt address 02:00:00:00:24:09; ping -c 1 -W 0.1 10.24.0.2",
        "mac_spoofed",
    );
    assert_eq!(ringway.show("fdb").unwrap()["learned"], learnt, "it is learnt from");
    tenant
        .sh("ip link set rwt address 02:00:00:00:24:01; \
             ip address del 10.24.0.9/24 dev rwt; ip address del 2001:db8:24::9/64 dev rwt")
        .unwrap();
    tenant.ping("10.24.0.2", "-c 1").unwrap();
}

/// A tenant that gives out addresses to others.
fn server(stage: &Stage, dir: &Path) {
    let Stage { tenant, other, ringway, .. } = stage;
    let _server = dhcp_server(tenant, dir, "rwt");
    wait::until("it is dropped", LIMIT, PAUSE, || {
        let answer = other.sh(&dhcp_client("rwo", 1));
        assert!(answer.is_err(), "{answer:?}");
        Ok((stage.dropped("dhcp_server") > 0).then_some(()))
    })
    .unwrap();
    ringway.client(&["port", "set", "tenant", "--dhcp-guard", "off"]).unwrap();
    gets_a_lease(other, "rwo");
    let shown = ringway.client(&["show", "ports", "tenant"]).unwrap();
    assert!(shown.contains("10.24.0.128/25") && !shown.contains("dhcp-guard"), "{shown}");
    ringway.client(&["port", "set", "tenant", "--dhcp-guard", "default"]).unwrap();
}

/// TCP through a limit has about as much as it lets through.
fn limited(stage: &Stage) {
    const MIB: u32 = 1;
    let Stage { tenant, other, ringway, .. } = stage;
    let limit = ["port", "set", "tenant", "--rx-rate", "20Mbit", "--rx-burst", "1Mbit"];
    ringway.client(&limit).unwrap();
    let start = Instant::now();
    traffic::transfer(tenant, other, "10.24.0.2", MIB).unwrap();
    let took = start.elapsed();
    // Bits of the payload alone, less what may pass at once.
    let least = Duration::from_millis((u64::from(MIB) * 8 * 1_048_576 - 1_000_000) / 20_000);
    assert!(took > least, "{took:?} of {least:?} at least");
    // Where answers take long on their way, TCP has less under way than it may have.
    wait::until("more than it may", LIMIT, PAUSE, || {
        if stage.dropped("rate_limited") > 0 {
            return Ok(Some(()));
        }
        traffic::transfer(tenant, other, "10.24.0.2", MIB).map(|_| None)
    })
    .unwrap();
    ringway.client(&["port", "set", "tenant", "--no-limits"]).unwrap();
}

/// A mirror has what comes in and goes out, and nothing that was dropped.
fn mirrored(stage: &Stage) {
    let Stage { tenant, ringway, .. } = stage;
    let mirror = ["mirror", "add", "m", "--to", "watcher"];
    let select = ["--src", "tenant", "--dst", "tenant"];
    ringway.client(&[&mirror[..], &select].concat()).unwrap();
    let before = ringway.counters("watcher").unwrap().tx_packets;
    tenant.ping("10.24.0.2", "-c 5 -i 0.01").unwrap();
    wait::until("copies", LIMIT, PAUSE, || {
        let copies = ringway.counters("watcher")?.tx_packets - before;
        Ok((copies >= 10).then_some(()))
    })
    .unwrap();
    tenant.sh("ip address add 10.24.0.9/24 dev rwt").unwrap();
    let before = ringway.show("mirrors").unwrap()["mirrors"][0]["packets"].as_u64().unwrap();
    for _ in 0..8 {
        stage.is_stopped("ping -c 1 -W 0.01 -I 10.24.0.9 10.24.0.2", "ip_spoofed");
    }
    let copies = ringway.show("mirrors").unwrap()["mirrors"][0]["packets"].as_u64().unwrap();
    assert!(copies - before < 8, "{} copies of frames that were dropped", copies - before);
}

/// Ports that are isolated reach others and not each other.
fn isolated(stage: &Stage) {
    let Stage { tenant, other, ringway, _host: host } = stage;
    ringway.client(&["mirror", "del", "m"]).unwrap();
    host.sh("ip address add 10.24.0.3/24 dev rww; ip link set rww up").unwrap();
    for (port, isolated) in [("tenant", "on"), ("other", "on")] {
        ringway.client(&["port", "set", port, "--isolated", isolated]).unwrap();
    }
    stage.is_stopped("ping -c 1 -W 0.1 10.24.0.2", "isolated");
    tenant.ping("10.24.0.3", "-c 1").unwrap();
    other.ping("10.24.0.3", "-c 1").unwrap();
    for port in ["tenant", "other"] {
        ringway.client(&["port", "set", port, "--isolated", "off"]).unwrap();
    }
    tenant.ping("10.24.0.2", "-c 1").unwrap();
}

/// A kernel that sends more broadcast than it may; what else it sends passes.
fn stormy(stage: &Stage) {
    let Stage { tenant, ringway, .. } = stage;
    ringway.client(&["port", "set", "tenant", "--broadcast-packet-rate", "5"]).unwrap();
    // Its neighbour must not have to be looked for.
    tenant.sh("ip neighbour replace 10.24.0.2 lladdr 02:00:00:00:24:02 dev rwt").unwrap();
    stage.is_stopped("ping -b -c 300 -i 0.001 -W 0.1 10.24.0.255", "broadcast_limited");
    tenant.ping("10.24.0.2", "-c 3 -i 0.01").unwrap();
    ringway.client(&["port", "set", "tenant", "--no-limits"]).unwrap();
}

/// A kernel with more addresses than its port may have.
fn crowded(stage: &Stage) {
    let Stage { other, ringway, .. } = stage;
    let limit = ["port", "set", "other", "--max-addresses", "1", "--beyond-max", "drop"];
    ringway.client(&limit).unwrap();
    other.ping("10.24.0.1", "-c 1").unwrap();
    other.sh("ip link set rwo address 02:00:00:00:24:0a").unwrap();
    wait::until("its second address", LIMIT, PAUSE, || {
        other.sh("ping -c 1 -W 0.1 10.24.0.1 || true")?;
        Ok((stage.dropped_of("other", "address_limit") > 0).then_some(()))
    })
    .unwrap();
    let learnt = ringway.show("fdb").unwrap();
    let of_other = |entry: &&serde_json::Value| entry["port"] == "other";
    assert_eq!(learnt["entries"].as_array().unwrap().iter().filter(of_other).count(), 1);
    other.sh("ip link set rwo address 02:00:00:00:24:02").unwrap();
    ringway.client(&["port", "set", "other", "--max-addresses", "default"]).unwrap();
}

/// A kernel's bridge that speaks spanning tree has its port shut, which is told.
fn bridging(stage: &Stage) {
    let Stage { other, ringway, .. } = stage;
    ringway.client(&["port", "set", "other", "--bpdu-guard", "shut"]).unwrap();
    // 802.1D: a bridge that is new takes itself for the root and says so at once.
    other
        .sh("ip link add br0 type bridge stp_state 1 hello_time 100; \
             ip link set rwo master br0; ip link set br0 up")
        .unwrap();
    let shut = |expected: serde_json::Value| {
        wait::until("the port is shut or open", LIMIT, PAUSE, || {
            let ports = ringway.show("ports")?;
            let ports = ports["ports"].as_array().cloned().unwrap_or_default();
            let is_so = ports.iter().any(|one| one["name"] == "other" && one["shut"] == expected);
            Ok(is_so.then_some(()))
        })
        .unwrap();
    };
    shut("bpdu-guard".into());
    assert!(stage.dropped_of("other", "bpdu") > 0);
    other.sh("ip link set rwo nomaster; ip link del br0").unwrap();
    // What the bridge has said since it was shut comes in first, and shuts it again.
    wait::until_ok("the port is open and stays so", LIMIT, PAUSE, || {
        ringway.client(&["port", "set", "other", "--enabled", "on"])?;
        other.ping("10.24.0.1", "-c 1 -W 2")
    })
    .unwrap();
    shut(serde_json::Value::Null);
}
