//! Open vSwitch's own tools drive our switch, as they drive `ovs-vswitchd`.

#![allow(clippy::unwrap_used, reason = "test code")]

mod chassis;
mod collectors;
mod controllers;
mod failover;
mod in_band;
mod logical;
mod ovn;
mod simulated;
mod snoop;
mod tls;
mod tunnels;

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::ovsdb::environment;
use e2e::peers::{PYTHON, workspace};
use e2e::process::run;
use e2e::ringway::command;
use e2e::{Netns, OvsDatabase, Peer, Process, Relay, Ringway, require_shared, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// A namespace with the switch and another one, joined by two internal ports of bridge `br0`.
struct Lab {
    host: Netns,
    guest: Netns,
    database: OvsDatabase,
    switch: Ringway,
}

impl Lab {
    fn start(dir: &Path) -> Self {
        let (host, guest) = (Netns::new().unwrap(), Netns::new().unwrap());
        let database = OvsDatabase::start(dir).unwrap();
        let switch = Ringway::vswitchd_in(&host, dir).unwrap();
        let lab = Self { host, guest, database, switch };
        lab.vsctl("add-br br0");
        for name in ["left", "right"] {
            lab.vsctl(&format!("add-port br0 {name} tag=10 -- set Interface {name} type=internal"));
        }
        lab.connect();
        lab
    }

    /// Gives both ends their addresses.
    fn connect(&self) {
        self.host.sh("ip addr add 192.0.2.1/24 dev left && ip link set left up").unwrap();
        self.host.sh(&format!("ip link set right netns {}", self.guest.name())).unwrap();
        self.guest.sh("ip addr add 192.0.2.2/24 dev right && ip link set right up").unwrap();
    }

    fn vsctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        self.database.vsctl(&words).unwrap().trim().to_owned()
    }

    fn appctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        self.database.appctl(&words).unwrap()
    }

    fn ping(&self) {
        self.host.ping("192.0.2.2", "-c 3 -i 0.05").unwrap();
    }
}

/// Bridges, ports, VLANs; what is wrong; what `ovs-appctl` says; the end of all of it.
#[test]
fn vsctl_and_appctl_drive_the_switch() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::start(dir.path());
    lab.ping();
    assert_eq!(lab.vsctl("get Interface br0 ofport"), "65534");
    assert_eq!(lab.vsctl("get Interface right ofport"), "2");
    // Links are looked at twice a second.
    lab.vsctl("wait-until Interface right link_state=up");
    let fdb = lab.appctl("fdb/show br0");
    for port in ["1", "2"] {
        let is_row = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() == 4 && words[0] == port && words[1] == "10"
        };
        assert!(fdb.lines().any(is_row), "{fdb}");
    }
    assert!(lab.appctl("dpif/show").contains("    right 2/"));

    // Other VLANs do not meet.
    lab.vsctl("set port right tag=20");
    assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err());
    lab.vsctl("set port left tag=20");
    lab.ping();

    // A port goes to another bridge as it is; a patch leads there, which has no link as long as it has
    // one end.
    lab.vsctl(
        "add-br br1 -- del-port right -- add-port br1 right -- set Interface right type=internal",
    );
    lab.vsctl("add-port br0 to1 -- set Interface to1 type=patch options:peer=to0");
    lab.vsctl("wait-until Interface to1 error=[] ofport!=-1 link_state=down");
    lab.vsctl("add-port br1 to0 -- set Interface to0 type=patch options:peer=to1");
    lab.vsctl("wait-until Interface to1 ofport!=-1 link_state=up");
    lab.vsctl("set port left tag=[]");
    lab.ping();

    // What is wrong is told, and stops nothing else.
    let wrong = lab.vsctl("add-port br0 wrong -- set Interface wrong type=dpdkvhostusr");
    assert_eq!(wrong, "");
    assert!(lab.vsctl("get Interface wrong error").contains("did you mean dpdkvhostuser?"));
    assert_eq!(lab.vsctl("get Interface wrong ofport"), "-1");
    lab.vsctl("add-port br0 later");
    assert!(lab.vsctl("get Interface later error").contains("No such device"));
    lab.host.sh("ip link add later type veth peer name peer").unwrap();
    lab.vsctl("wait-until Interface later error=[] ofport!=-1");
    lab.ping();

    // A port of two interfaces is a bond; the other one takes over.
    lab.host
        .sh("ip link add m0 type veth peer name p0; ip link add m1 type veth peer name p1")
        .unwrap();
    lab.host.sh("for n in m0 m1 p0 p1; do ip link set $n up; done").unwrap();
    lab.vsctl("add-bond br0 bond0 m0 m1 bond_mode=active-backup tag=10");
    let wait_active = |name: &str| {
        let mac = lab.vsctl(&format!("get Interface {name} mac_in_use"));
        lab.vsctl(&format!("wait-until Port bond0 bond_active_slave={mac}"));
    };
    lab.vsctl("wait-until Interface m0 link_state=up -- wait-until Interface m1 link_state=up");
    wait_active("m0");
    lab.vsctl("set Port bond0 other_config:bond-primary=m1");
    wait_active("m1");
    lab.vsctl("remove Port bond0 other_config bond-primary");
    assert_eq!(lab.appctl("bond/set-active-member bond0 m0"), "done\n");
    wait_active("m0");
    assert_eq!(lab.appctl("bond/disable-member bond0 m0"), "disabled\n");
    wait_active("m1");

    lab.vsctl("del-br br0 -- del-br br1");
    assert!(lab.host.sh("ip link show br0").is_err());
    assert_eq!(lab.vsctl("list-br"), "");
    assert!(lab.appctl("list-commands").contains("fdb/show"));
    assert!(lab.database.appctl(&["fdb/show", "br0"]).is_err());
    lab.appctl("exit");
    assert!(lab.switch.wait(LIMIT).unwrap().success());
    assert!(!dir.path().join("ovs-vswitchd.pid").exists());
}

