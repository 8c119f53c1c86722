//! The harness itself, on peers alone: what fails here is not Ringway's fault.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{
    GuestImage, Model, Netns, Nic, Ovs, PciNic, Peer, Qemu, Relay, Testpmd, Vm, Wire, pci,
    require_shared, traffic, wait,
};

const LIMIT: Duration = Duration::from_secs(180);

/// The time that a guest sees is the test's, whatever else the machine did when it booted.
fn the_clock_is_right(vm: &mut Vm) {
    let mut uptime = || {
        let before = Instant::now();
        let text = vm.sh("cat /proc/uptime").unwrap();
        let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
        (before, seconds, Instant::now())
    };
    let first = uptime();
    std::thread::sleep(Duration::from_secs(1));
    let last = uptime();
    let (least, most) = (last.0 - first.2, last.2 - first.0);
    let passed = last.1 - first.1;
    // It tells hundredths of a second.
    let range = least.as_secs_f64() * 0.98 - 0.02..most.as_secs_f64() * 1.02 + 0.02;
    assert!(range.contains(&passed), "{passed} seconds in the guest, here {range:?}");
}

#[test]
fn a_guest_boots_runs_commands_and_resets() {
    let Some(_turn) = require_shared(&[Peer::Guest]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = GuestImage::network().unwrap();
    let start = Instant::now();
    let mut vm = Qemu::new("a", &image).cpus(2).booting().start(dir.path()).unwrap();
    vm.wait_boot().unwrap();
    println!("booted in {:?}", start.elapsed());
    the_clock_is_right(&mut vm);
    assert_eq!(vm.sh("nproc").unwrap(), "2\n");
    let failed = vm.run("echo 'two\nlines'; exit 7").unwrap();
    assert_eq!((failed.status, failed.text.as_str()), (7, "two\nlines\n"));
    for word in ["first", "second"] {
        let program =
            format!("{{ until [ -e /tmp/{word} ]; do usleep 10000; done; echo {word}; }}");
        vm.spawn("program", &program).unwrap();
        // Not what the one before has said.
        assert_eq!(vm.sh("cat /tmp/program.log").unwrap(), "");
        vm.sh(&format!("touch /tmp/{word}; until [ -s /tmp/program.log ]; do usleep 10000; done"))
            .unwrap();
        assert_eq!(vm.sh("cat /tmp/program.log").unwrap(), format!("{word}\n"));
    }
    vm.spawn("program", "sleep 1000").unwrap();
    vm.end("program", "TERM").unwrap();
    vm.sh("touch /tmp/before").unwrap();
    vm.reset().unwrap();
    vm.wait_boot().unwrap();
    assert_eq!(vm.run("test -e /tmp/before").unwrap().status, 1);
    vm.kill();
    assert!(!vm.is_running());
}

/// Frames from pcap files cross a forwarding vhost back-end and end in pcap files.
#[test]
fn a_relay_through_testpmd_compares_contents() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    for queues in [1, 4] {
        let dir = tempfile::tempdir().unwrap();
        let socket = |n: u8| dir.path().join(format!("s{n}")).display().to_string();
        let back = |n: u8| format!("net_vhost{n},iface={},queues={queues}", socket(n));
        let vhost = Testpmd::new().queues(queues).vdev(back(0)).vdev(back(1));
        let mut vhost = vhost.start().unwrap();
        vhost.command("start").unwrap();
        let front = |n: u8| format!("net_virtio_user{n},path={},queues={queues},cq=1", socket(n));
        // No more than one ring holds, of the largest five buffers each: a back-end that gets
        // no processor time for a while must lose nothing.
        let relay = Relay::new(front(0), front(1))
            .queues(queues)
            .frames(&[60, 1514, 9014], 96 / u32::from(queues))
            .start(dir.path(), 1)
            .unwrap();
        vhost.wait_rings(&[0, 1], 2 * usize::from(queues)).unwrap();
        relay.forward().unwrap();
        vhost.quit().unwrap();
    }
}

/// Two virtio-user ports play ping-pong through a vhost back-end that counts its cycles.
#[test]
fn testpmd_forwards_between_two_virtio_user_ports() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = |n: u8| dir.path().join(format!("s{n}")).display().to_string();
    let vhost = Testpmd::new()
        .vdev(format!("net_vhost0,iface={}", socket(0)))
        .vdev(format!("net_vhost1,iface={}", socket(1)))
        .arguments(["--record-core-cycles"]);
    let mut vhost = vhost.start().unwrap();
    let user = Testpmd::new()
        .cpu(1)
        .vdev(format!("net_virtio_user0,path={}", socket(0)))
        .vdev(format!("net_virtio_user1,path={}", socket(1)));
    let mut user = user.start().unwrap();
    vhost.wait_link(0, LIMIT).unwrap();
    vhost.wait_link(1, LIMIT).unwrap();
    vhost.command("start").unwrap();
    user.command("start tx_first 4").unwrap();
    user.wait_stats(0, LIMIT, |stats| stats.rx_packets > 100_000).unwrap();
    let (cycles, packets) = vhost.busy_cycles().unwrap();
    assert!(packets > 100_000 && cycles > packets, "{cycles} {packets}");
    user.kill();
    vhost.quit().unwrap();
}

