//! vDPA devices of the kernel in a Linux guest: a VDUSE port of one switch, bound to `vhost_vdpa`,
//! is attached to a vhost-user socket, which another switch drives; or DPDK drives it itself.
//!
//! ```text
//! wire0 -- switch -- VDUSE -- kernel -- /dev/vhost-vdpa-0 -- driver -- wire1
//! ```

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{GuestImage, Model, PciNic, Peer, Qemu, Vm, Wire};
use e2e::{apparmor, pci, require_shared, wait, wire};
use serde_json::Value;

/// How long anything may take in a guest under emulation on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(100);

const SIZES: [usize; 4] = [64, 1514, 60, 777];

/// What the vDPA device of the kernel is called.
const NODE: &str = "/dev/vhost-vdpa-0";

/// A guest with a VDUSE port that is bound to `vhost_vdpa`, whose switch has a wire.
struct Bench {
    vm: Vm,
    wires: [Wire; 2],
    next: u32,
    sent: u64,
}

impl Bench {
    fn new(dir: &Path, name: &str, image: &GuestImage) -> Self {
        let wires = [0, 1].map(|n| Wire::new(dir, &format!("{name}{n}")).unwrap());
        let nic = |n: u8| {
            let mac = format!("52:54:00:00:00:{:02x}", n + 1);
            PciNic::new(Model::Virtio, n + 1, &mac, &wires[usize::from(n)])
        };
        // DPDK wants the instructions of the processor that comes with an IOMMU.
        let qemu = Qemu::new(name, image).iommu().pci_nic(&nic(0)).pci_nic(&nic(1));
        let mut vm = qemu.start(dir).unwrap();
        vm.wait_boot().unwrap();
        // Devices that are plugged in come in any order.
        vm.sh("modprobe virtio_net; for n in 0 1; do \
             eth=$(ls /sys/bus/pci/devices/0000:0$((n + 1)):00.0/virtio*/net); \
             ip link set $eth name wire$n && ip link set wire$n up || exit 1; done")
            .unwrap();
        let mut bench = Self { vm, wires, next: 0, sent: 0 };
        bench.start_back();
        bench.wait_file(NODE);
        bench
    }

    /// Starts `ringway switch` as `name`, with a control socket of its own.
    fn start_switch(&mut self, name: &str, ports: [&str; 2]) {
        let [a, b] = ports;
        self.vm.sh(&format!("rm -f /tmp/{name}.ctl")).unwrap();
        self.start(name, &format!("switch --port {a} --port {b} --control /tmp/{name}.ctl"));
    }

    /// Starts the switch that has the VDUSE port.
    fn start_back(&mut self) {
        self.start_switch("back", ["wire=af-packet:wire0", "vm=vduse:vd0,bind=vhost"]);
    }

    /// Starts `ringway ARGUMENTS` in the guest as `name`.
    fn start(&mut self, name: &str, arguments: &str) {
        self.vm
            .sh(&format!("ringway {arguments} >>/tmp/{name}.log 2>&1 & echo $! >/tmp/{name}.pid"))
            .unwrap();
    }

    fn stop(&mut self, name: &str, signal: &str) {
        self.vm.end(name, signal).unwrap();
    }

    fn log(&mut self) -> String {
        self.vm.sh("head -n 100 /tmp/*.log; dmesg | grep -i -e vduse -e vdpa || true").unwrap()
    }

    fn wait_file(&mut self, path: &str) {
        let found = wait::until(path, PATIENCE, PAUSE, || {
            Ok((self.vm.run(&format!("[ -e {path} ]"))?.status == 0).then_some(()))
        });
        assert!(found.is_ok(), "{found:?}\n{}", self.log());
    }

    fn show(&mut self, name: &str, what: &str) -> Option<Value> {
        let command = format!("ringway show {what} --json --control /tmp/{name}.ctl");
        let output = self.vm.run(&command).unwrap();
        if output.status == 0 { serde_json::from_str(&output.text).ok() } else { None }
    }

    /// Waits until all ports of a switch have a link.
    fn wait_links(&mut self, name: &str) {
        let mut last = None;
        let up = wait::until("links", PATIENCE, PAUSE, || {
            last = self.show(name, "ports");
            let ports = last.as_ref().and_then(|ports| ports["ports"].as_array());
            let up = |port: &Value| port["link_up"] == true;
            Ok(ports.is_some_and(|ports| ports.len() == 2 && ports.iter().all(up)).then_some(()))
        });
        assert!(up.is_ok(), "{name}: {last:#?}\n{}", self.log());
    }

    /// Waits until the link of port `port` of a switch is up or down.
    fn wait_link(&mut self, name: &str, port: &str, up: bool) {
        let changed = wait::until("link", PATIENCE, PAUSE, || {
            let ports = self.show(name, "ports");
            Ok(ports.is_some_and(|ports| named(&ports, port)["link_up"] == up).then_some(()))
        });
        assert!(changed.is_ok(), "{name}: {changed:?}\n{}", self.log());
    }

