//! What `docs/libvirt.md` says, done with its files and commands: a guest of libvirt's on both kinds
//! of sockets, with interfaces that come and go, through restarts and to another machine.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use e2e::guest::{Agent, BOOT};
use e2e::qemu::kernel_arguments;
use e2e::{GuestImage, Host, Nic, Peer, Qemu, Ringway, Vm, require_shared, traffic, wait};

const PAGE: &str = include_str!("../../docs/libvirt.md");

/// Addresses of the guest's interfaces, and of the other guest in the networks of both.
const FIRST: &str = "10.0.0.1";
const SECOND: &str = "10.0.1.1";
const OTHER: &str = "10.0.0.2";
const OTHER_SECOND: &str = "10.0.1.2";

/// The socket of an interface in a bridge of Open vSwitch's, in the folder that QEMU may make sockets in.
const OVS_SOCKET: &str = "/run/ringway-switch/vmm/vhu1.sock";

const LIMIT: Duration = Duration::from_secs(60);

/// A guest as those of other tests are, with what the page has about its memory and its interface.
/// No processor of a real machine comes and goes, so the second one starts late (see `qemu.rs`).
const DOMAIN: &str = "<domain type='qemu'>
  <name>vm1</name>
  <memory unit='MiB'>256</memory>
  MEMORY
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>/var/lib/libvirt/images/vmlinux</kernel>
    <initrd>/var/lib/libvirt/images/initrd</initrd>
    <cmdline>ARGUMENTS</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <controller type='usb' model='none'/>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <memballoon model='none'/>
    <channel type='unix'><target type='virtio' name='agent'/></channel>
    INTERFACE
  </devices>
</domain>
";

/// The file of the page that begins with a comment with its name.
fn file(name: &str) -> &'static str {
    let mut blocks = PAGE.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.lines().nth(1).is_some_and(|line| line.contains(name)));
    let (_, text) =
        block.unwrap_or_else(|| panic!("{name} is not in the page")).split_once('\n').unwrap();
    text
}

/// A command that is in the page.
fn command(line: &str) -> &str {
    let mut lines = PAGE.lines().filter_map(|line| line.trim_start().strip_prefix("# "));
    assert!(lines.any(|found| found == line), "{line} is not in the page");
    line
}

/// Two machines with a cable between them (`eth1`), on which the page's switch runs, and a network
/// that libvirt migrates over. The guest is on the first one, and so is the one that it talks to.
struct Stage {
    switches: [Option<Ringway>; 2],
    other: Vm,
    // After what uses it.
    hosts: [Host; 2],
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new(image: &GuestImage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["host-a", "host-b"].map(|name| Host::start(name, dir.path(), image).unwrap());
        connect(&hosts);
        let page = file("ringway.toml");
        let more = "[ports.other]\ndevice = \"vhost-user:/run/ringway-switch/other.sock\"\n";
        let switches = [(&hosts[0], more), (&hosts[1], "")].map(|(host, more)| {
            let text = format!("{page}\n{more}");
            std::fs::write(host.path("etc/ringway/ringway.toml"), text).unwrap();
            Some(host.switch().unwrap())
        });
        for name in ["vm1.xml", "vm1b.xml"] {
            hosts.iter().for_each(|host| host.keep(name, file(name)).unwrap());
        }
        let nic = Nic::new(&hosts[0].path("run/ringway-switch/other.sock"), "52:54:00:00:00:03");
        let other = Qemu::new("other", image).nic(nic).start(dir.path()).unwrap();
        Self { switches, other, hosts, _dir: dir }
    }

    /// Runs a command of the page on the first machine.
    fn run(&self, line: &str) -> String {
        self.hosts[0].sh(command(line)).unwrap()
    }

    fn switch(&self, n: usize) -> &Ringway {
        self.switches[n].as_ref().unwrap()
    }

    /// The guest answers on both of its interfaces, and the switch there has all of their rings.
    fn both_answer(&mut self, n: usize) {
        self.switch(n).wait_rings(&["vm1", "vm1b"], 4).unwrap();
        self.answers(FIRST);
        self.answers(SECOND);
    }

