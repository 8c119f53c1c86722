//! OVS-DPDK as the back-end of our virtio-user port.

#![allow(clippy::unwrap_used, reason = "test code")]

use e2e::{Ovs, Peer, Relay, Ringway, require_shared};

/// testpmd - OVS - `virtio-user:` port - our switch - `vhost-user:` port - testpmd.
#[test]
fn frames_cross_ovs_and_our_switch() {
    let Some(_turn) = require_shared(&[Peer::Ovs, Peer::Dpdk]) else { return };
    for queues in [1_u16, 2] {
        let dir = tempfile::tempdir().unwrap();
        let socket = |name: &str| dir.path().join(name);
        let ovs = Ovs::start(dir.path(), 0).unwrap();
        // OVS takes as many queues as the front-end has.
        ovs.add_vhost_client("left", &socket("left.sock")).unwrap();
        let trunk = ovs.add_vhost_server("uplink").unwrap();
        let uplink = format!("uplink=virtio-user:{},queues={queues}", trunk.display());
        let right = socket("right.sock").display().to_string();
        let port = format!("right=vhost-user:{right},queues={queues}");
        let ringway = Ringway::switch(dir.path(), &[&uplink, &port], "0").unwrap();
        let left = socket("left.sock").display().to_string();
        let relay = Relay::new(
            format!("net_virtio_user0,path={left},server=1,queues={queues},cq=1"),
            format!("net_virtio_user1,path={right},queues={queues},cq=1"),
        );
        let relay = relay.queues(queues).start(dir.path(), 1).unwrap();
        ovs.wait_link("left").unwrap();
        ovs.wait_link("uplink").unwrap();
        ovs.wait_rings(&socket("left.sock"), 2 * usize::from(queues)).unwrap();
        ovs.wait_rings(&trunk, 2 * usize::from(queues)).unwrap();
        ringway.wait_links(&["uplink"]).unwrap();
        ringway.wait_rings(&["right"], 2 * usize::from(queues)).unwrap();
        if let Err(error) = relay.forward() {
            let stats = ringway.show("stats").unwrap();
            panic!("{queues} queues: {error:?}\n{stats:#}\n{}\n{}", ringway.log(), ovs.log());
        }
        ovs.stop().unwrap();
    }
}
