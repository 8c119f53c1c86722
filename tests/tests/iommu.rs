//! Linux guests whose network device is behind their own IOMMU (`iommu_platform=on`), connected by
//! `ringway switch`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{GuestImage, Nic, Peer, Qemu, Ringway, Vm, require_shared, traffic, wait};
use rustix::process::Signal;

/// The worker's core; the guests may use all.
const CORES: &str = "1";
/// What QEMU's device needs.
const BEHIND: &str = "disable-legacy=on,iommu_platform=on,ats=on";

fn socket(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("vm{n}.sock"))
}

fn address(n: usize) -> String {
    format!("10.0.0.{}", n + 1)
}

fn switch(dir: &Path, options: &str) -> Ringway {
    let port = |n| format!("vm{n}=vhost-user:{}{options}", socket(dir, n).display());
    let ports = [0, 1].map(port);
    Ringway::switch(dir, &ports.each_ref().map(String::as_str), CORES).unwrap()
}

/// Guest `n`, of which the odd ones have packed rings.
fn qemu(dir: &Path, n: usize) -> Qemu {
    let packed = if n % 2 == 1 { ",packed=on" } else { "" };
    let nic = Nic::new(&socket(dir, n), &format!("52:54:00:00:00:{:02x}", n + 1));
    let nic = nic.options(&format!("{BEHIND}{packed}"));
    Qemu::new(&format!("vm{n}"), &GuestImage::network().unwrap()).translating().nic(nic)
}

fn configure(vm: &mut Vm, n: usize) {
    vm.wait_boot().unwrap();
    traffic::configure(vm, &address(n), 1500).unwrap();
}

/// Whether bit `bit` of the device's features was negotiated.
fn negotiated(vm: &mut Vm, bit: usize) -> bool {
    let features = vm.sh("cat /sys/class/net/eth0/device/features").unwrap();
    features.as_bytes().get(bit) == Some(&b'1')
}

/// Pings until the first answer: while a ring's own pages have no translation, frames for the guest
/// are dropped.
fn reaches(ringway: &Ringway, vm: &mut Vm, other: &str, options: &str) {
    let answered =
        wait::until_ok(other, Duration::from_secs(60), Duration::from_millis(100), || {
            vm.ping(other, &format!("-c 1 -W 1 {options}"))
        });
    let stats = ringway.client(&["show", "stats"]).unwrap();
    answered.unwrap_or_else(|error| panic!("{error:#}\n{}\n{stats}", ringway.log()));
}

#[test]
fn guests_behind_an_iommu_exchange_tcp_with_split_and_packed_rings() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut ringway = switch(dir.path(), ",iommu=on");
    let mut vms = [0, 1].map(|n| qemu(dir.path(), n).start(dir.path()).unwrap());
    for (n, vm) in vms.iter_mut().enumerate() {
        configure(vm, n);
        assert!(negotiated(vm, 33), "guest {n}: ACCESS_PLATFORM");
        assert_eq!(negotiated(vm, 34), n == 1, "guest {n}: RING_PACKED");
        let device = "/sys/class/net/eth0/device/..";
        let domain = vm.sh(&format!("cat {device}/iommu_group/type")).unwrap();
        assert!(domain.starts_with("DMA"), "guest {n}: addresses are translated: {domain}");
    }
    let [a, b] = &mut vms;
    reaches(&ringway, a, &address(1), "");
    let there = traffic::transfer(&mut *a, &mut *b, &address(1), 2).unwrap();
    let back = traffic::transfer(&mut *b, &mut *a, &address(0), 2).unwrap();
    println!("2 MiB behind an IOMMU in {there:?} and {back:?}");
    for port in ["vm0", "vm1"] {
        for side in ["rx", "tx"] {
            assert_eq!(ringway.extended(port, side, "bad_chains").unwrap(), 0, "{port} {side}");
        }
    }

    // A guest that is reset takes all translations with it, in the middle of traffic.
    let flood = a.begin(&format!("ping -q -c 200 -i 0.01 {}", address(1))).unwrap();
    b.reset().unwrap();
    a.finish(&flood, Duration::from_secs(60)).unwrap();
    configure(b, 1);
    reaches(&ringway, b, &address(0), "-s 1400");

    // So does a switch that is killed.
    ringway.signal(Signal::KILL).unwrap();
    drop(ringway);
    ringway = switch(dir.path(), ",iommu=on");
    ringway.wait_links(&["vm0", "vm1"]).unwrap();
    reaches(&ringway, a, &address(1), "");
    reaches(&ringway, b, &address(0), "-s 1400");
    assert!(!ringway.log().contains("WARN"), "{}", ringway.log());
}

#[test]
fn without_the_option_the_log_says_what_to_set() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let ringway = switch(dir.path(), "");
    // QEMU sees that the feature is not offered, and ends.
    drop(qemu(dir.path(), 0).start(dir.path()));
    wait::until("a word", Duration::from_secs(60), Duration::from_millis(50), || {
        Ok(ringway.log().contains("iommu=on").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", ringway.log()));
}
