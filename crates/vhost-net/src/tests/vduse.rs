//! The device as the kernel has it over VDUSE.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::Epoll;
use packet::MacAddr;
use proptest::prelude::*;
use vhost::control::Watcher;
use vhost::session::Device;
use vhost::testing::Recording;
use vhost::testing::kernel::{AVAIL, Fake, INDEX, LEN, RINGS};
use vhost::vduse::message::{Kind, Request};
use vhost::vduse::session::{FIRST_TOKEN, Session, VduseError};
use vhost::vduse::{Offer, RingInfo};
use virtio::Features;

use crate::NetDevice;

/// What the kernel of the tests has: less than the device could do.
fn offer() -> Offer {
    Offer::of(&Recording::new().0, 256, MacAddr([2, 0, 0, 0, 0, 1]), None)
}

#[test]
fn a_single_pair_has_no_control_queue() {
    let device = NetDevice::new("test", 1).unwrap();
    let offer = Offer::of(&device, 256, MacAddr([2, 0, 0, 0, 0, 9]), None);
    assert_eq!((offer.rings, offer.pairs), (2, 1));
    assert!(
        !offer
            .features
            .intersects(Features::CONTROL | Features::MQ | Features::MTU | Features::RING_PACKED)
    );
    let needed = Features::VERSION_1 | Features::ACCESS_PLATFORM | Features::MRG_RXBUF;
    assert!(offer.features.contains(needed | Features::HOST_TSO4 | Features::GUEST_TSO4));
    // Without it no driver would see that the link goes down.
    assert!(offer.features.contains(Features::MAC | Features::STATUS));
    assert!(!offer.features.contains(Features::VHOST_USER_PROTOCOL));
    assert_eq!(offer.config()[..12], [2, 0, 0, 0, 0, 9, 1, 0, 1, 0, 0, 0]);
}

#[test]
fn several_pairs_have_one() {
    let device = NetDevice::new("test", 4).unwrap();
    let offer = Offer::of(&device, 256, MacAddr([2, 0, 0, 0, 0, 9]), Some(9000));
    assert_eq!((offer.rings, offer.pairs), (9, 4));
    assert!(offer.features.contains(Features::CTRL_VQ | Features::MQ | Features::MTU));
    assert_eq!(offer.config()[8..12], [4, 0, 0x28, 0x23]);
}

#[test]
fn rings_that_make_no_sense_do_not_start_and_the_others_do() {
    for wrong in [
        RingInfo { size: 7, ..Fake::new().state().rings[0] },
        RingInfo { size: 0x10008, ..Fake::new().state().rings[0] },
        RingInfo { size: 0, ..Fake::new().state().rings[0] },
        RingInfo { desc: 1, ..Fake::new().state().rings[0] },
        RingInfo { device: RINGS + LEN - 4, ..Fake::new().state().rings[0] },
    ] {
        let fake = Fake::new();
        let offer = offer();
        let net = NetDevice::new("test", 2).unwrap();
        let mut device = Device { backend: Box::new(net), events: Box::new(|_| ()) };
        fake.state().rings[0] = wrong;
        fake.write(1, AVAIL + INDEX, 1);
        let watcher = Watcher::new(Arc::new(Epoll::new().unwrap()), 0);
        let now = Instant::now();
        let mut session =
            Session::open(Box::new(fake.clone()), &offer, watcher, &mut device, now).unwrap();
        fake.state().accepted = true;
        let request = |status| Request { id: 1, kind: Kind::Status(status) };
        for status in [3, 11, 15] {
            assert!(session.handle(&mut device, request(status), now).0.done);
        }
        let error = session.on_deadline(&mut device, now).unwrap_err();
        assert!(matches!(error, VduseError::Ring { index: 0, .. }), "{wrong:?}: {error}");
        let ask = Request { id: 2, kind: Kind::RingState(1) };
        assert_eq!(session.handle(&mut device, ask, now).0.ring, Some((1, 0)));
        session.close(&mut device);
    }
}