    /// An interface of the guest answers, and from then on always.
    fn answers(&mut self, address: &str) {
        self.other.sh(&format!("until ping -q -c 1 -W 1 {address}; do :; done")).unwrap();
        self.other.ping(address, "-c 3 -i 0.1").unwrap();
    }
}

/// Makes a network for the two machines, and a cable for their switches.
fn connect(hosts: &[Host; 2]) {
    let [a, b] = hosts.each_ref().map(Host::netns);
    for interface in ["eth0", "eth1"] {
        let peer = format!("peer name {interface} netns {}", b.name());
        a.sh(&format!("ip link add {interface} type veth {peer}")).unwrap();
    }
    for (netns, n) in [(a, 1), (b, 2)] {
        let line = format!("ip address add 192.0.2.{n}/24 dev eth0 && ip link set eth0 up");
        netns.sh(&line).unwrap();
    }
}

/// What runs in the guest `vm1`, which is on one of the machines.
struct Inside(Agent);

impl Inside {
    fn of(host: &Host) -> Self {
        let channels = host.path("var/lib/libvirt/qemu/channel/target");
        let name = |path: &PathBuf| path.to_string_lossy().ends_with("-vm1");
        let mut folders = std::fs::read_dir(channels).unwrap().map(|entry| entry.unwrap().path());
        let path = folders.find(name).unwrap().join("agent");
        Self(Agent::new(UnixStream::connect(path).unwrap()))
    }

    fn sh(&mut self, line: &str) -> String {
        let running = self.0.begin(line).unwrap();
        let output = self.0.finish(&running, LIMIT).unwrap();
        assert_eq!(output.status, 0, "{line:?}: {}", output.text);
        output.text
    }

    /// Waits until the kernel says so of an interface.
    fn wait_carrier(&mut self, interface: &str, carrier: &str) {
        let file = format!("/sys/class/net/{interface}/carrier");
        self.sh(&format!("until [ \"$(cat {file})\" = {carrier} ]; do usleep 10000; done"));
    }
}

#[test]
fn a_guest_of_libvirt_goes_through_everything() {
    let peers = [Peer::Guest, Peer::Netns, Peer::Libvirt, Peer::OvsDatabase];
    let Some(_turn) = require_shared(&peers) else { return };
    let image = GuestImage::network().unwrap();
    let mut stage = Stage::new(&image);
    let mut vm = starts(&mut stage);
    is_refused(&stage);
    another_is_in_a_bridge_of_open_vswitch(&stage);
    gets_an_interface(&mut stage, &mut vm);
    loses_its_link(&mut stage, &mut vm);
    outlives_the_switch(&mut stage);
    is_saved(&mut stage);
    let mut vm = moves(&mut stage);
    loses_an_interface(&mut stage, &mut vm);
}

/// It boots with its first interface.
fn starts(stage: &mut Stage) -> Inside {
    let domain = DOMAIN.replace("MEMORY", file("memory.xml")).replace("INTERFACE", file("vm1.xml"));
    let domain = domain.replace("ARGUMENTS", &kernel_arguments("ipv6.disable=1"));
    stage.hosts[0].keep("domain.xml", &domain).unwrap();
    stage.run("virsh define domain.xml");
    stage.run("virsh start vm1");
    let mut vm = Inside::of(&stage.hosts[0]);
    stage.other.wait_boot().unwrap();
    traffic::configure(&mut stage.other, OTHER, 1500).unwrap();
    stage.other.sh(&format!("ip address add {OTHER_SECOND}/24 dev eth0")).unwrap();
    vm.0.wait_ready(BOOT).unwrap();
    vm.sh(&format!("ip address add {FIRST}/24 dev eth0 && ip link set eth0 up"));
    stage.switch(0).wait_rings(&["vm1"], 4).unwrap();
    stage.answers(FIRST);
    vm
}

/// What the page says of a socket that QEMU may not connect to.
fn is_refused(stage: &Stage) {
    let host = &stage.hosts[0];
    let socket = "/run/ringway-switch/closed.sock";
    stage
        .switch(0)
        .client(&["port", "add", &format!("closed=vhost-user:{socket},mode=0600")])
        .unwrap();
    let interface = file("vm1.xml").replace("/run/ringway-switch/vm1.sock", socket);
    host.keep("closed.xml", &interface.replace(":01'", ":04'")).unwrap();
    let error = host.sh("virsh attach-device vm1 closed.xml").unwrap_err();
    let told = format!("Failed to connect to '{socket}': Permission denied");
    assert!(format!("{error:#}").contains(&told), "{error:#}");
    stage.switch(0).client(&["port", "del", "closed"]).unwrap();
}

