//! Controllers of others drive a bridge: an application of os-ken, and Faucet.

use std::path::Path;
use std::time::Instant;

use e2e::peers::{CONTROLLERS, target_dir, workspace};
use e2e::{Peer, Process, require_shared};

use super::{LIMIT, Lab};

/// What Faucet is to make of the bridge: two ports of one VLAN.
const FAUCET: &str = "\
vlans:
  office: {vid: 100}
dps:
  br0:
    dp_id: 0x1
    hardware: Open vSwitch
    interfaces:
      1: {native_vlan: office}
      2: {native_vlan: office}
";

/// A controller in the namespace of the switch: applications that are run by os-ken.
fn controller(lab: &Lab, dir: &Path, application: &str) -> Process {
    let manager = target_dir().join(CONTROLLERS).join("bin/osken-manager");
    let mut command = lab.host.command("sh");
    // What it tells, it tells on standard error.
    command.args(["-c", "exec \"$0\" \"$@\" 2>&1"]).arg(manager);
    command.args(["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "6653", application]);
    command.env("FAUCET_CONFIG", dir.join("faucet.yaml"));
    command.env("FAUCET_LOG", "STDOUT").env("FAUCET_EXCEPTION_LOG", "STDERR");
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1").current_dir(dir);
    Process::start(application, command).unwrap()
}

/// Pings until there is an answer, as the switch is told where stations are; and then for good.
fn ping(lab: &Lab, controller: &Process) {
    let deadline = Instant::now() + LIMIT;
    while lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err() {
        assert!(Instant::now() < deadline, "{}", controller.log());
    }
    lab.ping();
}

/// Frames that the rules have counted of whose text this is a part.
fn counted(lab: &Lab, part: &str) -> Vec<u64> {
    let flows = lab.database.ofctl(&["-O", "OpenFlow13", "dump-flows", "br0"]).unwrap();
    let count = |line: &str| line.split_once("n_packets=")?.1.split(',').next()?.parse().ok();
    flows.lines().filter(|line| line.contains(part)).filter_map(count).collect()
}

#[test]
fn applications_of_os_ken_and_faucet_drive_a_bridge() {
    let peers = [Peer::OvsDatabase, Peer::Netns, Peer::Controllers];
    let Some(_turn) = require_shared(&peers) else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("faucet.yaml"), FAUCET).unwrap();
    let lab = Lab::start(dir.path());
    for port in ["left", "right"] {
        lab.vsctl(&format!("clear Port {port} tag"));
    }
    lab.vsctl("set Bridge br0 protocols=OpenFlow13 other_config:datapath-id=0000000000000001");
    lab.vsctl("set-fail-mode br0 secure");
    lab.vsctl("set-controller br0 tcp:127.0.0.1:6653 -- set Controller br0 max_backoff=1000");
    assert!(lab.host.sh("busybox ping -q -c 1 -W 1 192.0.2.2").is_err());

    let script = workspace().join("tests/host/os-ken.py").display().to_string();
    let os_ken = controller(&lab, dir.path(), &script);
    os_ken.wait_for("features of 0000000000000001", 0, LIMIT).unwrap();
    ping(&lab, &os_ken);
    // It was asked about the first packets, and has made a rule for each direction.
    let asked = counted(&lab, "priority=0 actions=CONTROLLER:65535");
    assert!(asked.len() == 1 && asked.iter().all(|count| *count > 1), "{asked:?}");
    let made = counted(&lab, "priority=1,in_port=");
    assert!(made.len() == 2 && made.iter().all(|count| *count >= 3), "{made:?}");
    drop(os_ken);

    let faucet = controller(&lab, dir.path(), "faucet.faucet");
    faucet.wait_for("Port 2 (2) configured", 0, LIMIT).unwrap();
    let deadline = Instant::now() + LIMIT;
    while [1, 2].iter().any(|port| !faucet.log().contains(&format!("L2 learned on Port {port}"))) {
        assert!(Instant::now() < deadline, "{}", faucet.log());
        ping(&lab, &faucet);
    }
    // It has rules of its own alone, and by now those for the two stations.
    assert!(counted(&lab, "priority=1,in_port=").is_empty());
    let to_port = |port: u32| counted(&lab, &format!(" actions=pop_vlan,output:{port}"));
    let deadline = Instant::now() + LIMIT;
    while [1, 2].iter().any(|port| to_port(*port).iter().all(|count| *count < 3)) {
        assert!(Instant::now() < deadline, "{}", faucet.log());
        lab.ping();
    }
    let asked = counted(&lab, "actions=CONTROLLER:96,goto_table:2");
    assert!(asked.iter().any(|count| *count > 0), "{asked:?}");
}
