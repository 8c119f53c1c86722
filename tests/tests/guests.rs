//! Linux guests in QEMU, connected by `ringway switch`.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{GuestImage, Nic, Peer, Qemu, Ringway, Vm, require_shared, traffic, wait};
use rustix::process::Signal;

/// The worker's core; the guests may use all.
const CORES: &str = "1";

/// Mebibytes of a transfer, which go round rings dozens of times.
const MIB: u32 = 16;

/// How long anything may take on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

fn socket(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("vm{n}.sock"))
}

fn address(n: usize) -> String {
    format!("10.0.0.{}", n + 1)
}

fn switch(dir: &Path, guests: usize, options: &str) -> Ringway {
    let port = |n| format!("vm{n}=vhost-user:{},queues=2{options}", socket(dir, n).display());
    let ports: Vec<String> = (0..guests).map(port).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    Ringway::switch(dir, &ports, CORES).unwrap()
}

/// Guest `n`, whose interface has as many queues as it has CPUs, two at most.
fn qemu(dir: &Path, n: usize, mtu: Option<u16>, packed: bool) -> Qemu {
    let mut nic = Nic::new(&socket(dir, n), &format!("52:54:00:00:00:{:02x}", n + 1)).queues(2);
    if let Some(mtu) = mtu {
        nic = nic.mtu(mtu);
    }
    if packed {
        nic = nic.options("packed=on");
    }
    let image = GuestImage::network().unwrap();
    Qemu::new(&format!("vm{n}"), &image).nic(nic)
}

/// `count` guests with addresses, booted side by side, the first `packed` of them with packed
/// rings.
fn guests(dir: &Path, count: usize, packed: usize, mtu: u16) -> Vec<Vm> {
    guests_of(dir, count, packed, mtu, 1)
}

/// The same, each with `cpus` CPUs.
fn guests_of(dir: &Path, count: usize, packed: usize, mtu: u16, cpus: u16) -> Vec<Vm> {
    let offered = (mtu != 1500).then_some(mtu);
    let guest = |n| qemu(dir, n, offered, n < packed).cpus(cpus).start(dir).unwrap();
    let mut vms: Vec<Vm> = (0..count).map(guest).collect();
    for (n, vm) in vms.iter_mut().enumerate() {
        configure(vm, n, mtu);
        // Bit 34 of the negotiated features.
        let bit = vm.sh("cut -c35 /sys/class/net/eth0/device/features").unwrap();
        assert_eq!(bit.trim() == "1", n < packed, "guest {n}: RING_PACKED is {bit}");
    }
    vms
}

/// A switch and two guests that reach each other, the first one with packed rings.
fn pair(dir: &Path) -> (Ringway, [Vm; 2]) {
    let ringway = switch(dir, 2, "");
    let mut vms: [Vm; 2] = guests(dir, 2, 1, 1500).try_into().unwrap();
    ringway.wait_rings(&["vm0", "vm1"], 2).unwrap();
    vms[0].ping(&address(1), "-c 5 -i 0.05").unwrap();
    (ringway, vms)
}

fn configure(vm: &mut Vm, n: usize, mtu: u16) {
    vm.wait_boot().unwrap();
    traffic::configure(vm, &address(n), u32::from(mtu)).unwrap();
}

/// Waits until the switch and the guest have counted the same frames.
fn compare_counters(ringway: &Ringway, vm: &mut Vm, port: &str) {
    let mut last = None;
    // The guest counts a frame that it has sent when it gets the buffer back, so it may lag.
    let same = wait::until("counters", LIMIT, Duration::from_millis(100), || {
        let switch = ringway.counters(port)?;
        let mut of = |name| vm.counter("eth0", name);
        let guest = [of("tx_packets")?, of("tx_bytes")?, of("rx_packets")?, of("rx_bytes")?];
        let ours = [switch.rx_packets, switch.rx_bytes, switch.tx_packets, switch.tx_bytes];
        let dropped = switch.rx_dropped + switch.tx_dropped;
        last = Some((ours, guest, dropped));
        Ok((ours == guest && ours[0] > 0 && ours[2] > 0 && dropped == 0).then_some(()))
    });
    assert!(same.is_ok(), "{port}: (switch, guest, dropped) = {last:?}");
}

#[test]
fn two_guests_ping_without_loss_and_counters_agree() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut ringway = switch(dir.path(), 2, "");
    let mut vms = guests_of(dir.path(), 2, 1, 1500, 2);
    ringway.wait_rings(&["vm0", "vm1"], 4).unwrap();
    let [a, b] = vms.as_mut_slice() else { unreachable!() };
    assert_eq!(a.sh("ls -d /sys/class/net/eth0/queues/rx-* | wc -l").unwrap(), "2\n");
    a.ping(&address(1), "-c 100 -i 0.02").unwrap();
    b.ping(&address(0), "-c 100 -i 0.02 -s 1400").unwrap();
    compare_counters(&ringway, a, "vm0");
    compare_counters(&ringway, b, "vm1");
    assert!(ringway.stop(LIMIT).unwrap().success(), "{}", ringway.log());
    for n in 0..2 {
        assert!(!socket(dir.path(), n).exists(), "socket {n} is left over");
    }
}

