//! VDUSE ports, in a guest whose kernel has the vDPA bus: the interface that the kernel makes of
//! one, as in a container, and restarts of the switch.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{GuestImage, Nic, Peer, Qemu, Ringway, Vm, pci, ping, require_shared, traffic, wait};
use serde_json::Value;

/// How long anything may take in a guest under emulation on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Mebibytes of a transfer, which go round rings dozens of times.
const MIB: u32 = 16;

/// Address of the interface of the VDUSE port, and of a station behind another port.
const HERE: &str = "10.9.0.1";
const THERE: &str = "10.9.0.2";

/// A guest with a switch in it.
struct Bench {
    vm: Vm,
}

impl Bench {
    fn start(dir: &Path, nic: Option<Nic>) -> Self {
        let qemu = Qemu::new("vduse", &pci::image().unwrap()).memory_mib(512);
        let mut vm = nic.into_iter().fold(qemu, Qemu::nic).start(dir).unwrap();
        vm.wait_boot().unwrap();
        Self { vm }
    }

    fn sh(&mut self, command: &str) -> String {
        self.vm.sh(command).unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    fn switch(&mut self, ports: &[&str]) {
        let ports: String = ports.iter().map(|port| format!(" --port {port}")).collect();
        self.sh(&format!("ringway switch{ports} >>/tmp/switch.log 2>&1 & echo $! >/tmp/pid"));
        self.wait("ready", |bench| bench.show("ports").is_some());
    }

    /// Waits until the links of all ports are up: what is to leave by one whose link is not is dropped.
    fn wait_links(&mut self) {
        self.wait("links", |bench| {
            let shown = bench.show("ports").unwrap();
            let mut ports = shown["ports"].as_array().unwrap().iter();
            ports.all(|port| port["link_up"] == true)
        });
    }

    /// Ends the switch by `signal`.
    fn stop(&mut self, signal: &str) {
        let gone = "while [ -d /proc/$(cat /tmp/pid) ]; do usleep 10000; done";
        self.sh(&format!("kill -{signal} $(cat /tmp/pid); {gone}"));
    }

    fn log(&mut self) -> String {
        self.vm.run("cat /tmp/switch.log; dmesg | tail -n 30").unwrap().text
    }

    /// What `ringway show` says; `None` while there is no switch.
    fn show(&mut self, what: &str) -> Option<Value> {
        let output = self.vm.run(&format!("ringway show {what} --json")).unwrap();
        (output.status == 0).then(|| serde_json::from_str(&output.text).unwrap())
    }

    fn port(&mut self, name: &str) -> Value {
        let ports = self.show("ports").unwrap();
        let mut ports = ports["ports"].as_array().unwrap().iter();
        ports.find(|port| port["name"] == name).unwrap().clone()
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let waited = wait::until(what, LIMIT, PAUSE, || Ok(done(self).then_some(())));
        if let Err(error) = waited {
            panic!("{error}: {}", self.log());
        }
    }

    /// The interface that the kernel has made of device `name`.
    fn interface(&mut self, name: &str) -> String {
        self.sh(&format!("ls /sys/bus/vdpa/devices/{name}/virtio*/net")).trim().to_owned()
    }

    /// Makes a namespace as a container has one, and moves `interface` into it, with an address.
    fn contain(&mut self, holder: &str, interface: &str, address: &str) {
        self.sh(&format!(
            "unshare -n sleep 1000000 >/dev/null 2>&1 & echo $! >/tmp/{holder}; \
             until [ $(readlink /proc/$(cat /tmp/{holder})/ns/net) != \
                     $(readlink /proc/self/ns/net) ]; do usleep 10000; done; \
             ip link set {interface} netns $(cat /tmp/{holder})"
        ));
        self.inside(
            holder,
            &format!(
                "ip link set lo up && ip address add {address}/24 dev {interface} && \
             ip link set {interface} up"
            ),
        );
    }

    /// Runs a command in a namespace.
    fn inside(&mut self, holder: &str, command: &str) -> String {
        self.sh(&format!("nsenter -t $(cat /tmp/{holder}) -n sh -c '{command}'"))
    }

    /// CPU time that the guest has used so far, in clock ticks of 10 ms.
    fn cpu_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.vm.id())).unwrap();
        // User and system time are the 14th and 15th field; the name before them is in brackets.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<f64>().unwrap()).sum()
    }

    /// Sends [`MIB`] mebibytes by TCP from the host to a namespace, and back, and demands
    /// that they arrive as they were; gives the CPU time of the guest that it took.
    fn transfer(&mut self, holder: &str, address: &str) -> [f64; 2] {
        let make = traffic::random_file("/tmp/data", MIB);
        self.sh(&format!("[ -e /tmp/data ] || {make}"));
        let digest = self.sh("md5sum </tmp/data");
        let within = format!("nsenter -t $(cat /tmp/{holder}) -n");
        [("", within.as_str(), address), (within.as_str(), "", THERE)].map(|(from, to, address)| {
            let receiver = traffic::receiver(MIB);
            self.sh(&format!("{to} {receiver} >/dev/null 2>&1 &"));
            self.sh(&format!("{to} sh -c \"{}\"", traffic::RECEIVER_LISTENS));
            let start = self.cpu_time();
            let sender = traffic::sender("/tmp/data", address, MIB);
            let arrived = self.sh(&format!("{from} {sender}"));
            assert_eq!(arrived, digest, "{}", self.log());
            self.cpu_time() - start
        })
    }

    /// Waits until an interface in a namespace has this flag.
    fn carrier(&mut self, holder: &str, interface: &str, flag: &str) {
        let show = format!("nsenter -t $(cat /tmp/{holder}) -n ip link show {interface}");
        self.wait(flag, |bench| bench.sh(&show).contains(flag));
    }

    fn ping(&mut self, holder: &str, options: &str) {
        self.inside(holder, &ping::line("ping", THERE, options).unwrap());
    }
}