/// Something that happens to a session, from whichever side.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(Kind),
    Accept(bool),
    Features(u64),
    Ring(usize, RingInfo),
    Share(u64, u64, bool),
    Unshare,
    Kick(u16),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    // Numbers that mean something, and such that do not.
    let address =
        || prop_oneof![4 => (0_u64..0x40).prop_map(|n| RINGS + n * 0x200), 1 => any::<u64>()];
    let size = prop_oneof![4 => (0_u32..12).prop_map(|n| 1 << n), 1 => any::<u32>()];
    let ring = (size, address(), address(), address(), any::<u16>(), any::<bool>()).prop_map(
        |(size, desc, driver, device, base, ready)| RingInfo {
            size,
            desc,
            driver,
            device,
            base,
            ready,
        },
    );
    let status = prop::sample::select(vec![0, 1, 3, 11, 15, 4, 0x8f, 0xff]);
    prop_oneof![
        4 => status.prop_map(|status| Step::Ask(Kind::Status(status))),
        2 => Just(Step::Ask(Kind::MemoryChanged(0, u64::MAX))),
        1 => (0_u32..7).prop_map(|ring| Step::Ask(Kind::RingState(ring))),
        1 => any::<u32>().prop_map(|kind| Step::Ask(Kind::Unknown(kind))),
        3 => any::<bool>().prop_map(Step::Accept),
        1 => any::<u64>().prop_map(Step::Features),
        4 => (0_usize..5, ring).prop_map(|(index, info)| Step::Ring(index, info)),
        2 => (address(), 0_u64..0x20000, any::<bool>()).prop_map(|(a, l, w)| Step::Share(a, l, w)),
        1 => Just(Step::Unshare),
        3 => (0_u16..8).prop_map(Step::Kick),
        3 => (0_u64..300).prop_map(Step::Pass),
    ]
}

fn take(fake: &Fake, session: &mut Session, device: &mut Device, now: &mut Instant, step: Step) {
    match step {
        Step::Ask(kind) => {
            let (answer, error) = session.handle(device, Request { id: 9, kind }, *now);
            assert_eq!((answer.id, answer.done), (9, error.is_none()));
        }
        Step::Accept(accepted) => fake.state().accepted = accepted,
        Step::Features(features) => fake.state().features = features,
        Step::Ring(index, info) => fake.state().rings[index] = info,
        Step::Share(start, len, writable) => {
            fake.share(start & !0xfff & (u64::MAX >> 1), writable);
            if let Some((extent, _)) = fake.state().memory.last_mut() {
                extent.last = extent.start + len;
            }
        }
        Step::Unshare => drop(fake.state().memory.pop()),
        Step::Kick(ring) => drop(session.kicked(device, FIRST_TOKEN + ring)),
        Step::Pass(millis) => {
            *now += Duration::from_millis(millis);
            let _ = session.on_deadline(device, *now);
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_happens_breaks_a_session(
        steps in prop::collection::vec(step(), 1..60),
        accepted: bool,
    ) {
        let fake = Fake::new();
        fake.state().accepted = accepted;
        let offer = offer();
        let net = NetDevice::new("test", 2).unwrap();
        let slots = net.slots().to_vec();
        let mut device = Device { backend: Box::new(net), events: Box::new(|_| ()) };
        let watcher = Watcher::new(Arc::new(Epoll::new().unwrap()), 0);
        let mut now = Instant::now();
        let kernel = Box::new(fake.clone());
        let mut session = Session::open(kernel, &offer, watcher, &mut device, now).unwrap();
        for step in steps {
            take(&fake, &mut session, &mut device, &mut now, step);
        }
        session.close(&mut device);
        prop_assert!(slots.iter().all(|slot| !slot.is_ready()), "a ring still runs");
    }
}