#[test]
fn tcp_transfers_arrive_whole_with_mtu_1500() {
    tcp_transfers_arrive_whole(1500);
}

#[test]
fn tcp_transfers_arrive_whole_with_mtu_9000() {
    tcp_transfers_arrive_whole(9000);
}

fn tcp_transfers_arrive_whole(mtu: u16) {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = if mtu == 1500 { String::new() } else { format!(",mtu={mtu}") };
    let ringway = switch(dir.path(), 2, &options);
    let mut vms = guests(dir.path(), 2, 1, mtu);
    let [a, b] = vms.as_mut_slice() else { unreachable!() };
    ringway.wait_rings(&["vm0", "vm1"], 2).unwrap();
    assert_eq!(a.sh("cat /sys/class/net/eth0/mtu").unwrap().trim(), mtu.to_string());
    // 28 bytes of IPv4 and ICMP headers: a frame as large as may be.
    a.ping(&address(1), &format!("-c 10 -i 0.05 -s {}", mtu - 28)).unwrap();
    let there = traffic::transfer(&mut *a, &mut *b, &address(1), MIB).unwrap();
    let back = traffic::transfer(b, a, &address(0), MIB).unwrap();
    println!("{MIB} MiB with MTU {mtu} in {there:?} and {back:?}");
    let counters = ringway.counters("vm0").unwrap();
    // Each byte is counted once: headers, acknowledgements and what TCP sends again when a guest gets
    // no CPU for a while are less than as much again.
    let sent = u64::from(MIB) << 20;
    for bytes in [counters.rx_bytes, counters.tx_bytes] {
        assert!((sent..2 * sent).contains(&bytes), "{counters:?}");
    }
}

#[test]
fn a_guest_reboots_and_comes_back() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut ringway, [mut a, mut b]) = pair(dir.path());
    for _ in 0..2 {
        // Cut off in the middle of traffic.
        let flood = a.begin(&format!("ping -q -c 200 -i 0.01 {}", address(1))).unwrap();
        a.reset().unwrap();
        drop(flood);
        configure(&mut a, 0, 1500);
        ringway.wait_rings(&["vm0"], 2).unwrap();
        a.ping(&address(1), "-c 20 -i 0.02").unwrap();
        b.ping(&address(0), "-c 20 -i 0.02").unwrap();
    }
    assert!(ringway.is_running(), "{}", ringway.log());
}

#[test]
fn memory_that_is_not_shared_is_told() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let ringway = switch(dir.path(), 2, "");
    let mut vms = [
        qemu(dir.path(), 0, None, false).start(dir.path()).unwrap(),
        qemu(dir.path(), 1, None, false).private_memory().start(dir.path()).unwrap(),
    ];
    vms.iter_mut().for_each(|vm| vm.wait_boot().unwrap());
    ringway.wait_links(&["vm0", "vm1"]).unwrap();
    let log = ringway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("share=on")).collect();
    assert!(told.len() == 1 && told[0].contains("port=vm1"), "{log}");
}

#[test]
fn guests_outlive_restarts_of_the_switch() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    // One with packed rings: no VMM can tell where a killed back-end was in those.
    let (mut ringway, [mut a, mut b]) = pair(dir.path());
    for round in 0..3 {
        // Frames are on their way both ways, and go round the rings.
        let flood = a.begin(&format!("ping -q -c 400 -i 0.005 -s 1000 {}", address(1))).unwrap();
        wait::until("frames", LIMIT, Duration::from_millis(20), || {
            Ok((ringway.counters("vm0")?.rx_packets > 100).then_some(()))
        })
        .unwrap();
        // Killed, not stopped: its sockets are left behind and nobody was told.
        ringway.signal(Signal::KILL).unwrap();
        drop(ringway);
        ringway = switch(dir.path(), 2, "");
        ringway.wait_rings(&["vm0", "vm1"], 2).unwrap();
        a.finish(&flood, LIMIT).unwrap();
        for (vm, other) in [(&mut a, address(1)), (&mut b, address(0))] {
            let answered = vm.ping(&other, "-c 20 -i 0.05");
            assert!(answered.is_ok(), "round {round}: {answered:?}\n{}", ringway.log());
        }
    }
    traffic::transfer(&mut a, &mut b, &address(1), 16).unwrap();
    traffic::transfer(&mut b, &mut a, &address(0), 16).unwrap();
    println!("{}", ringway.log());
}
