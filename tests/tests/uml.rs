//! User Mode Linux guests, whose kernel is a vhost-user front-end of another make than QEMU's,
//! connected by `ringway switch`.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use e2e::{Guest, GuestImage, Peer, Ringway, Uml, ping, require_shared, traffic};

/// The worker's core; the guests may use all.
const CORES: &str = "1";

/// Mebibytes of a transfer, which go round rings dozens of times.
const MIB: u32 = 16;

/// A switch with a port for each of `count` guests.
fn switch(dir: &Path, count: usize, options: &str) -> Ringway {
    let socket = |n| dir.join(format!("uml{n}.sock"));
    let port = |n| format!("uml{n}=vhost-user:{}{options}", socket(n).display());
    let ports: Vec<String> = (0..count).map(port).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    Ringway::switch(dir, &ports, CORES).unwrap()
}

fn address(n: usize) -> String {
    format!("10.0.0.{}", n + 1)
}

/// Guest `n`, on its way to boot.
fn start(dir: &Path, n: usize) -> Guest {
    let image = GuestImage::user_mode().unwrap();
    let name = format!("uml{n}");
    Uml::new(&name, &image).nic(&dir.join(format!("{name}.sock"))).start(dir).unwrap()
}

fn configure(guest: &mut Guest, n: usize) {
    guest.wait_boot().unwrap();
    traffic::configure(guest, &address(n), 1500).unwrap();
}

/// A switch and `N` guests that have their addresses.
fn network<const N: usize>(dir: &Path) -> (Ringway, [Guest; N]) {
    let (ringway, guests) = network_of(dir, "");
    for n in 0..N {
        ringway.wait_links(&[&format!("uml{n}")]).unwrap();
    }
    (ringway, guests)
}

/// The same, with ports with these options, whose links are not up yet, perhaps.
fn network_of<const N: usize>(dir: &Path, options: &str) -> (Ringway, [Guest; N]) {
    let ringway = switch(dir, N, options);
    let mut guests = std::array::from_fn(|n| start(dir, n));
    for (n, guest) in guests.iter_mut().enumerate() {
        configure(guest, n);
    }
    (ringway, guests)
}

#[test]
fn two_guests_ping_and_exchange_tcp() {
    let Some(_turn) = require_shared(&[Peer::Uml]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ringway, [mut a, mut b]) = network(dir.path());
    a.ping(&address(1), "-c 50 -i 0.02").unwrap();
    b.ping(&address(0), "-c 50 -i 0.02 -s 1400").unwrap();
    let there = traffic::transfer(&mut a, &mut b, &address(1), MIB).unwrap();
    let back = traffic::transfer(&mut b, &mut a, &address(0), MIB).unwrap();
    println!("{MIB} MiB in {there:?} and {back:?}");
    let counters = ringway.counters("uml0").unwrap();
    // Each byte is counted once: headers, acknowledgements and what TCP sends again when a guest gets
    // no CPU for a while are less than as much again.
    let sent = u64::from(MIB) << 20;
    for bytes in [counters.rx_bytes, counters.tx_bytes] {
        assert!((sent..2 * sent).contains(&bytes), "{counters:?}");
    }
    // What the guest gets finds a full ring when it does not get on, which is TCP's own affair.
    assert_eq!(counters.rx_dropped, 0);
}

#[test]
fn a_guest_is_killed_while_the_others_go_on_and_another_takes_its_place() {
    let Some(_turn) = require_shared(&[Peer::Uml]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mut ringway, [mut a, mut b, mut c]) = network(dir.path());
    a.ping(&address(1), "-c 5 -i 0.05").unwrap();
    let pings = ping::line("ping", &address(1), "-c 1000").unwrap();
    let between = a.begin(&pings).unwrap();
    // The one that dies is sending, and is being sent to.
    let flood = c.begin(&format!("ping -q -c 1000 -i 0.005 {}", address(1))).unwrap();
    c.kill();
    drop((flood, c));
    let pings = a.finish(&between, Duration::from_secs(120)).unwrap();
    assert_eq!(pings.status, 0, "{}", pings.text);
    let mut c = start(dir.path(), 2);
    configure(&mut c, 2);
    c.ping(&address(0), "-c 20 -i 0.02").unwrap();
    c.ping(&address(1), "-c 20 -i 0.02").unwrap();
    b.ping(&address(2), "-c 20 -i 0.02").unwrap();
    assert!(ringway.is_running(), "{}", ringway.log());
    assert!(ringway.stop(Duration::from_secs(60)).unwrap().success(), "{}", ringway.log());
}

/// Every kick of a guest is a message then, and so is every notification of it.
#[test]
fn guests_talk_with_notifications_as_messages() {
    let Some(_turn) = require_shared(&[Peer::Uml]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ringway, [mut a, mut b]) = network_of(dir.path(), ",inband=on");
    // A ring starts when it is kicked for the first time, the link is up when both run. Each message
    // needs an answer, so a busy machine is given time to come to all of them.
    a.ping(&address(1), "-c 30 -i 0.1").unwrap();
    let there = traffic::transfer(&mut a, &mut b, &address(1), 8).unwrap();
    let back = traffic::transfer(&mut b, &mut a, &address(0), 8).unwrap();
    println!("8 MiB in {there:?} and {back:?}");
    let notified = ringway.extended("uml0", "tx", "guest_notifications").unwrap();
    assert!(notified > 0, "{notified}");
    // A guest that goes with a message on its way is followed by another.
    let flood = b.begin(&format!("ping -q -c 1000 -i 0.005 {}", address(0))).unwrap();
    b.kill();
    drop((flood, b));
    let mut b = start(dir.path(), 1);
    configure(&mut b, 1);
    b.ping(&address(0), "-c 20 -i 0.02").unwrap();
}
