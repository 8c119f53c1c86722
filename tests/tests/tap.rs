//! TAP ports: the host's kernel on both sides of `ringway switch`, in network namespaces.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use e2e::{Netns, Peer, Ringway, require, traffic};

const MIB: u32 = 64;

#[test]
fn the_host_kernel_talks_to_itself_through_two_taps() {
    let Some(_turn) = require(&[Peer::Netns]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
    let mut ringway =
        Ringway::switch_in(&left, dir.path(), &["a=tap:rwa", "b=tap:rwb"], "0").unwrap();
    left.sh(&format!("ip link set rwb netns {}", right.name())).unwrap();
    for (ns, interface, address) in [(&left, "rwa", "10.1.0.1"), (&right, "rwb", "10.1.0.2")] {
        ns.sh(&format!("ip address add {address}/24 dev {interface}")).unwrap();
        ns.sh(&format!("ip link set {interface} up")).unwrap();
    }
    ringway.wait_links(&["a", "b"]).unwrap();
    let text = left.sh("ping -q -c 100 -i 0.01 10.1.0.2").unwrap();
    assert!(text.contains(" 0% packet loss"), "{text}");
    // A frame as large as may be, which must not be broken up.
    left.sh("ping -q -c 3 -i 0.01 -M do -s 1472 10.1.0.2").unwrap();
    traffic::transfer_between(&left, &right, "10.1.0.2", MIB).unwrap();
    traffic::transfer_between(&right, &left, "10.1.0.1", MIB).unwrap();
    let counters = ringway.counters("a").unwrap();
    assert!(
        counters.rx_bytes > u64::from(MIB) << 20 && counters.tx_bytes > u64::from(MIB) << 20,
        "{counters:?}"
    );
    assert!(ringway.stop(Duration::from_secs(1)).unwrap().success());
    assert!(left.sh("ip link show rwa").is_err(), "the interface is left over");
}
