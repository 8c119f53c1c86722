//! Checksum and segmentation offloads between Linux guests, and guests without them.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{GuestImage, Netns, Nic, Peer, Qemu, Ringway, Vm, require_shared, traffic};

/// The worker's core; the guests may use all.
const CORES: &str = "1";

/// How long anything may take on a machine with other work.
const LIMIT: Duration = Duration::from_secs(60);

/// Mebibytes of a transfer, which go round rings dozens of times.
const MIB: u32 = 16;

/// Properties of a device whose driver takes no frame that is not complete.
const TAKES_NOTHING: &str = "guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off";

/// Properties of one whose driver leaves nothing to the device.
const SENDS_COMPLETE: &str = "csum=off,host_tso4=off,host_tso6=off,host_ecn=off";

/// A guest at 10.0.0.`n` whose network device has further properties, on its way to boot.
fn guest(dir: &Path, n: usize, properties: &str) -> Vm {
    let socket = dir.join(format!("vm{n}.sock"));
    let nic = Nic::new(&socket, &format!("52:54:00:00:00:{n:02x}")).options(properties);
    let image = GuestImage::network().unwrap();
    Qemu::new(&format!("vm{n}"), &image).nic(nic).start(dir).unwrap()
}

fn configure(vm: &mut Vm, n: usize) {
    vm.wait_boot().unwrap();
    traffic::configure(vm, &format!("10.0.0.{n}"), 1500).unwrap();
}

fn switch(dir: &Path, options: [&str; 2]) -> Ringway {
    let port = |n: usize, options: &str| {
        format!("vm{n}=vhost-user:{}{options}", dir.join(format!("vm{n}.sock")).display())
    };
    let [one, two] = options;
    Ringway::switch(dir, &[&port(1, one), &port(2, two)], CORES).unwrap()
}

/// Large segments that came from a port, and that went to it.
fn large(ringway: &Ringway, port: &str) -> (u64, u64) {
    let count = |side| ringway.extended(port, side, "_large_segments").unwrap();
    (count("rx"), count("tx"))
}

/// Asserts that the large segments that `from` sent went to `to` uncut, but for those that found its
/// ring full: a guest that gets no CPU for a while leaves it so, and TCP sends them again.
fn pass_uncut(ringway: &Ringway, from: &str, to: &str) {
    let (came, went) = (large(ringway, from).0, large(ringway, to).1);
    let dropped = ringway.counters(to).unwrap().tx_dropped;
    assert!(came > 100, "{came} came from {from}");
    assert!((went..=went + dropped).contains(&came), "{came} came, {went} went, {dropped} dropped");
}

/// How many errors of TCP checksums a guest has seen.
fn bad_checksums(vm: &mut Vm) -> u64 {
    let text = vm.sh("awk '/^Tcp: [0-9]/ { print $15 }' /proc/net/snmp").unwrap();
    text.trim().parse().unwrap()
}

/// Transfers both ways between guests with these properties, over ports with these options.
fn transfer(properties: [&str; 2], options: [&str; 2], check: impl FnOnce(&Ringway)) {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let ringway = switch(dir.path(), options);
    let mut one = guest(dir.path(), 1, properties[0]);
    let mut two = guest(dir.path(), 2, properties[1]);
    configure(&mut one, 1);
    configure(&mut two, 2);
    ringway.wait_links(&["vm1", "vm2"]).unwrap();
    one.ping("10.0.0.2", "-c 10 -i 0.02 -s 1472").unwrap();
    let there = traffic::transfer(&mut one, &mut two, "10.0.0.2", MIB).unwrap();
    let back = traffic::transfer(&mut two, &mut one, "10.0.0.1", MIB).unwrap();
    println!("{properties:?} {options:?}: {MIB} MiB in {there:?} and {back:?}");
    check(&ringway);
    for (vm, port) in [(&mut one, "vm1"), (&mut two, "vm2")] {
        assert_eq!(bad_checksums(vm), 0, "{port}");
        let counters = ringway.counters(port).unwrap();
        assert_eq!(counters.rx_dropped, 0, "{port}: {counters:?}");
    }
}

#[test]
fn large_segments_pass_uncut_between_guests_that_take_them() {
    transfer(["", ""], ["", ""], |ringway| {
        pass_uncut(ringway, "vm1", "vm2");
        pass_uncut(ringway, "vm2", "vm1");
        let counters = ringway.counters("vm2").unwrap();
        let cut = (u64::from(MIB) << 20) / 1448;
        assert!(counters.tx_packets < cut, "{counters:?}, cut it were {cut}");
    });
}

#[test]
fn packed_rings_and_unmerged_buffers_carry_them_too() {
    transfer(["packed=on", "packed=on,mrg_rxbuf=off"], ["", ""], |ringway| {
        pass_uncut(ringway, "vm1", "vm2");
        pass_uncut(ringway, "vm2", "vm1");
    });
}

#[test]
fn a_guest_that_takes_nothing_gets_complete_frames_within_its_mtu() {
    transfer(["", TAKES_NOTHING], ["", ""], |ringway| {
        let (from_one, to_one) = large(ringway, "vm1");
        let (from_two, to_two) = large(ringway, "vm2");
        assert!(from_one > 100, "the sender knows nothing of the receiver");
        assert_eq!((from_two, to_two), (to_one, 0));
    });
}

#[test]
fn a_guest_that_completes_its_frames_talks_to_one_that_does_not() {
    transfer([SENDS_COMPLETE, ""], ["", ""], |ringway| {
        let (from_one, to_one) = large(ringway, "vm1");
        assert_eq!(from_one, 0);
        assert!(to_one > 100);
    });
}

#[test]
fn a_port_without_offloads_works_with_one_that_has_them() {
    transfer(["", ""], [",offloads=off", ""], |ringway| {
        assert_eq!(large(ringway, "vm1"), (0, 0));
        assert!(large(ringway, "vm2").0 > 100);
    });
}

#[test]
fn a_guest_and_the_host_exchange_large_segments_over_tap() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Netns::new().unwrap();
    let port = format!("vm1=vhost-user:{}", dir.path().join("vm1.sock").display());
    let mut ringway = Ringway::switch_in(&host, dir.path(), &[&port, "up=tap:rwa"], CORES).unwrap();
    let mut vm = guest(dir.path(), 1, "");
    host.sh("ip address add 10.0.0.9/24 dev rwa").unwrap();
    configure(&mut vm, 1);
    ringway.wait_links(&["vm1", "up"]).unwrap();
    vm.ping("10.0.0.9", "-c 10 -i 0.02 -s 1472").unwrap();
    traffic::transfer(&host, &mut vm, "10.0.0.1", MIB).unwrap();
    traffic::transfer(&mut vm, &host, "10.0.0.9", MIB).unwrap();
    let (from, to) = large(&ringway, "vm1");
    assert!(from > 100 && to > 100, "{from} from the guest and {to} to it");
    assert_eq!(bad_checksums(&mut vm), 0);
    assert!(ringway.stop(LIMIT).unwrap().success());
}