/// `ovs-ofctl` asks bridges and changes ports in all versions; a controller is dialled, and told of
/// a port.
#[test]
fn ofctl_talks_to_bridges() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let ofctl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        lab.database.ofctl(&words)
    };
    lab.ping();
    for version in ["10", "11", "12", "13", "14", "15"] {
        let ask = |what: &str| ofctl(&format!("-O OpenFlow{version} {what} br0")).unwrap();
        let show = ask("show");
        assert!(show.contains("n_tables:254"), "{show}");
        let ports = ask("dump-ports-desc");
        for port in [" 1(left): addr:", " 2(right): addr:", " LOCAL(br0): addr:"] {
            assert!(ports.contains(port), "{ports}");
        }
        assert!(ask("dump-tables").contains("table 0:"));
        assert!(ask("dump-desc").contains("Ringway"));
        ask("probe");
    }
    let counted = |line: &str| line.contains("rx pkts=") && !line.contains("rx pkts=0,");
    assert!(ofctl("dump-ports br0 left").unwrap().lines().any(counted));

    // A port that is taken down carries nothing, also when the database has said something else.
    ofctl("mod-port br0 left down").unwrap();
    lab.vsctl("set Bridge br0 other_config:dp-desc=lab");
    let show = ofctl("-O OpenFlow13 dump-ports-desc br0").unwrap();
    assert_eq!(show.matches("config:     PORT_DOWN").count(), 1, "{show}");
    assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err());
    ofctl("mod-port br0 left up").unwrap();
    lab.ping();
    assert!(ofctl("dump-desc br0").unwrap().contains("DP Description: lab"));
    // Nothing goes out there, or comes in, also without rules.
    for setting in ["forward", "receive"] {
        ofctl(&format!("mod-port br0 left no-{setting}")).unwrap();
        assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err(), "{setting}");
        ofctl(&format!("mod-port br0 left {setting}")).unwrap();
        lab.ping();
    }

    // Frames go by rules, which count them; a bundle is made as a whole.
    ofctl("add-flow br0 priority=9,arp,actions=NORMAL").unwrap();
    ofctl("-O OpenFlow14 --bundle add-flow br0 priority=8,icmp,actions=NORMAL").unwrap();
    lab.ping();
    let counts = |rule: &str| {
        let flows = ofctl(&format!("dump-flows br0 {rule}")).unwrap();
        flows.lines().any(|line| line.contains("actions=NORMAL") && !line.contains("n_packets=0,"))
    };
    assert!(counts("icmp"));
    ofctl("mod-flows br0 icmp,actions=drop").unwrap();
    assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err());
    ofctl("del-flows br0 icmp").unwrap();
    lab.ping();
    ofctl("del-flows br0").unwrap();
    assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err());
    ofctl("add-flow br0 actions=NORMAL").unwrap();
    lab.ping();

    // Only what the bridge is to speak is spoken.
    lab.vsctl("set Bridge br0 protocols=OpenFlow13");
    assert!(ofctl("show br0").unwrap_err().to_string().contains("version negotiation failed"));
    ofctl("-O OpenFlow13 show br0").unwrap();

    // Who is listened for by TCP, and who is dialled, though the switch has given up much by now.
    lab.host.sh("ip link set lo up").unwrap();
    lab.vsctl("set-controller br0 ptcp:6653:127.0.0.1");
    lab.vsctl("add-br br1 -- set-controller br1 tcp:127.0.0.1:6653");
    let row = lab.vsctl("get Bridge br1 controller");
    lab.vsctl(&format!("wait-until Controller {} is_connected=true", row.trim_matches(['[', ']'])));
    lab.host.sh("ovs-ofctl --timeout=60 -O OpenFlow13 show tcp:127.0.0.1:6653").unwrap();
    lab.vsctl("del-br br1");

    // A controller that listens; it says HELLO, and hears of a new port. It does not say that it is there
    // when it is asked, so it is not.
    let path = dir.path().join("controller.sock");
    let controller = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let set = format!("set-controller br0 unix:{}", path.display());
    lab.vsctl(&format!("{set} -- set Controller br0 inactivity_probe=0"));
    let (mut switch, _) = controller.accept().unwrap();
    switch.set_read_timeout(Some(LIMIT)).unwrap();
    switch.write_all(&[4, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    lab.vsctl("wait-until Controller . is_connected=true");
    lab.vsctl("--no-wait add-port br0 new -- set Interface new type=internal");
    let is_new =
        |message: &[u8]| message[1] == 12 && message.windows(4).any(|part| part == b"new\0");
    while !is_new(&receive(&mut switch)) {}
    lab.vsctl("wait-until Controller . role=other status:state=ACTIVE");
    lab.vsctl("del-controller br0");
    assert!(switch.read_to_end(&mut Vec::new()).is_ok(), "it hangs up");

    // One that is never there: there are no rules, and after a while none is needed.
    let nobody = dir.path().join("nobody.sock");
    let set = format!("set-controller br0 unix:{}", nobody.display());
    lab.vsctl(&format!("{set} -- set Controller br0 inactivity_probe=1000"));
    lab.vsctl("wait-until Controller . status:state=BACKOFF");
    wait::until_ok("frames without a controller", LIMIT, Duration::from_millis(100), || {
        lab.host.ping("192.0.2.2", "-c 1 -W 1")
    })
    .unwrap();
    assert!(!ofctl("-O OpenFlow13 dump-flows br0").unwrap().contains("actions="));
}

/// Frames go to groups: to all of their buckets, to one by its packet, to the first whose link is up;
/// and through meters.
#[test]
fn groups_and_meters_take_frames() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let ofctl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        lab.database.ofctl(&words).unwrap()
    };
    lab.vsctl("add-port br0 spare -- set Interface spare type=internal");
    lab.host.sh("ip link set spare up").unwrap();
    ofctl("-O OpenFlow15 add-group br0 group_id=1,type=all,bucket=bucket_id:7,actions=NORMAL");
    ofctl(
        "-O OpenFlow15 insert-buckets br0 group_id=1,command_bucket_id=last,bucket=bucket_id:8,output:3",
    );
    ofctl(
        "-O OpenFlow13 add-group br0 group_id=2,type=select,bucket=weight:3,group:1,bucket=weight:0,drop",
    );
    ofctl("add-flow br0 actions=group:2");
    lab.ping();
    let stats = ofctl("-O OpenFlow13 dump-group-stats br0 group_id=2");
    let counts: Vec<&str> = stats.split(',').filter(|word| word.contains("packet_count")).collect();
    let [all, first, last] = &counts[..] else { panic!("{stats}") };
    assert_eq!(Some(*all), first.split_once(':').map(|(_, count)| count), "{stats}");
    assert!(*all != "packet_count=0" && last.ends_with("packet_count=0"), "{stats}");

    // What goes out by the spare port comes nowhere; when its link goes down, the next one is taken.
    let to = |port: &str| format!("bucket=watch_port:{port},output:{port}");
    let buckets = [to("3"), to("2")].join(",");
    ofctl(&format!("-O OpenFlow13 --may-create mod-group br0 group_id=3,type=ff,{buckets}"));
    ofctl("add-flow br0 priority=40000,in_port=1,actions=strip_vlan,group:3");
    assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err());
    lab.host.sh("ip link set spare down").unwrap();
    let deadline = Instant::now() + LIMIT;
    while lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err() {
        assert!(Instant::now() < deadline, "{}", ofctl("dump-flows br0"));
    }
    ofctl("-O OpenFlow13 del-groups br0 group_id=3");
    let flows = ofctl("dump-flows br0");
    assert!(!flows.contains("group:3") && flows.contains("group:2"), "{flows}");
    lab.ping();

    // A meter that has never enough for a frame, and one that has.
    let meter = "kbps,burst,stats,bands=type=drop,rate=1,burst_size=8";
    ofctl(&format!("-O OpenFlow13 add-meter br0 meter=1,{meter}"));
    ofctl("-O OpenFlow13 add-flow br0 priority=50000,icmp,in_port=1,actions=meter:1,NORMAL");
    lab.host.sh("busybox ping -q -c 1 -s 1300 -W 1 192.0.2.2").unwrap_err();
    let stats = ofctl("-O OpenFlow13 meter-stats br0 meter=1");
    assert!(stats.contains("flow_count:1 packet_in_count:1 "), "{stats}");
    assert!(stats.contains("0: packet_count:1 byte_count:1342"), "{stats}");
    let wide =
        meter.replace("rate=1,", "rate=100000,").replace("burst_size=8", "burst_size=100000");
    ofctl(&format!("-O OpenFlow13 mod-meter br0 meter=1,{wide}"));
    // Three requests, and none before an answer to the one before.
    for _ in 0..3 {
        lab.host.sh("busybox ping -q -c 1 -W 60 192.0.2.2").unwrap();
    }
    let stats = ofctl("-O OpenFlow13 meter-stats br0");
    assert!(
        stats.contains("packet_in_count:3 ") && stats.contains("0: packet_count:0 "),
        "{stats}"
    );
    ofctl("-O OpenFlow13 del-meters br0");
    assert!(!ofctl("dump-flows br0").contains("icmp"));
    lab.ping();

    // Flows of the data path are told of what has come in.
    let flows = || lab.appctl("dpctl/dump-flows --names filter=icmp");
    let deadline = Instant::now() + LIMIT;
    while !flows().contains("recirc_id(0),in_port(left),packet_type(ns=0,id=0),") {
        assert!(Instant::now() < deadline, "{}", flows());
        lab.ping();
    }
}