#[test]
fn ovs_starts_carries_frames_and_stops() {
    let Some(_turn) = require_shared(&[Peer::Ovs, Peer::Dpdk]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let ovs = Ovs::start(dir.path(), 0).unwrap();
    let socket = |n: u8| dir.path().join(format!("s{n}"));
    ovs.add_vhost_client("v0", &socket(0)).unwrap();
    ovs.add_vhost_client("v1", &socket(1)).unwrap();
    let user = Testpmd::new()
        .cpu(1)
        .vdev(format!("net_virtio_user0,path={},server=1", socket(0).display()))
        .vdev(format!("net_virtio_user1,path={},server=1", socket(1).display()));
    let mut user = user.start().unwrap();
    ovs.wait_link("v0").unwrap();
    ovs.wait_link("v1").unwrap();
    ovs.wait_rings(&socket(0), 2).unwrap();
    ovs.wait_rings(&socket(1), 2).unwrap();
    user.command("start tx_first 1").unwrap();
    user.wait_stats(1, LIMIT, |stats| stats.rx_packets > 1000).unwrap();
    let (received, sent) = ovs.packets("v1").unwrap();
    assert!(received > 0 && sent > 0, "{received} {sent}");
    user.quit().unwrap();
    ovs.stop().unwrap();
}

/// Two guests, with testpmd as the switch: QEMU's vhost-user front-end as the tests use it.
#[test]
fn two_guests_talk_through_testpmd() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Dpdk]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = |n: u8| dir.path().join(format!("s{n}"));
    let mut vhost = Testpmd::new()
        .vdev(format!("net_vhost0,iface={},queues=2", socket(0).display()))
        .vdev(format!("net_vhost1,iface={},queues=2", socket(1).display()))
        .queues(2)
        .start()
        .unwrap();
    let image = GuestImage::network().unwrap();
    let mut vms = [0, 1].map(|n: u8| {
        let nic = Nic::new(&socket(n), &format!("52:54:00:00:00:0{n}")).queues(2);
        Qemu::new(&format!("vm{n}"), &image).cpus(2).nic(nic).start(dir.path()).unwrap()
    });
    for (vm, address) in vms.iter_mut().zip(["10.0.0.1", "10.0.0.2"]) {
        vm.wait_boot().unwrap();
        traffic::configure(vm, address, 1500).unwrap();
    }
    // It polls from now on, and not while they start.
    vhost.command("start").unwrap();
    let [a, b] = &mut vms;
    assert_eq!(a.sh("ls -d /sys/class/net/eth0/queues/rx-* | wc -l").unwrap(), "2\n");
    a.ping("10.0.0.2", "-c 10 -i 0.1").unwrap();
    let time = traffic::transfer(a, b, "10.0.0.2", 8).unwrap();
    println!("8 MiB in {time:?}");
    vhost.quit().unwrap();
}

/// DPDK in a guest drives an igb and a virtio device over VFIO: what Ringway's drivers are to be
/// compared with.
#[test]
fn testpmd_in_a_guest_forwards_between_pci_devices() {
    let Some(_turn) = require_shared(&[Peer::Guest, Peer::Testpmd]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let wires = ["a", "b"].map(|name| Wire::new(dir.path(), name).unwrap());
    let nics = [
        PciNic::new(Model::Igb, 1, "52:54:00:00:00:01", &wires[0]),
        PciNic::new(Model::Virtio, 2, "52:54:00:00:00:02", &wires[1]),
    ];
    let image = pci::spec_with_testpmd().unwrap().build().unwrap();
    let qemu = nics.iter().fold(Qemu::new("a", &image).iommu(), Qemu::pci_nic);
    let mut vm = qemu.start(dir.path()).unwrap();
    vm.wait_boot().unwrap();
    vm.sh(&pci::huge_pages(96)).unwrap();
    vm.sh("modprobe vfio-pci && modprobe vfio_iommu_type1").unwrap();
    for nic in &nics {
        vm.sh(&pci::give_to_vfio(&nic.address())).unwrap();
    }
    // It ends when its standard input does, so that is kept open.
    let testpmd = "dpdk-testpmd --lcores 0@0,1@0 -m 128 --no-telemetry -- --forward-mode=io \
                   --total-num-mbufs=2048 --auto-start";
    vm.sh(&format!(
        "mkfifo /tmp/in; sleep 600 >/tmp/in & {testpmd} </tmp/in >/tmp/log 2>&1 & \
         echo $! >/tmp/pid"
    ))
    .unwrap();
    wait::until("testpmd", LIMIT, Duration::from_millis(200), || {
        let log = vm.sh("cat /tmp/log; [ -d /proc/$(cat /tmp/pid) ] || echo ended")?;
        ensure!(!log.ends_with("ended\n"), "{log}");
        Ok(log.contains("Press enter to exit").then_some(()))
    })
    .unwrap();
    for (from, to) in [(&wires[0], &wires[1]), (&wires[1], &wires[0])] {
        let frame = e2e::frames::frame([0x52, 0x54, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1], 200, 7);
        from.send(&frame).unwrap();
        to.receive_some(1, LIMIT, |received| received == frame).unwrap();
    }
}

#[test]
fn two_namespaces_talk_through_a_veth_pair() {
    let Some(_turn) = require_shared(&[Peer::Netns]) else { return };
    let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
    let (a, b) = (left.name().to_owned(), right.name().to_owned());
    left.sh(&format!("ip link add v0 type veth peer name v1 netns {b}")).unwrap();
    for (ns, interface, address) in [(&left, "v0", "10.1.0.1"), (&right, "v1", "10.1.0.2")] {
        ns.sh(&format!("ip address add {address}/24 dev {interface}")).unwrap();
        ns.sh(&format!("ip link set {interface} up")).unwrap();
    }
    traffic::transfer(&left, &right, "10.1.0.2", 1).unwrap();
    drop((left, right));
    let list = e2e::process::sh("ip netns list").unwrap();
    assert!(!list.contains(&a) && !list.contains(&b), "{list}");
}