    /// CPU time that a process has used so far, in clock ticks of 10 ms.
    fn cpu_time(&mut self, name: &str) -> u64 {
        let stat = self.vm.sh(&format!("cat /proc/$(cat /tmp/{name}.pid)/stat")).unwrap();
        // User and system time are the 14th and 15th field; the name before them has no spaces.
        let fields = stat.split(' ').skip(13).take(2);
        fields.map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// Starts DPDK's testpmd, which forwards between a device and `wire1`, and waits for it.
    fn start_testpmd(&mut self, vdev: &str) {
        let testpmd = format!(
            "dpdk-testpmd --lcores 0@0,1@0 -m 96 --no-pci --in-memory --single-file-segments --no-telemetry \
             --vdev {vdev} --vdev net_af_packet0,iface=wire1 -- --forward-mode=io --no-flush-rx \
             --total-num-mbufs=4096 --auto-start --stats-period=1"
        );
        self.vm.spawn("testpmd", &format!("{testpmd} </dev/null")).unwrap();
        // It prints statistics once it forwards.
        let ready = wait::until("testpmd", PATIENCE, PAUSE, || {
            let log = self.vm.sh("cat /tmp/testpmd.log; [ -d /proc/$(cat /tmp/testpmd.pid) ]")?;
            Ok(log.contains("Port statistics").then_some(()))
        });
        assert!(ready.is_ok(), "{ready:?}\n{}", self.log());
    }

    /// Sends frames both ways and checks what comes out.
    fn transfer(&mut self, count: u32) {
        let passed = wire::exchange(&self.wires, &SIZES, &mut self.next, count, PATIENCE);
        assert!(
            passed.is_ok(),
            "{passed:?}: {:#?} {:#?}\n{}",
            self.show("back", "stats"),
            self.show("front", "stats"),
            self.log()
        );
        self.sent += passed.unwrap();
    }

    /// Frames and bytes that port `port` of a switch has received and sent.
    fn counters(&mut self, name: &str, port: &str) -> [u64; 4] {
        let stats = self.show(name, "stats").unwrap();
        let port = named(&stats, port);
        let number = |side: &str, what: &str| port[side][what].as_u64().unwrap();
        [
            number("rx", "packets"),
            number("rx", "bytes"),
            number("tx", "packets"),
            number("tx", "bytes"),
        ]
    }

    /// Attaches the kernel's device to a socket.
    fn attach(&mut self) {
        self.start("vdpa", "vdpa --iface /tmp/vm --device vhost-vdpa:vhost-vdpa-0");
    }

    /// Attaching this device fails, for this reason.
    fn refused(&mut self, device: &str, reason: &str) {
        let command =
            format!("timeout 20 ringway vdpa --iface /tmp/other --device vhost-vdpa:{device}");
        let output = self.vm.run(&command).unwrap();
        assert!(output.status != 0 && output.text.contains(reason), "{output:?}");
    }

    /// Starts the switch that drives the device by the socket.
    fn drive(&mut self, options: &str) {
        let front = format!("front=virtio-user:/tmp/vm0{options}");
        self.start_switch("front", ["wire=af-packet:wire1", &front]);
        self.wait_links("front");
        self.wait_links("back");
    }
}

/// The port of this name, in what `show ports` or `show stats` has.
fn named<'a>(shown: &'a Value, port: &str) -> &'a Value {
    shown["ports"].as_array().unwrap().iter().find(|found| found["name"] == port).unwrap()
}

#[test]
fn a_device_that_somebody_has_is_refused_and_given_back() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), "busy", &pci::image().unwrap());
    let list = bench.vm.sh("ringway vdpa list --json").unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let device = list["devices"].as_array().unwrap().iter().find(|d| d["description"] == NODE);
    let device = device.unwrap_or_else(|| panic!("{list:#}"));
    assert_eq!((&device["device"], &device["obstacle"]), (&"vhost-vdpa:vd0".into(), &Value::Null));
    bench.refused("vhost-vdpa-7", "vhost-vdpa-7");
    bench.refused("/dev/null", "not a vhost-vdpa device");
    bench.refused("vd7", "vd0");
    bench.attach();
    bench.wait_file("/tmp/vm0");
    bench.refused("vhost-vdpa-0", "another process has the device");
    bench.stop("vdpa", "TERM");
    bench.start("vdpa", "vdpa --iface /tmp/vm --device vhost-vdpa:vd0");
    bench.drive("");
    bench.transfer(8);
    // Unbound from `vhost_vdpa`, which waits for whoever has the device.
    bench.stop("vdpa", "TERM");
    bench.vm.sh("echo vd0 >/sys/bus/vdpa/devices/vd0/driver/unbind").unwrap();
    bench.refused("vd0", "is bound to no driver");
}