/// A VDUSE port whose interface is in a container, and a TAP port at the host.
fn container(bench: &mut Bench) -> String {
    bench.sh("modprobe tun");
    bench.switch(&["v=vduse:sw0,bind=virtio", "t=tap:tap0,mac=52:54:00:00:00:02"]);
    let interface = bench.interface("sw0");
    bench.contain("box", &interface, HERE);
    bench.sh(&format!("ip address add {THERE}/24 dev tap0"));
    bench.wait_links();
    interface
}

#[test]
fn a_container_outlives_restarts_of_the_switch() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), None);
    let interface = container(&mut bench);
    bench.ping("box", "-c 20 -i 0.05");
    bench.ping("box", "-c 5 -i 0.05 -s 1472");
    println!("{:#}", bench.port("v"));
    for signal in ["KILL", "TERM", "KILL"] {
        bench.stop(signal);
        if signal == "TERM" {
            // It had the time to say so.
            bench.carrier("box", &interface, "NO-CARRIER");
        }
        bench.switch(&["v=vduse:sw0,bind=virtio", "t=tap:tap0,mac=52:54:00:00:00:02"]);
        bench.sh(&format!("ip address add {THERE}/24 dev tap0"));
        // It is told so when the switch is there again, which is ready before its ports are.
        bench.carrier("box", &interface, "LOWER_UP");
        bench.wait_links();
        bench.ping("box", "-c 20 -i 0.05");
    }
    // Another process cannot have it meanwhile, and with other options it is another device.
    let start = |port: &str| format!("ringway switch --control /tmp/other.sock --port v={port}");
    let busy = bench.vm.run(&start("vduse:sw0")).unwrap();
    assert!(busy.status != 0 && busy.text.contains("another process serves it"), "{busy:?}");
    bench.stop("KILL");
    let other = bench.vm.run(&start("vduse:sw0,offloads=off")).unwrap();
    assert!(other.status != 0 && other.text.contains("made with other options"), "{other:?}");
    // Nothing of it stays where that is wanted.
    bench.switch(&["v=vduse:sw0,keep=off", "t=tap:tap0,mac=52:54:00:00:00:02"]);
    bench.sh(&format!("ip address add {THERE}/24 dev tap0"));
    bench.wait_links();
    bench.ping("box", "-c 20 -i 0.05");
    bench.stop("TERM");
    bench.sh("[ ! -e /sys/bus/vdpa/devices/sw0 ] && [ ! -e /dev/vduse/sw0 ]");
    println!("{}", bench.log());
}

