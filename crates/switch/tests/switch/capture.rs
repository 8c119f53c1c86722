//! Captures of a running switch.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::{BROADCAST, Peer, frame, mac, port, wait_until};
use switch::capture::Direction::{self, In, Out};
use switch::{Capture, CaptureReader, PortLimits, PortOptions, PortVlan, Switch, SwitchConfig};

/// What was captured: port, direction, reason, bytes.
type Seen = (String, Direction, Option<&'static str>, Vec<u8>);

fn start(workers: usize) -> Switch {
    Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap()
}

fn add(switch: &Switch, name: &str, options: &PortOptions) -> Arc<Peer> {
    let (open, peer) = port(name, 1);
    switch.add_port(open, options).unwrap();
    peer
}

fn of(ports: &[&str]) -> Capture {
    let ports = ports.iter().map(|port| (*port).to_owned()).collect();
    Capture { ports: Some(ports), ..Capture::default() }
}

/// Waits for so many frames.
fn read(reader: &mut CaptureReader, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    wait_until("frames are captured", || {
        let ports = reader.ports();
        reader.read(|one| {
            let reason = one.dropped.map(ethdev::DropReason::name);
            seen.push((
                ports.get(one.port).unwrap().name.clone(),
                one.direction,
                reason,
                one.bytes.to_vec(),
            ));
        });
        seen.len() >= count
    });
    seen
}

fn seen(port: &str, direction: Direction, reason: Option<&'static str>, bytes: &[u8]) -> Seen {
    (port.to_owned(), direction, reason, bytes.to_vec())
}

#[test]
fn what_passes_is_captured_where_it_comes_in_and_where_it_goes_out() {
    for workers in [1, 3] {
        let switch = start(workers);
        let [a, b, c] = ["a", "b", "c"].map(|name| add(&switch, name, &PortOptions::default()));
        let mut all = switch.capture(&Capture::default()).unwrap();
        let mut one = switch.capture(&of(&["b"])).unwrap();
        let first = frame(BROADCAST, mac(1), 1);
        a.send(0, [first.clone()]);
        b.receive(1);
        c.receive(1);
        let mut found = read(&mut all, 3);
        assert_eq!(found.remove(0), seen("a", In, None, &first));
        found.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found, ["b", "c"].map(|port| seen(port, Out, None, &first)));
        assert_eq!(read(&mut one, 1), [seen("b", Out, None, &first)]);
        // A port that is there again is captured again; one that comes only where all are.
        drop(b);
        switch.remove_port("b").unwrap();
        let [b, d] = ["b", "d"].map(|name| add(&switch, name, &PortOptions::default()));
        let second = frame(mac(1), mac(2), 2);
        b.send(0, [second.clone()]);
        assert_eq!(a.receive(1), std::slice::from_ref(&second));
        assert_eq!(read(&mut one, 1), [seen("b", In, None, &second)]);
        d.send(0, [frame(mac(1), mac(4), 3)]);
        assert_eq!(read(&mut all, 4).len(), 4);
        assert_eq!((one.read(|_| {}), all.missed(0), d.arrived()), (0, 0, 0));
        // Whoever works, it goes on.
        switch.set_workers(&[], 4 - workers).unwrap();
        a.send(0, [frame(mac(4), mac(1), 4)]);
        d.receive(1);
        assert_eq!(read(&mut all, 2).len(), 2);
        drop((all, one));
        a.send(0, [frame(mac(4), mac(1), 5)]);
        d.receive(1);
    }
}

