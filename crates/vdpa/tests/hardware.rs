//! A virtio network device on the PCI bus, driven by vDPA. It needs a machine whose devices nobody
//! else uses, and somebody at the other end of its cable who sends every frame back with addresses
//! swapped, so these are run by the end-to-end tests, in a guest, with the PCI address of the device
//! in `RINGWAY_TEST_VDPA`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::event::{Epoll, Events};
use eal::{Mapping, PeerEvent};
use vdpa::VdpaDevice;
use virtio::memory::Region;
use virtio::{Features, GuestMemory};

use vdpa::virtio_pci::guest::{BYTES, Doorbell, GUEST, Guest};

const LIMIT: Duration = Duration::from_secs(20);

fn device() -> Option<Box<dyn VdpaDevice>> {
    let address = std::env::var("RINGWAY_TEST_VDPA").ok()?;
    Some(vdpa::open(&format!("virtio-pci:{address}")).unwrap())
}

/// The processor time of the relay thread, in ticks.
fn relay_ticks() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut ticks = 0;
    for task in tasks {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        if stat.contains("(vdpa-") {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks
}

/// Not both at once: QEMU (seen in 10.0) does not move on the place that it wants to be notified at
/// in a packed ring when it goes on after its socket was full, so that a driver that keeps to it
/// does not notify any more.
const FORMATS: [Features; 3] = [Features::empty(), Features::EVENT_IDX, Features::RING_PACKED];

#[test]
#[ignore = "needs a device of its own"]
fn frames_pass_and_come_back_in_all_formats() {
    for features in FORMATS {
        for pairs in [1, 2] {
            let Some(device) = device() else { return };
            if device.queue_pairs() < pairs {
                continue;
            }
            let mut guest = Guest::new(device, features, pairs);
            guest.start();
            assert_eq!(guest.statistic("mapped_bytes"), BYTES as u64);
            assert_eq!(guest.statistic("shadow_rings"), 0);
            guest.exchange(300, || ());
            assert!(guest.statistic("tx0_kicks") > 0);
            guest.stop();
            assert_eq!(guest.statistic("mapped_bytes"), 0);
            println!("direct {features:?} {pairs}: bases {:x?}", guest.bases);
        }
    }
}

#[test]
#[ignore = "needs a device of its own"]
fn rings_go_on_where_they_were() {
    for features in FORMATS {
        let Some(device) = device() else { return };
        let mut guest = Guest::new(device, features, 1);
        for round in 0..4 {
            guest.start();
            assert_eq!(guest.statistic("shadow_rings"), if round == 0 { 0 } else { 2 });
            guest.exchange(200, || ());
            guest.stop();
        }
        assert!(guest.statistic("tx0_shadow_given") >= 600);
        assert_eq!(guest.statistic("rx0_given_up") + guest.statistic("tx0_given_up"), 0);
        assert_eq!(guest.statistic("broken_rings"), 0);
        println!("restarted {features:?}: bases {:x?}", guest.bases);
    }
}

#[test]
#[ignore = "needs a device of its own"]
fn a_mapped_doorbell_leaves_nothing_to_do() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let Some(device) = device() else { return };
        let mut guest = Guest::new(device, features, 1);
        guest.start();
        guest.map_doorbell(0);
        guest.map_doorbell(1);
        guest.exchange(100, || ());
        let (ticks, kicks) = (relay_ticks(), guest.statistic("tx0_kicks"));
        guest.exchange(2000, || ());
        assert_eq!(guest.statistic("tx0_kicks"), kicks);
        assert_eq!(relay_ticks(), ticks);
        println!("mapped doorbell: {} ticks of the relay", relay_ticks());
    }
}

/// From a signal to the answer of another thread that waits for it, at the median.
fn eventfd_round_trip() -> Duration {
    let (there, back) = (PeerEvent::new().unwrap(), PeerEvent::new().unwrap());
    let (their_there, their_back) = (there.clone(), back.clone());
    let thread = std::thread::spawn(move || {
        let mut waiter = Waiter::new(&their_there);
        for _ in 0..ROUNDS {
            waiter.wait();
            their_back.signal().unwrap();
        }
    });
    let mut waiter = Waiter::new(&back);
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        there.signal().unwrap();
        waiter.wait();
        start.elapsed()
    });
    let times = times.collect();
    thread.join().unwrap();
    median(times)
}

const ROUNDS: usize = 1000;

/// Waits for an event as the relay does.
struct Waiter {
    epoll: Epoll,
    events: Events,
}

impl Waiter {
    fn new(event: &PeerEvent) -> Self {
        let epoll = Epoll::new().unwrap();
        epoll.add_edge(event, 0).unwrap();
        Self { epoll, events: Events::new() }
    }