/// The next message of OpenFlow.
fn receive(switch: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 8];
    switch.read_exact(&mut head).unwrap();
    let [_, _, high, low, ..] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut body = vec![0; length.saturating_sub(head.len())];
    switch.read_exact(&mut body).unwrap();
    [&head[..], &body].concat()
}

/// The switch goes on without its database; one that starts anew takes up where it was killed.
#[test]
fn neither_needs_the_other_to_go_on() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::start(dir.path());
    lab.ping();
    // One that is removed and added in the same transaction is the same port, which goes on.
    lab.vsctl("del-port left -- add-port br0 left tag=10 -- set Interface left type=internal");
    lab.ping();
    lab.vsctl("set Interface left ofport_request=7");
    assert_eq!(lab.vsctl("get Interface left ofport"), "7");
    lab.vsctl("set Interface left ofport_request=[]");

    lab.database.restart().unwrap();
    lab.ping();
    lab.vsctl("add-port br0 more -- set Interface more type=internal");
    lab.ping();

    lab.switch.kill();
    lab.switch = Ringway::vswitchd_in(&lab.host, dir.path()).unwrap();
    // It may have been ready without its ports, as long as the server did not know that the one before is
    // gone. Something new is waited for.
    lab.vsctl("set Open_vSwitch . external_ids:restarts=1");
    assert_eq!(lab.vsctl("get Interface left ofport"), "7");
    lab.connect();
    lab.ping();
}