/// On the other machine, libvirt itself adds the interface of a guest to a bridge that Open vSwitch's database
/// describes, and finds the counters of one that is there already. Nothing needs to run in that guest.
fn another_is_in_a_bridge_of_open_vswitch(stage: &Stage) {
    let host = &stage.hosts[1];
    let (database, mut switch) = host.vswitchd().unwrap();
    let vsctl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        database.vsctl(&words).unwrap().trim().to_owned()
    };
    vsctl("add-br ovs0");
    vsctl(&format!(
        "add-port ovs0 vhu1 -- set Interface vhu1 type=dpdkvhostuserclient \
         options:vhost-server-path={OVS_SOCKET}"
    ));
    let interface = |kind: &str, mac: &str, source: &str| {
        format!(
            "<interface type='{kind}'><mac address='{mac}'/>{source}<model type='virtio'/></interface>"
        )
    };
    let bridge = "<source bridge='ovs0'/><virtualport type='openvswitch'/>";
    let socket = format!("<source type='unix' path='{OVS_SOCKET}' mode='server'/>");
    let interfaces = interface("bridge", "52:54:00:00:02:01", bridge)
        + &interface("vhostuser", "52:54:00:00:02:02", &socket);
    let domain = DOMAIN.replace("MEMORY", file("memory.xml")).replace("INTERFACE", &interfaces);
    let domain = domain.replace("<name>vm1<", "<name>vm2<").replace("ARGUMENTS", "");
    host.keep("vm2.xml", &domain).unwrap();
    host.sh("virsh create --paused vm2.xml").unwrap();
    // What libvirt has written of the guest.
    let tap = vsctl("list-ports ovs0").lines().find(|port| *port != "vhu1").unwrap().to_owned();
    let external = vsctl(&format!("get Interface {tap} external_ids"));
    for part in ["attached-mac=\"52:54:00:00:02:01\"", "iface-status=active", "vm-id="] {
        assert!(external.contains(part), "{external}");
    }
    // A ping that nobody answers goes everywhere; a guest that has no rings yet takes nothing of it.
    host.netns().sh("ip address add 10.0.2.1/24 dev ovs0 && ip link set ovs0 up").unwrap();
    host.netns().sh("ping -q -c 3 -i 0.1 -W 1 10.0.2.2 || true").unwrap();
    vsctl(&format!("wait-until Interface {tap} statistics:tx_packets>0"));
    vsctl("wait-until Interface vhu1 statistics:tx_packets=0");
    let count = |port: &str, name: &str| -> u64 {
        let counters = host.sh(&format!("virsh domifstat vm2 {port}")).unwrap();
        let line = counters.lines().find(|line| line.contains(name));
        line.unwrap_or_else(|| panic!("{counters}"))
            .split(' ')
            .next_back()
            .unwrap()
            .parse()
            .unwrap()
    };
    // Of one that has taken nothing yet, too.
    assert_eq!(count("vhu1", "rx_packets"), 0);
    assert!(count(&tap, "rx_packets") + count(&tap, "rx_drop") > 0);
    host.sh("virsh destroy vm2").unwrap();
    assert_eq!(vsctl("list-ports ovs0"), "vhu1");
    host.sh("ovs-appctl exit").unwrap();
    switch.wait(LIMIT).unwrap();
}

/// A second interface is plugged in, whose socket is QEMU's.
fn gets_an_interface(stage: &mut Stage, vm: &mut Inside) {
    stage.run("virsh attach-device vm1 vm1b.xml --live --config");
    let list = stage.run("virsh domiflist vm1");
    for (file, mac) in [("vm1.sock", "52:54:00:00:00:01"), ("vmm/vm1b.sock", "52:54:00:00:00:02")] {
        let line = list.lines().find(|line| line.contains(&format!("/run/ringway-switch/{file} ")));
        assert!(
            line.is_some_and(|line| line.contains("vhostuser") && line.contains(mac)),
            "{list}"
        );
    }
    vm.sh(&format!(
        "until [ -e /sys/class/net/eth1 ]; do usleep 10000; done
        ip address add {SECOND}/24 dev eth1 && ip link set eth1 up"
    ));
    stage.both_answer(0);
    // Bit 34 of the features that were negotiated.
    for (interface, packed) in [("eth0", "0"), ("eth1", "1")] {
        let bit = vm.sh(&format!("cut -c35 /sys/class/net/{interface}/device/features"));
        assert_eq!(bit.trim(), packed, "{interface}");
    }
}

