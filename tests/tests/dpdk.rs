//! DPDK's testpmd on both sides of a vhost-user socket.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::Path;

use e2e::{Peer, Relay, Ringway, Testpmd, require_shared, side_by_side};

const MERGING: &str = "mrg_rxbuf=1";

/// The ten argument sets of DPDK's virtio-user that its own test plans use. Where the CPU lacks what
/// a vectorized path needs (AVX-512 with packed rings) DPDK takes another.
const SETS: [&str; 10] = [
    "mrg_rxbuf=1,in_order=1",
    "mrg_rxbuf=0,in_order=1",
    "mrg_rxbuf=1,in_order=0",
    "mrg_rxbuf=0,in_order=0",
    "mrg_rxbuf=0,in_order=0,vectorized=1",
    "packed_vq=1,mrg_rxbuf=1,in_order=0",
    "packed_vq=1,mrg_rxbuf=0,in_order=0",
    "packed_vq=1,mrg_rxbuf=1,in_order=1",
    "packed_vq=1,mrg_rxbuf=0,in_order=1",
    "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1,queue_size=255",
];

fn socket(dir: &Path, n: u8) -> String {
    dir.join(format!("s{n}")).display().to_string()
}

/// What goes through the relay: no more in all than one ring of 256 entries holds, since a
/// switch with one worker sends to one queue of a port.
fn sized(relay: Relay, merging: bool, queues: u16) -> Relay {
    let queues = u32::from(queues);
    if merging {
        // Of the largest, each takes five buffers.
        relay.frames(&[60, 64, 65, 300, 1514, 9014], 120 / queues)
    } else {
        relay.frames(&[60, 64, 65, 128, 300, 1000, 1514], 200 / queues)
    }
}

/// Plays with every set of arguments, with one queue and with four. DPDK takes a second to start, and
/// another one to look at sockets of its own that are new: most of the time nobody has anything to
/// do, so some are played at the same time, as many as there are huge pages for.
fn with_each(sets: &'static [&'static str], play: fn(&str, u16)) {
    const AT_ONCE: usize = 3;
    let all: Vec<_> = sets.iter().flat_map(|set| [(*set, 1), (*set, 4)]).collect();
    side_by_side(AT_ONCE, &all, |(set, queues)| play(set, *queues));
}

#[test]
fn virtio_user_front_ends_talk_through_our_back_end() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    with_each(&SETS, |set, queues| {
        let dir = tempfile::tempdir().unwrap();
        let port = |n: u8| {
            let path = socket(dir.path(), n);
            format!("p{n}=vhost-user:{path},queues={queues},mtu=9000")
        };
        let ringway = Ringway::switch(dir.path(), &[&port(0), &port(1)], "0").unwrap();
        let front = |n: u8| {
            let path = socket(dir.path(), n);
            format!("net_virtio_user{n},path={path},queues={queues},cq=1,{set}")
        };
        let relay = Relay::new(front(0), front(1)).queues(queues);
        let relay = sized(relay, set.contains(MERGING), queues).start(dir.path(), 1).unwrap();
        ringway.wait_rings(&["p0", "p1"], 2 * usize::from(queues)).unwrap();
        if let Err(error) = relay.forward() {
            let stats = ringway.show("stats").unwrap();
            panic!("{set}, {queues} queues: {error:?}\n{stats:#}\n{}", ringway.log());
        }
    });
}

/// Our back-end as client: the front-end listens.
#[test]
fn virtio_user_servers_talk_through_our_back_end() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = |n: u8| format!("p{n}=vhost-user:{},client=on", socket(dir.path(), n));
    let ringway = Ringway::switch(dir.path(), &[&port(0), &port(1)], "0").unwrap();
    let front = |n: u8| format!("net_virtio_user{n},path={},server=1", socket(dir.path(), n));
    for round in 0..2 {
        // The second round is after a reconnect.
        let relay = Relay::new(front(0), front(1)).start(dir.path(), 1).unwrap();
        ringway.wait_rings(&["p0", "p1"], 2).unwrap();
        if let Err(error) = relay.forward() {
            panic!("round {round}: {error:?}\n{}", ringway.log());
        }
    }
}