#[test]
fn what_is_dropped_is_captured_with_its_reason() {
    let switch = start(1);
    let vlan = |tag| PortVlan { tag: Some(tag), ..PortVlan::default() };
    let limits: PortLimits = serde_json::from_str(r#"{"tx-packet-rate":1}"#).unwrap();
    let a = add(&switch, "a", &PortOptions { vlan: vlan(7), ..PortOptions::default() });
    let b = add(&switch, "b", &PortOptions { vlan: vlan(7), limits, ..PortOptions::default() });
    let c = add(&switch, "c", &PortOptions { vlan: vlan(7), ..PortOptions::default() });
    let mut reader = switch.capture(&Capture { dropped: true, ..Capture::default() }).unwrap();
    // The others are learnt, and let through.
    b.send(0, [frame(mac(1), mac(2), 0)]);
    c.send(0, [frame(mac(1), mac(3), 0)]);
    a.receive(2);
    b.receive(1);
    c.receive(1);
    let hairpin = frame(mac(1), mac(1), 1);
    let bad = frame(mac(2), BROADCAST, 2);
    let reserved = frame(packet::MacAddr([1, 0x80, 0xC2, 0, 0, 0]), mac(1), 3);
    let good = frame(mac(3), mac(1), 4);
    let short = vec![0; 9];
    a.send(0, [&hairpin, &bad, &good, &reserved, &short].map(Clone::clone));
    assert_eq!(c.receive(1), std::slice::from_ref(&good));
    let found = read(&mut reader, 4);
    assert_eq!(
        found,
        [
            seen("a", In, Some("hairpin"), &hairpin),
            seen("a", In, Some("bad_source"), &bad),
            seen("a", In, Some("reserved_multicast"), &reserved),
            seen("a", In, Some("too_short"), &short),
        ]
    );
    // On the way out: no room, one frame in two that fits, and more than may pass.
    c.room.store(1, SeqCst);
    a.send(0, [frame(mac(3), mac(1), 5), frame(mac(3), mac(1), 6)]);
    assert_eq!(
        read(&mut reader, 1),
        [seen("c", Out, Some("ring_full"), &frame(mac(3), mac(1), 6))]
    );
    let flood: Vec<_> = (0..255).map(|number| frame(mac(2), mac(1), number)).collect();
    a.send(0, flood.clone());
    a.send(0, flood);
    let limited = read(&mut reader, 1);
    let is_limited =
        |one: &Seen| (one.0.as_str(), one.1, one.2) == ("b", Out, Some("rate_limited"));
    assert!(limited.iter().all(is_limited), "{limited:?}");
    let counted = || switch.port("b").unwrap().stats.tx_total().dropped();
    let mut count = limited.len() as u64;
    wait_until("all are captured", || {
        count += reader.read(|_| {}) as u64;
        a.pending() == 0 && count == counted()
    });
}

#[test]
fn frames_are_captured_as_the_receiver_gets_them() {
    let switch = start(1);
    let tag = PortVlan { tag: Some(7), ..PortVlan::default() };
    let a = add(&switch, "a", &PortOptions { vlan: tag, ..PortOptions::default() });
    let trunk = PortVlan { trunks: "1-9".parse().ok(), ..PortVlan::default() };
    let b = add(&switch, "b", &PortOptions { vlan: trunk, ..PortOptions::default() });
    let mut reader = switch.capture(&Capture { snaplen: 24, ..Capture::default() }).unwrap();
    let sent = frame(BROADCAST, mac(1), 1);
    a.send(0, [sent.clone()]);
    let got = b.receive(1).remove(0);
    assert_eq!(got[12..16], [0x81, 0, 0, 7]);
    let expected = [seen("a", In, None, &sent[..24]), seen("b", Out, None, &got[..24])];
    assert_eq!(read(&mut reader, 2), expected);
}

#[test]
fn patch_ports_are_ports() {
    let switch = start(1);
    switch.add_bridge("other", &switch::BridgeOptions::default()).unwrap();
    let other = || PortOptions { bridge: Some("other".to_owned()), ..PortOptions::default() };
    let a = add(&switch, "a", &PortOptions::default());
    let b = add(&switch, "b", &other());
    switch.open_port("p", "patch:q", &PortOptions::default()).unwrap();
    switch.open_port("q", "patch:p", &other()).unwrap();
    let mut reader = switch.capture(&Capture::default()).unwrap();
    let sent = frame(BROADCAST, mac(1), 1);
    a.send(0, [sent.clone()]);
    b.receive(1);
    let expected = [("a", In), ("p", Out), ("q", In), ("b", Out)];
    assert_eq!(read(&mut reader, 4), expected.map(|(port, way)| seen(port, way, None, &sent)));
    switch.remove_port("b").unwrap();
    a.send(0, [sent.clone()]);
    let found = read(&mut reader, 3);
    assert_eq!(found.last(), Some(&seen("q", In, Some("link_down"), &sent)));
}

#[test]
fn there_are_so_many_captures_at_most_and_of_ports_that_there_are() {
    let switch = start(1);
    let _a = add(&switch, "a", &PortOptions::default());
    let error = switch.capture(&of(&["a", "x"])).unwrap_err().to_string();
    assert!(error.contains("no port 'x'"), "{error}");
    let some: Vec<_> =
        (0..switch::MAX_CAPTURES).map(|_| switch.capture(&of(&["a"])).unwrap()).collect();
    let error = switch.capture(&of(&["a"])).unwrap_err().to_string();
    assert!(error.contains("8 captures already"), "{error}");
    drop(some);
    let error = switch.capture(&Capture { snaplen: 0, ..of(&["a"]) }).unwrap_err().to_string();
    assert!(error.contains("capture: snaplen 0"), "{error}");
    switch.capture(&of(&["a"])).unwrap();
}