/// testpmd - `dpdkvhostuserclient` - bridge - `dpdkvhostuser` - testpmd.
#[test]
fn frames_cross_ports_of_both_kinds() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Dpdk, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    // The bridge's own port is to be silent.
    host.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let switch = Ringway::vswitchd_in(&host, dir.path()).unwrap();
    let left = dir.path().join("left.sock").display().to_string();
    let path = format!("options:vhost-server-path={left}");
    database.vsctl(&["add-br", "br0"]).unwrap();
    let client = ["add-port", "br0", "left", "--", "set", "Interface", "left"];
    database.vsctl(&[&client[..], &["type=dpdkvhostuserclient", &path]].concat()).unwrap();
    let server = ["add-port", "br0", "right", "--", "set", "Interface", "right"];
    database.vsctl(&[&server[..], &["type=dpdkvhostuser"]].concat()).unwrap();
    let right = dir.path().join("right").display().to_string();
    let relay = Relay::new(
        format!("net_virtio_user0,path={left},server=1"),
        format!("net_virtio_user1,path={right}"),
    );
    let relay = relay.start(dir.path(), 1).unwrap();
    switch.wait_rings(&["left", "right"], 2).unwrap();
    relay.forward().unwrap();
}

/// Options of scripts: in the background, with files where they are looked for.
#[test]
fn it_runs_in_the_background() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    database.vsctl(&["--no-wait", "add-br", "br0"]).unwrap();
    let start = || {
        let binary = e2e::ringway::binary().unwrap().display().to_string();
        let mut command = host.command(&binary);
        command.args([
            "ovs-vswitchd",
            "-vconsole:emer",
            "-vsyslog:err",
            "-vfile:info",
            "--mlockall",
        ]);
        command.args(["--no-chdir", "--log-file", "--pidfile", "--detach"]);
        environment(command, dir.path()).status().unwrap()
    };
    assert!(start().success());
    // When the first process ends, the switch is as the database says.
    assert_eq!(database.vsctl(&["get", "Interface", "br0", "ofport"]).unwrap().trim(), "65534");
    let log = std::fs::read_to_string(dir.path().join("ovs-vswitchd.log")).unwrap();
    assert!(log.contains("bridge added"), "{log}");
    assert!(!start().success(), "one is running already");
    let pid = std::fs::read_to_string(dir.path().join("ovs-vswitchd.pid")).unwrap();
    database.appctl(&["exit"]).unwrap();
    // `tail` ends with the process.
    let waited = Command::new("tail").args(["--pid", pid.trim(), "-f", "/dev/null"]).status();
    assert!(waited.unwrap().success());
    assert!(!dir.path().join("ovs-vswitchd.pid").exists());
}