    fn wait(&mut self) {
        self.epoll.wait(&mut self.events, Some(LIMIT)).unwrap();
        assert!(!self.events.as_slice().is_empty());
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How long it takes until the device has sent a frame that it was notified of, at the median.
fn sending_time(guest: &mut Guest) -> Duration {
    let frame = [[0xff; 6], [2, 0, 0, 0, 0, 1], [0x88; 6], [0; 6]].concat();
    let mut waiter = Waiter::new(&guest.sides[1].call);
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        assert!(guest.send(0, &frame));
        waiter.wait();
        let time = start.elapsed();
        for (slot, _) in guest.sides[1].used() {
            guest.sides[1].free.push(slot);
        }
        time
    });
    median(times.collect())
}

#[test]
#[ignore = "needs a device of its own"]
fn the_relay_is_about_as_fast_as_an_eventfd() {
    let Some(device) = device() else { return };
    let mut guest = Guest::new(device, Features::empty(), 1);
    guest.start();
    guest.exchange(10, || ());
    let adds_little = (0..10).any(|_| {
        let plain = eventfd_round_trip();
        guest.sides[1].doorbell = Doorbell::Event;
        let relayed = sending_time(&mut guest);
        guest.map_doorbell(1);
        let mapped = sending_time(&mut guest);
        let added = relayed.saturating_sub(mapped);
        println!(
            "a frame takes {relayed:?} through the relay and {mapped:?} by a mapped doorbell, \
             which is {added:?} more; an eventfd round trip takes {plain:?}"
        );
        // Without optimization, as tests are compiled, it is up to two of them.
        added <= 3 * plain
    });
    // What else the machine does at the moment makes it look slower, never faster.
    assert!(adds_little, "the relay adds more than three times an eventfd round trip");
}

#[test]
#[ignore = "needs a device of its own"]
fn everything_that_is_written_is_in_the_log() {
    for features in FORMATS {
        let Some(device) = device() else { return };
        let mut guest = Guest::new(device, features, 1);
        guest.start();
        guest.exchange(100, || ());
        let (before, marks, log) = guest.snapshot();
        guest.device.set_dirty_log(Some(log)).unwrap();
        assert!(guest.device.is_running());
        assert_eq!(guest.statistic("shadow_rings"), 2);
        guest.exchange(500, || ());
        let written = guest.check_log(&before, &marks);
        assert!(written > 30, "{written}");
        // Another log while it runs, and one that outlives a stop.
        let (before, marks, log) = guest.snapshot();
        guest.device.set_dirty_log(Some(log)).unwrap();
        guest.exchange(100, || ());
        guest.stop();
        guest.start();
        guest.exchange(100, || ());
        guest.stop();
        assert!(guest.check_log(&before, &marks) > 30);
        guest.device.set_dirty_log(None).unwrap();
        guest.start();
        guest.exchange(100, || ());
        assert_eq!(guest.statistic("rx0_given_up") + guest.statistic("tx0_given_up"), 0);
    }
}

#[test]
#[ignore = "needs a device of its own"]
fn what_cannot_be_mapped_leaves_nothing_mapped() {
    let Some(device) = device() else { return };
    let mut guest = Guest::new(device, Features::empty(), 1);
    let mapping = |len: u64| Arc::new(Mapping::map(guest.memory.memory().fd(), 0, len).unwrap());
    let region =
        |guest_addr, user_addr, len| Region { guest_addr, user_addr, mapping: mapping(len) };
    for (what, regions, reason) in [
        (
            "the interrupt window",
            vec![
                region(GUEST, 0x7000_0000, BYTES as u64),
                region(0xfee0_0000, 0x9000_0000, 1 << 20),
            ],
            "0xfee00000",
        ),
        (
            "half a page",
            vec![region(GUEST, 0x7000_0000, BYTES as u64), region(0x8000_0000, 0x9000_0000, 6144)],
            "whole pages",
        ),
        (
            "an address that the IOMMU cannot do",
            vec![region(GUEST, 0x7000_0000, BYTES as u64), region(1 << 60, 0x9000_0000, 1 << 20)],
            "cannot do them",
        ),
    ] {
        let mut setup = guest.setup();
        setup.memory = Arc::new(GuestMemory::new(regions).unwrap());
        let error = guest.device.start(setup).unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
        println!("{what}: {error}");
        assert_eq!(guest.statistic("mapped_bytes"), 0);
    }
    let mut setup = guest.setup();
    setup.features |= Features::GUEST_UFO.bits() | Features::RSS.bits();
    let error = guest.device.start(setup).unwrap_err().to_string();
    assert!(error.contains("rss"), "{error}");
    // Nothing is in the way of a proper start: whatever those had mapped is gone.
    guest.start();
    guest.exchange(50, || ());
}
