//! vDPA with virtio network hardware: QEMU's device behind a virtual IOMMU, in a Linux guest.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{Model, PciNic, Peer, Qemu, Vm, Wire, pci, require, ringway};

/// How long anything may take in a guest under emulation on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Properties of a device whose doorbells have a page each, as those of hardware do.
const HARDWARE: &str = "packed=on,page-per-vq=on,vectors=8";

/// Sends every frame of ours that comes out of a wire back into it, addresses swapped.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(wire: Wire) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let Some(frame) = wire.receive(Duration::from_millis(20)).unwrap() else {
                    continue;
                };
                if frame.get(12..14) == Some(&[0x88, 0xb5]) {
                    let back = [&frame[6..12], &frame[..6], &frame[12..]].concat();
                    wire.send(&back).unwrap();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let outcome = self.thread.take().unwrap().join();
        assert!(outcome.is_ok() || std::thread::panicking());
    }
}

/// A guest with the device at `0000:01:00.0`, bound to VFIO, and the driver's own tests in it.
fn guest(dir: &Path, name: &str) -> (Vm, Wire) {
    let wire = Wire::new(dir, name).unwrap();
    let nic = PciNic::new(Model::Virtio, 1, "52:54:00:00:00:01", &wire).options(HARDWARE);
    let program = ringway::test_program("ringway-vdpa", "hardware").unwrap();
    let image = pci::spec().unwrap().named("vdpa-hardware").program_named(&program, "vdpa-tests");
    let qemu = Qemu::new(name, &image.build().unwrap()).iommu().pci_nic(&nic);
    let mut vm = qemu.start(dir).unwrap();
    vm.wait_boot().unwrap();
    vm.sh(&pci::huge_pages(32)).unwrap();
    vm.sh("ringway devices bind 0000:01:00.0 --driver vfio-pci").unwrap();
    (vm, wire)
}

#[test]
fn the_device_serves_rings_by_itself() {
    let Some(_turn) = require(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut vm, wire) = guest(dir.path(), "own");
    let _echo = Echo::start(wire);
    let command = "RINGWAY_TEST_VDPA=0000:01:00.0 vdpa-tests --ignored --test-threads=1 --nocapture 2>&1";
    let running = vm.begin(command).unwrap();
    let output = vm.finish(&running, 5 * PATIENCE).unwrap();
    println!("{}", output.text);
    assert_eq!(output.status, 0);
}