/// The argument sets of our own front-end, in the same spirit.
const OUR_SETS: [&str; 10] = [
    "mrg_rxbuf=on",
    "mrg_rxbuf=off",
    "mrg_rxbuf=on,indirect=off,event_idx=on",
    "mrg_rxbuf=off,indirect=off,queue_size=512",
    "version_1=off,mrg_rxbuf=off",
    "packed=on,mrg_rxbuf=on",
    "packed=on,mrg_rxbuf=off",
    "packed=on,mrg_rxbuf=on,in_order=on",
    "packed=on,mrg_rxbuf=off,in_order=on,indirect=off",
    "packed=on,mrg_rxbuf=off,in_order=on,event_idx=on,queue_size=255",
];

#[test]
fn our_front_end_talks_to_vhost_back_ends() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    with_each(&OUR_SETS, |set, queues| {
        let dir = tempfile::tempdir().unwrap();
        let back = |n: u8| format!("net_vhost{n},iface={},queues={queues}", socket(dir.path(), n));
        let relay = Relay::new(back(0), back(1)).queues(queues);
        let relay =
            sized(relay, set.contains("mrg_rxbuf=on"), queues).start(dir.path(), 1).unwrap();
        let port = |n: u8| {
            let path = socket(dir.path(), n);
            format!("p{n}=virtio-user:{path},queues={queues},mtu=9000,{set}")
        };
        let ringway = Ringway::switch(dir.path(), &[&port(0), &port(1)], "0").unwrap();
        ringway.wait_links(&["p0", "p1"]).unwrap();
        if let Err(error) = relay.forward() {
            let stats = ringway.show("stats").unwrap();
            panic!("{set}, {queues} queues: {error:?}\n{stats:#}\n{}", ringway.log());
        }
    });
}

/// Our front-end listens, and the back-end connects.
#[test]
fn our_front_end_as_server_talks_to_vhost_clients() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = |n: u8| format!("p{n}=virtio-user:{},server=on", socket(dir.path(), n));
    let ringway = Ringway::switch(dir.path(), &[&port(0), &port(1)], "0").unwrap();
    let back = |n: u8| format!("net_vhost{n},iface={},client=1", socket(dir.path(), n));
    for round in 0..2 {
        let relay = Relay::new(back(0), back(1)).start(dir.path(), 1).unwrap();
        ringway.wait_links(&["p0", "p1"]).unwrap();
        if let Err(error) = relay.forward() {
            panic!("round {round}: {error:?}\n{}", ringway.log());
        }
    }
}

/// DPDK asks for what it does not know of the translated memory, and forgets it when it likes.
#[test]
fn our_front_end_tells_dpdk_what_it_may_use() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    for set in ["packed=off", "packed=on"] {
        let dir = tempfile::tempdir().unwrap();
        let back = |n: u8| format!("net_vhost{n},iface={},iommu-support=1", socket(dir.path(), n));
        let relay = Relay::new(back(0), back(1)).start(dir.path(), 1).unwrap();
        let port = |n: u8| format!("p{n}=virtio-user:{},iommu=on,{set}", socket(dir.path(), n));
        let ringway = Ringway::switch(dir.path(), &[&port(0), &port(1)], "0").unwrap();
        ringway.wait_links(&["p0", "p1"]).unwrap();
        if let Err(error) = relay.forward() {
            panic!("{set}: {error:?}\n{}", ringway.log());
        }
    }
}

/// Front-ends that die in full flow do not harm the switch nor those that come after them.
#[test]
fn a_testpmd_that_dies_is_replaced() {
    let Some(_turn) = require_shared(&[Peer::Dpdk]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = |n: u8| format!("p{n}=vhost-user:{}", socket(dir.path(), n));
    let mut ringway = Ringway::switch(dir.path(), &[&port(0), &port(1)], "0").unwrap();
    let front = |n: u8| format!("net_virtio_user{n},path={}", socket(dir.path(), n));
    let limit = std::time::Duration::from_secs(60);
    for _ in 0..3 {
        let pair = Testpmd::new().cpu(1).vdev(front(0)).vdev(front(1));
        let mut pair = pair.start().unwrap();
        ringway.wait_rings(&["p0", "p1"], 2).unwrap();
        pair.command("start tx_first 2").unwrap();
        pair.wait_stats(0, limit, |stats| stats.rx_packets > 10_000).unwrap();
        // In full flow, with SIGKILL.
        pair.kill();
        assert!(ringway.is_running(), "{}", ringway.log());
    }
    let relay = Relay::new(front(0), front(1)).start(dir.path(), 1).unwrap();
    ringway.wait_rings(&["p0", "p1"], 2).unwrap();
    relay.forward().unwrap();
}