/// A switch that stands still for longer than the kernel waits has lost its device; a new one
/// gets it back.
#[test]
fn a_device_that_the_kernel_has_given_up_is_made_anew() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), None);
    bench.switch(&["v=vduse:sw0,bind=virtio"]);
    bench.sh("echo 1 >/sys/class/vduse/sw0/msg_timeout && kill -STOP $(cat /tmp/pid)");
    bench.sh("echo sw0 >/sys/bus/vdpa/drivers/virtio_vdpa/unbind");
    bench.sh("kill -CONT $(cat /tmp/pid)");
    bench.wait("loss", |bench| bench.log().contains("the kernel has given the device up"));
    // It is left alone from then on.
    let ticks = "cut -d' ' -f14,15 /proc/$(cat /tmp/pid)/stat | tr ' ' '+'";
    let used = format!("a=$(($({ticks}))); sleep 2; echo $(($({ticks}) - a))");
    let used = || bench.sh(&used).trim().parse::<u32>().unwrap();
    // A guest that gets no CPU for a while takes that for its own time.
    wait::until_good("ticks in two seconds", 12, used, |used| *used < 20).unwrap();
    bench.stop("KILL");
    bench.switch(&["v=vduse:sw0,bind=virtio"]);
    let interface = bench.interface("sw0");
    bench.sh(&format!("ip link set {interface} up"));
    bench.wait("link", |bench| bench.port("v")["link_up"] == true);
    assert!(bench.log().contains("made anew"), "{}", bench.log());
    // Several queue pairs need what the kernel does not allow, and it says so.
    let several = bench.vm.run("ringway switch --control /tmp/o --port v=vduse:sw1,queues=2");
    let several = several.unwrap();
    assert!(several.status != 0 && several.text.contains("use queues=1"), "{several:?}");
    bench.sh("[ ! -e /dev/vduse/sw1 ]");
}

/// The switch of the guest has the guest's own network device for an uplink, which leads to the
/// switch of the host and another guest.
#[test]
fn the_interface_reaches_a_guest_of_the_switch() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| dir.path().join(format!("{name}.sock")));
    let ports = [("a", &sockets[0]), ("b", &sockets[1])]
        .map(|(name, socket)| format!("{name}=vhost-user:{}", socket.display()));
    let _outer = Ringway::switch(dir.path(), &ports.each_ref().map(String::as_str), "1").unwrap();
    let nic = |n: usize| Nic::new(&sockets[n], &format!("52:54:00:00:00:0{}", n + 1));
    let peer = Qemu::new("peer", &GuestImage::network().unwrap()).nic(nic(1));
    let mut peer = peer.start(dir.path()).unwrap();
    let mut bench = Bench::start(dir.path(), Some(nic(0)));
    peer.wait_boot().unwrap();
    traffic::configure(&mut peer, THERE, 1500).unwrap();
    bench.sh("modprobe virtio_net && ip link set eth0 up");
    let ports = ["up=af-packet:eth0", "v=vduse:sw0,bind=virtio,mac=52:54:00:00:00:09"];
    bench.switch(&ports);
    assert_eq!(bench.interface("sw0"), "eth1");
    assert_eq!(bench.sh("cat /sys/class/net/eth1/address").trim(), "52:54:00:00:00:09");
    bench.sh(&format!("ip address add {HERE}/24 dev eth1 && ip link set eth1 up"));
    bench.wait_links();
    bench.vm.ping(THERE, "-c 20 -i 0.2").unwrap();
    let there = traffic::transfer(&mut bench.vm, &mut peer, THERE, MIB).unwrap();
    let back = traffic::transfer(&mut peer, &mut bench.vm, HERE, MIB).unwrap();
    println!("{MIB} MiB in {there:?} and {back:?}");
    bench.stop("KILL");
    bench.switch(&ports);
    bench.wait_links();
    bench.vm.ping(THERE, "-c 20 -i 0.2").unwrap();
    println!("{}", bench.log());
}