/// Scripts read all that it says on standard error, which ends when it is in the background: no process of it has
/// that open then.
#[test]
fn in_the_background_it_has_nothing_more_to_say() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let binary = e2e::ringway::binary().unwrap().display().to_string();
    let mut command = host.command(&binary);
    command.args(["ovs-vswitchd", "--no-chdir", "--pidfile", "--detach"]);
    let started = environment(command, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(started.status.success() && said.contains("ovs-vswitchd (Ringway)"), "{said}");
    database.appctl(&["exit"]).unwrap();
}

/// OpenStack's compute service plugs a guest into a bridge that it makes, and out again.
#[test]
fn os_vif_plugs_a_guest_in_and_out() {
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::OsVif];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    // Of several addresses one is right.
    let nobody = dir.path().join("nobody").display().to_string();
    let addresses = format!("unix:{nobody},unix:{}", database.socket().display());
    let _switch = Ringway::vswitchd_with(&host, dir.path(), &[&addresses]).unwrap();
    let vsctl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        database.vsctl(&words).unwrap().trim().to_owned()
    };
    let socket = |name: &str| dir.path().join(name).display().to_string();
    let (script, remote) = (workspace().join("tests/host/os-vif.py"), socket("db.sock"));
    let mut os_vif = host.command(PYTHON);
    os_vif.arg(script).arg(format!("unix:{remote}")).arg(socket("vm1"));
    let mut os_vif = Process::start("os-vif", os_vif).unwrap();
    os_vif.wait_for("plugged", 0, LIMIT).unwrap();
    let port = vsctl("list-ports br-int");
    let columns = "type mtu external_ids:iface-status external_ids:attached-mac";
    assert_eq!(
        vsctl(&format!("get Interface {port} {columns}")),
        "dpdkvhostuserclient\n1400\nactive\n\"52:54:00:00:00:01\""
    );
    assert_ne!(vsctl(&format!("get Interface {port} ofport")), "-1");
    // Its guest talks to another one.
    vsctl(&format!(
        "add-port br-int other -- set Interface other type=dpdkvhostuserclient \
         options:vhost-server-path={}",
        socket("vm2")
    ));
    let [one, two] =
        ["vm1", "vm2"].map(|name| format!("virtio-user:{},server=on,queues=1", socket(name)));
    let traffic = ["gen", "latency", "--count", "1000", "--rate", "10k"];
    let ports = ["--port", &one, "--port2", &two];
    run(&mut command(&[&traffic[..], &ports].concat()).unwrap()).unwrap();
    os_vif.send_line("").unwrap();
    assert!(os_vif.wait(LIMIT).unwrap().success(), "{}", os_vif.log());
    assert_eq!(vsctl("list-ports br-int"), "other");
}

