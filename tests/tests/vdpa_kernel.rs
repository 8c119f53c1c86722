//! vDPA devices of the kernel in a Linux guest: a VDUSE port of one switch, bound to `vhost_vdpa`,
//! is attached to a vhost-user socket, which another switch drives; or DPDK drives it itself.
//!
//! ```text
//! wire -- eth0 -- switch -- VDUSE -- kernel -- /dev/vhost-vdpa-0 -- driver -- eth1 -- wire
//! ```

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use e2e::frames::{difference, frame};
use e2e::image::ImageSpec;
use e2e::{Model, PciNic, Peer, Qemu, Vm, Wire, pci, require, wait};
use serde_json::Value;

/// How long anything may take in a guest under emulation on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

const LEFT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RIGHT: [u8; 6] = [2, 0, 0, 0, 0, 2];
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
    fn new(dir: &Path, name: &str, image: ImageSpec) -> Self {
        let wires = [0, 1].map(|n| Wire::new(dir, &format!("{name}{n}")).unwrap());
        let nic = |n: u8| {
            let mac = format!("52:54:00:00:00:{:02x}", n + 1);
            PciNic::new(Model::Virtio, n + 1, &mac, &wires[usize::from(n)])
        };
        let image = image.on_demand(&["vduse", "vhost_vdpa"]).build().unwrap();
        // DPDK wants the instructions of the processor that comes with an IOMMU.
        let qemu = Qemu::new(name, &image).iommu().pci_nic(&nic(0)).pci_nic(&nic(1));
        let mut vm = qemu.start(dir).unwrap();
        vm.wait_boot().unwrap();
        vm.sh("modprobe virtio_net && ip link set eth0 up && ip link set eth1 up").unwrap();
        let mut bench = Self { vm, wires, next: 0, sent: 0 };
        bench.start("back", "switch --port wire=af-packet:eth0 --port vm=vduse:vd0,bind=vhost");
        bench.wait_file(NODE);
        bench
    }

    /// Starts `ringway ARGUMENTS` in the guest as `name`.
    fn start(&mut self, name: &str, arguments: &str) {
        self.vm
            .sh(&format!(
                "rm -f /tmp/{name}.ctl; ringway {arguments} --control /tmp/{name}.ctl \
                 >>/tmp/{name}.log 2>&1 & echo $! >/tmp/{name}.pid"
            ))
            .unwrap();
    }

    fn stop(&mut self, name: &str, signal: &str) {
        self.vm
            .sh(&format!(
                "p=$(cat /tmp/{name}.pid); kill -{signal} $p; while [ -d /proc/$p ]; do usleep \
                 20000; done"
            ))
            .unwrap();
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

    /// Sends frames both ways and checks what comes out.
    fn transfer(&mut self, count: u32) {
        for (from, to, src, dst) in [(0, 1, LEFT, RIGHT), (1, 0, RIGHT, LEFT)] {
            let (mut sent, mut arrived) = (Vec::new(), Vec::new());
            for _ in 0..count.div_ceil(8) {
                let seeds = self.next..self.next + 8;
                self.next += 8;
                let frames: Vec<Vec<u8>> = seeds
                    .zip(SIZES.iter().cycle())
                    .map(|(seed, len)| frame(dst, src, *len, seed))
                    .collect();
                for frame in &frames {
                    self.wires[from].send(frame).unwrap();
                }
                let ours = |frame: &[u8]| frame.get(12..14) == Some(&[0x88, 0xb5]);
                let more = self.wires[to].receive_some(8, PATIENCE, ours);
                assert!(
                    more.is_ok(),
                    "{from} to {to}: {more:?}: {:#?} {:#?}\n{}",
                    self.show("back", "stats"),
                    self.show("front", "stats"),
                    self.log()
                );
                arrived.extend(more.unwrap());
                sent.extend(frames);
            }
            self.sent += sent.len() as u64;
            assert_eq!(difference(&sent, &arrived), None);
        }
    }

    /// Frames and bytes that port `port` of a switch has received and sent.
    fn counters(&mut self, name: &str, port: usize) -> [u64; 4] {
        let stats = self.show(name, "stats").unwrap();
        let number = |side: &str, what: &str| stats["ports"][port][side][what].as_u64().unwrap();
        [
            number("rx", "packets"),
            number("rx", "bytes"),
            number("tx", "packets"),
            number("tx", "bytes"),
        ]
    }

    /// Attaches the kernel's device to a socket.
    fn attach(&mut self) {
        self.start("vdpa", "vdpa --iface /tmp/vm vhost-vdpa:vhost-vdpa-0");
    }

    /// Starts the switch that drives the device by the socket.
    fn drive(&mut self, options: &str) {
        let front = format!("--port front=virtio-user:/tmp/vm0{options}");
        self.start("front", &format!("switch --port wire=af-packet:eth1 {front}"));
        self.wait_links("front");
        self.wait_links("back");
    }
}

#[test]
fn a_front_end_drives_the_kernels_device_by_a_socket() {
    let Some(_turn) = require(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(dir.path(), "socket", pci::spec().unwrap().named("vdpa"));
    bench.attach();
    bench.drive("");
    bench.transfer(64);
    let [rx, rx_bytes, tx, tx_bytes] = bench.counters("front", 1);
    assert_eq!(bench.counters("back", 1), [tx, tx_bytes, rx, rx_bytes]);
    assert!(rx >= bench.sent / 2 && tx >= bench.sent / 2);
}