#[test]
fn a_device_for_a_virtual_machine_is_made_and_goes_with_the_switch() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), None);
    let exists = "[ -c /dev/vhost-vdpa-0 ] && [ -e /sys/bus/vdpa/devices/sw0/vhost-vdpa-0 ]";
    let gone = "[ ! -e /sys/bus/vdpa/devices/sw0 ] && [ ! -e /dev/vduse/sw0 ]";
    bench.switch(&["v=vduse:sw0,bind=vhost"]);
    bench.sh(exists);
    assert_eq!(bench.port("v")["details"]["made"], "/dev/vhost-vdpa-0");
    assert_eq!(bench.port("v")["link_up"], false);
    // Nobody uses it: it goes, and with another start it is there again.
    bench.stop("TERM");
    bench.sh(gone);
    bench.switch(&["v=vduse:sw0,bind=vhost"]);
    bench.sh(exists);
    // A virtual machine that has it open keeps it.
    // The process that is started opens it itself, whenever it gets to that.
    bench.sh("sleep 1000 <>/dev/vhost-vdpa-0 & echo $! >/tmp/vmm; \
         until [ \"$(readlink /proc/$!/fd/0)\" = /dev/vhost-vdpa-0 ]; do usleep 10000; done");
    bench.stop("TERM");
    bench.sh(exists);
    let other = bench.vm.run("ringway switch --port v=vduse:sw0,bind=virtio,keep=off").unwrap();
    assert!(other.status != 0 && other.text.contains("in use by a virtual machine"), "{other:?}");
    // Before it is gone it waits for a switch to answer, for half a minute.
    bench.sh("kill $(cat /tmp/vmm)");
    // What was killed is found again, and may be given to the other driver.
    bench.switch(&["v=vduse:sw0,bind=vhost"]);
    bench.sh("while [ -d /proc/$(cat /tmp/vmm) ]; do usleep 10000; done");
    bench.stop("KILL");
    bench.sh(exists);
    bench.switch(&["v=vduse:sw0,bind=virtio"]);
    bench.sh("[ ! -e /dev/vhost-vdpa-0 ]");
    assert_eq!(bench.interface("sw0"), "eth0");
    println!("{}", bench.log());
}

/// The same station by way of two kinds of ports, in turn. The guest has one CPU, which is what
/// limits it, so its CPU time is the measure: unlike the time on the wall it does not depend on
/// what else the machine does. A single run still scatters, so this tells a port that is broken
/// from one that is not; what was measured is in the output.
#[test]
fn the_interface_costs_about_as_much_as_a_tap() {
    const ROUNDS: usize = 3;
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(dir.path(), None);
    bench.sh("modprobe tun");
    bench.switch(&["v=vduse:sw0,bind=virtio", "a=tap:tap1", "t=tap:tap0"]);
    let interface = bench.interface("sw0");
    bench.contain("box", &interface, HERE);
    bench.contain("box2", "tap1", "10.9.0.3");
    bench.sh(&format!("ip address add {THERE}/24 dev tap0"));
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let vduse = bench.transfer("box", HERE);
        let tap = bench.transfer("box2", "10.9.0.3");
        println!("{MIB} MiB there and back: VDUSE {vduse:?}, TAP {tap:?} ticks");
        ratios.push(tap.iter().sum::<f64>() / vduse.iter().sum::<f64>());
    }
    ratios.sort_by(f64::total_cmp);
    println!("TAP takes {:.2} times the CPU time of VDUSE (median)", ratios[ROUNDS / 2]);
    assert!(ratios[ROUNDS / 2] > 0.5, "{ratios:?}");
}