/// `ovs-tcpdump` makes an interface and a mirror that goes there, and takes both away.
#[test]
fn ovs_tcpdump_shows_what_a_port_carries() {
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::Tcpdump];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(dir.path());
    let mut tcpdump = lab.host.command("ovs-tcpdump");
    // Copies have the tag of their VLAN.
    tcpdump.args(["-i", "left", "-n", "-c", "2", "vlan 10 and icmp"]);
    let mut tcpdump = Process::start("ovs-tcpdump", environment(tcpdump, dir.path())).unwrap();
    let begin = Instant::now();
    while tcpdump.is_running() {
        // A request, and its answer: of several at once it might see the requests alone.
        lab.host.sh("busybox ping -q -c 1 -W 60 192.0.2.2").unwrap();
        // Python takes long to start where others have the CPUs.
        assert!(begin.elapsed() < 3 * LIMIT, "{}", tcpdump.log());
    }
    let text = tcpdump.log();
    for line in
        ["192.0.2.1 > 192.0.2.2: ICMP echo request", "192.0.2.2 > 192.0.2.1: ICMP echo reply"]
    {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(lab.vsctl("list-ports br0"), "left\nright");
    assert_eq!(lab.vsctl("--columns=name list Mirror"), "");
    lab.ping();
}

/// Ports without a device: frames that come in by `ovs-appctl`, a clock that stands still, mirrors,
/// and where frames would go. Nothing here is a matter of time.
#[test]
fn dummy_ports_show_what_the_switch_does() {
    let Some(_turn) = require_shared(&[Peer::OvsDatabase, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let database = OvsDatabase::start(dir.path()).unwrap();
    let _switch = Ringway::vswitchd_with(&host, dir.path(), &["--enable-dummy"]).unwrap();
    let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
    let vsctl = |line: &str| {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        database.vsctl(&words).unwrap().trim().to_owned()
    };
    let appctl = |line: &str| {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        database.appctl(&words).unwrap()
    };
    let port = |name: &str, more: &str| {
        format!("add-port br0 {name}{more} -- set Interface {name} type=dummy")
    };
    let sent = dir.path().join("p2.pcap").display().to_string();
    vsctl(&format!(
        "add-br br0 -- set bridge br0 datapath_type=dummy -- {} -- {} options:tx_pcap={sent} -- {}",
        port("p1", " tag=10"),
        port("p2", ""),
        port("p3", " tag=20"),
    ));
    appctl("time/stop");
    let eth = "eth(src=50:54:00:00:00:05,dst=ff:ff:ff:ff:ff:ff),eth_type(0xabcd)";
    let trace = appctl(&format!("ofproto/trace ovs-dummy in_port(1),{eth}"));
    assert!(trace.ends_with("Datapath actions: push_vlan(vid=10,pcp=0),100,2\n"), "{trace}");
    assert_eq!(appctl("fdb/show br0").lines().count(), 1, "nothing is learnt by that");

    // A mirror copies what comes in on p1, which gets as much of it as of anything else.
    vsctl(
        "-- --id=@p1 get Port p1 -- --id=@p3 get Port p3 -- --id=@m create Mirror name=m0 \
         select_src_port=@p1 output_port=@p3 -- set Bridge br0 mirrors=@m",
    );
    let trace = appctl(&format!("ofproto/trace ovs-dummy in_port(1),{eth}"));
    assert!(trace.ends_with("Datapath actions: 3,push_vlan(vid=10,pcp=0),100,2\n"), "{trace}");
    appctl(&format!("netdev-dummy/receive p1 {eth} {eth}"));
    let fdb = appctl("fdb/show br0");
    assert!(fdb.contains("   10  50:54:00:00:00:05    0"), "{fdb}");
    let capture = std::fs::read(&sent).unwrap();
    let tagged = [0x05, 0x81, 0, 0, 10, 0xab, 0xcd];
    assert_eq!(capture.windows(7).filter(|bytes| *bytes == tagged).count(), 2);
    appctl("time/warp 6000 1000");
    let statistics = "{tx_bytes=28, tx_packets=2}";
    assert_eq!(vsctl("get Mirror m0 statistics"), statistics);
    assert!(vsctl("get Interface p1 statistics").contains("rx_packets=2"));
    appctl("time/warp 400000");
    assert_eq!(appctl("fdb/show br0").lines().count(), 1, "it is too old");

    appctl("netdev-dummy/set-admin-state p1 down");
    appctl("time/warp 1000");
    assert_eq!(vsctl("get Interface p1 link_state"), "down");
    // 1 kbit/s and bursts of 1 kbit: one of these frames.
    vsctl("set Interface p1 ingress_policing_rate=1 ingress_policing_burst=1");
    appctl(&format!("netdev-dummy/receive p1 {eth} --len 100 {eth} --len 100"));
    vsctl("clear Bridge br0 mirrors -- del-port p3");
    spanning_tree_and_groups(&vsctl, &appctl);
    assert_eq!(appctl("vlog/set switch:dbg"), "");
    assert!(
        appctl("vlog/list")
            .lines()
            .any(|line| line.starts_with("switch ") && line.ends_with("DBG"))
    );
}

/// A bridge with ports p1 and p2 takes part in spanning tree, by either protocol, and looks at groups.
fn spanning_tree_and_groups(vsctl: &dyn Fn(&str) -> String, appctl: &dyn Fn(&str) -> String) {
    appctl("netdev-dummy/set-admin-state up");
    vsctl(
        "set Bridge br0 rstp_enable=true other_config:rstp-priority=4096 \
         other_config:hwaddr=02:00:00:00:00:07 -- set Port p2 other_config:rstp-path-cost=7 \
         other_config:rstp-port-admin-edge=true",
    );
    assert_eq!(appctl("rstp/tcn br0"), "OK\n");
    appctl("time/warp 60000 1000");
    // The database may be told a moment later.
    vsctl(
        "wait-until Bridge br0 rstp_status:rstp_root_id=1.000.020000000007 -- \
         wait-until Port p1 rstp_status:rstp_port_state=Forwarding -- \
         wait-until Port p2 rstp_statistics:rstp_tx_count>0",
    );
    assert_eq!(vsctl("get Port br0 rstp_status"), "{}");
    let shown = appctl("rstp/show br0");
    assert!(shown.contains("  This bridge is the root\n"), "{shown}");
    assert!(shown.contains("  p2         Designated Forwarding 7        128."), "{shown}");
    vsctl("set Bridge br0 rstp_enable=false stp_enable=true other_config:stp-priority=28672");
    appctl("time/warp 1000");
    vsctl("wait-until Port p1 status:stp_state=listening -- wait-until Bridge br0 rstp_status={}");
    assert!(appctl("stp/show").contains("  p1         designated listening  2     128."));
    vsctl("set Bridge br0 stp_enable=false mcast_snooping_enable=true");
    // A host behind p2 reports 224.1.1.1 by IGMPv2.
    appctl(
        "netdev-dummy/receive p2 01005E010101000C29A027A10800\
         4500001C000100004002CBAEAC10221EE001010112140CE9E0010101",
    );
    let shown = appctl("mdb/show br0");
    assert!(shown.ends_with("    2     0  224.1.1.1           0\n"), "{shown}");
    assert_eq!(appctl("mdb/flush br0"), "table successfully flushed\n");
    assert_eq!(appctl("mdb/show br0").lines().count(), 1);
    assert_eq!(appctl("lacp/show"), "");
    let shown = appctl("dpctl/show -s");
    assert!(shown.contains("  port 1: p1 (dummy)\n    RX packets:"), "{shown}");
    assert_ne!(appctl("coverage/read-counter mac_learning_learned"), "0\n");
    vsctl("set Port p1 qos=@q -- --id=@q create QoS type=egress-policer other_config:cir=1000000");
    assert_eq!(appctl("qos/show p1"), "QoS: p1 egress-policer\ncir: 1000000\n");
}