/// The switch of the service is under the profile that packages have, and attaches the kernel's device as one of its ports.
#[test]
fn the_profile_lets_the_service_have_the_kernels_device() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Packages]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let spec = pci::spec().unwrap().named("pci-apparmor");
    let image = apparmor::with_profiles(spec).unwrap().build().unwrap();
    let mut bench = Bench::new(dir.path(), "apparmor", &image);
    apparmor::load(&mut bench.vm).unwrap();
    let folder = "/run/ringway-switch";
    let vm = format!("--port vm=vdpa:vhost-vdpa:vd0,socket={folder}/vm.sock");
    let service = apparmor::line("ringway", &format!("switch {vm} --control {folder}/ctl"));
    bench
        .vm
        .sh(&format!(
            "mkdir {folder}; ({service}) >>{folder}/log 2>&1 & echo $! >/tmp/service.pid; \
             ln -s {folder}/log /tmp/service.log"
        ))
        .unwrap();
    bench.wait_file(&format!("{folder}/vm.sock"));
    let confined = bench.vm.sh("cat /proc/$(cat /tmp/service.pid)/attr/apparmor/current").unwrap();
    assert_eq!(confined.trim(), "ringway (enforce)");
    let front = format!("front=virtio-user:{folder}/vm.sock");
    bench.start_switch("front", ["wire=af-packet:wire1", &front]);
    bench.wait_links("front");
    bench.wait_links("back");
    bench.transfer(64);
    // Another driver gets the device as it was.
    bench.stop("front", "KILL");
    bench.start_switch("front", ["wire=af-packet:wire1", &front]);
    bench.wait_links("front");
    bench.wait_links("back");
    bench.transfer(64);
    bench.stop("service", "TERM");
    let log = bench.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    // It is the profile that has let all that be: elsewhere nothing may be made.
    let elsewhere = apparmor::line("ringway", "switch --port n=null: --control /tmp/elsewhere");
    let output = bench.vm.run(&format!("({elsewhere})")).unwrap();
    assert!(output.status != 0 && output.text.contains("no permission to create it"), "{output:?}");
}

#[test]
fn dpdk_drives_the_kernels_device_itself() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Testpmd]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = pci::spec_with_testpmd().unwrap().build().unwrap();
    let mut bench = Bench::new(dir.path(), "dpdk", &image);
    // For two of them: VDUSE in the kernel keeps what was mapped last until something else is.
    bench.vm.sh(&pci::huge_pages(128)).unwrap();
    for round in 0..2 {
        bench.start_testpmd(&format!("net_virtio_user0,path={NODE}"));
        bench.wait_links("back");
        bench.transfer(64);
        // It leaves in order, or not.
        bench.stop("testpmd", if round == 0 { "TERM" } else { "KILL" });
    }
    // DPDK's virtio-user by the socket.
    bench.attach();
    bench.wait_file("/tmp/vm0");
    bench.start_testpmd("net_virtio_user0,path=/tmp/vm0");
    bench.wait_links("back");
    bench.transfer(64);
    bench.stop("testpmd", "KILL");
    // And our own driver after it.
    bench.drive("");
    bench.transfer(64);
}

#[test]
fn a_front_end_drives_the_kernels_device_by_a_socket() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), "socket", &pci::image().unwrap());
    bench.attach();
    bench.drive("");
    bench.transfer(8);
    let ticks = |bench: &mut Bench| {
        let before = bench.cpu_time("vdpa");
        bench.transfer(128);
        bench.cpu_time("vdpa") - before
    };
    // A guest that gets no CPU for a while takes that for its own time.
    let what = "ticks of CPU time for frames that are not its affair";
    wait::until_good(what, 12, || ticks(&mut bench), |ticks| *ticks <= 2).unwrap();
    let [rx, rx_bytes, tx, tx_bytes] = bench.counters("front", "front");
    assert_eq!(bench.counters("back", "vm"), [tx, tx_bytes, rx, rx_bytes]);
    assert!(rx >= bench.sent / 2 && tx >= bench.sent / 2, "{rx} and {tx} of {}", bench.sent);

    // Another front-end, with other features, and one after a crash.
    bench.stop("front", "TERM");
    bench.drive(",mrg_rxbuf=off,queue_size=64");
    bench.transfer(64);
    bench.stop("front", "KILL");
    bench.drive("");
    bench.transfer(64);
    // The front-end stays and gets the device again.
    bench.stop("vdpa", "KILL");
    bench.wait_link("front", "front", false);
    bench.attach();
    bench.wait_links("front");
    bench.wait_links("back");
    bench.transfer(64);
    // The program behind the device is another one, and nobody notices.
    bench.stop("back", "KILL");
    bench.start_back();
    bench.wait_links("back");
    bench.transfer(64);
    bench.stop("vdpa", "TERM");
    let log = bench.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}