/// The cable is pulled, and plugged in again.
fn loses_its_link(stage: &mut Stage, vm: &mut Inside) {
    let error = stage.hosts[0].sh(command("virsh domif-setlink vm1 52:54:00:00:00:01 down"));
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("unable to change config on 'vhostuser' network type"), "{error}");
    stage.run("virsh qemu-monitor-command vm1 --hmp set_link hostnet0 off");
    vm.wait_carrier("eth0", "0");
    stage.switch(0).wait_rings(&["vm1"], 0).unwrap();
    stage.answers(SECOND);
    stage.run("virsh qemu-monitor-command vm1 --hmp set_link hostnet0 on");
    vm.wait_carrier("eth0", "1");
    stage.both_answer(0);
}

/// The switch crashes and comes back.
fn outlives_the_switch(stage: &mut Stage) {
    stage.hosts[0].sh("kill -9 $(pidof ringway)").unwrap();
    stage.switches[0].take().unwrap().wait(LIMIT).unwrap();
    stage.switches[0] = Some(stage.hosts[0].switch().unwrap());
    stage.switch(0).wait_rings(&["other"], 2).unwrap();
    stage.both_answer(0);
}

/// It is put to sleep in a file, and goes on in another QEMU.
fn is_saved(stage: &mut Stage) {
    stage.run("virsh managedsave vm1");
    stage.switch(0).wait_rings(&["vm1", "vm1b"], 0).unwrap();
    stage.run("virsh start vm1");
    stage.both_answer(0);
}

/// It moves to the other machine while it answers, under the name that the page has for that one.
fn moves(stage: &mut Stage) -> Inside {
    let line =
        command("virsh migrate --live --persistent --undefinesource vm1 qemu+ssh://host-b/system");
    let line = line.replace("qemu+ssh://host-b/system", &format!("'{}'", stage.hosts[1].uri()));
    let pings = stage.other.begin(&format!("ping -i 0.1 {FIRST} >/tmp/pings & echo $!")).unwrap();
    let pid = stage.other.finish(&pings, LIMIT).unwrap().text;
    stage.hosts[0].sh(&line).unwrap();
    stage.both_answer(1);
    let pid = pid.trim();
    let log = stage
        .other
        .sh(&format!(
            "kill -INT {pid}; while [ -e /proc/{pid} ]; do usleep 10000; done; cat /tmp/pings"
        ))
        .unwrap();
    println!("{}", log.lines().rev().take(3).collect::<Vec<_>>().join("\n"));
    assert!(!log.contains("DUP!"), "{log}");
    let passed = |n: usize| stage.switch(n).counters("up").unwrap();
    assert!(passed(0).tx_packets > 6 && passed(1).rx_packets > 6);
    Inside::of(&stage.hosts[1])
}

/// An interface is unplugged, on the machine where it is now.
fn loses_an_interface(stage: &mut Stage, vm: &mut Inside) {
    let host = &stage.hosts[1];
    host.sh(command("virsh detach-device vm1 vm1b.xml --live --config")).unwrap();
    let list = host.sh("virsh domiflist vm1").unwrap();
    assert!(list.contains("/vm1.sock") && !list.contains("/vm1b.sock"), "{list}");
    vm.sh("until ! [ -e /sys/class/net/eth1 ]; do usleep 10000; done");
    stage.switch(1).wait_rings(&["vm1b"], 0).unwrap();
    let line = "the front-end has disconnected socket=/run/ringway-switch/vmm/";
    let told = || Ok(stage.switch(1).log().contains(line).then_some(()));
    wait::until(line, LIMIT, Duration::from_millis(20), told).unwrap();
    stage.answers(FIRST);
    stage.hosts[1].sh("virsh destroy vm1").unwrap();
}
