//! The driver against a model of a device.

use std::sync::Arc;
use std::time::Duration;

use eal::PeerEvent;
use virtio::Features;
use virtio_net::pci::model::{FIRST_CAPABILITY, Model, ModelWindows, NOTIFY_MULTIPLIER, Shape};

use super::VirtioPci;
use super::guest::{BYTES, Guest, SIZE, swapped};
use crate::device::{DeviceError, VdpaDevice};
use testkit::wait_for;

fn open(model: &Model) -> Result<Box<dyn VdpaDevice>, DeviceError> {
    let windows = Box::new(ModelWindows(model.clone()));
    VirtioPci::new(Arc::new(model.clone()), windows).map(|device| Box::new(device) as _)
}

fn guest(model: &Model, features: Features, pairs: u16) -> Guest {
    Guest::new(open(model).unwrap(), features, pairs)
}

/// Sends back whatever the device has sent.
fn echo(model: &Model) {
    let mut state = model.state();
    for pair in 0..state.sent.len() {
        while let Some(frame) = state.sent[pair].pop_front() {
            state.inject[pair].push_back(swapped(&frame));
        }
    }
}

/// Nothing is left of a session.
fn check_stopped(model: &Model) {
    assert_eq!((model.mapped(), model.connected()), (0, 0));
    let state = model.state();
    assert_eq!((state.status, state.violations, state.bus_master), (0, 0, false));
}

const FORMATS: [Features; 4] = [
    Features::empty(),
    Features::EVENT_IDX,
    Features::RING_PACKED,
    Features::RING_PACKED.union(Features::EVENT_IDX),
];

#[test]
fn the_device_serves_new_rings_itself_and_others_through_a_shadow() {
    for features in FORMATS {
        for pairs in [1, 2] {
            let model = Model::new(&Shape::default());
            let _running = model.run();
            let mut guest = guest(&model, features, pairs);
            for round in 0..4 {
                guest.start();
                let shadows = if round == 0 { 0 } else { u64::from(2 * pairs) };
                assert_eq!(guest.statistic("shadow_rings"), shadows);
                assert_eq!(guest.statistic("mapped_bytes"), BYTES as u64);
                guest.exchange(200, || echo(&model));
                // The interrupts of the device have reached the guest's files.
                for side in &guest.sides {
                    wait_for("an interrupt", || side.call.drain().unwrap());
                }
                guest.stop();
                check_stopped(&model);
            }
            assert_eq!(guest.statistic("device_starts"), 4);
            assert_eq!(guest.statistic("broken_rings") + guest.statistic("tx0_given_up"), 0);
        }
    }
}

#[test]
fn the_device_hears_how_many_pairs_are_in_use() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let mut guest = guest(&model, Features::empty(), 2);
    let mut setup = guest.setup();
    setup.rings[2].enabled = false;
    setup.rings[3].enabled = false;
    guest.device.start(setup).unwrap();
    let commands = || std::mem::take(&mut model.state().commands);
    assert_eq!(commands(), [vec![4, 0, 1, 0], vec![0, 0, 1], vec![0, 1, 1]]);
    guest.device.set_ring_enabled(2, true).unwrap();
    guest.device.set_ring_enabled(3, true).unwrap();
    assert_eq!(commands(), [[4, 0, 2, 0], [4, 0, 2, 0]]);
    guest.device.set_ring_enabled(2, false).unwrap();
    guest.device.set_ring_enabled(3, false).unwrap();
    assert_eq!(commands().last().unwrap(), &[4, 0, 1, 0]);
    // Of the first pair the device must be started anew.
    assert!(guest.device.set_ring_enabled(0, false).is_err());
    assert!(guest.device.set_ring_enabled(7, true).is_err());
    guest.device.stop();
    let mut setup = guest.setup();
    setup.rings[0].enabled = false;
    guest.device.start(setup).unwrap();
    assert!(!model.state().queues[0].enabled && model.state().queues[1].enabled);
    guest.stop();
    check_stopped(&model);
}

#[test]
fn files_are_replaced_while_it_runs() {
    for shadow in [false, true] {
        let model = Model::new(&Shape::default());
        let _running = model.run();
        let mut guest = guest(&model, Features::empty(), 1);
        if shadow {
            guest.start();
            guest.exchange(10, || echo(&model));
            guest.stop();
        }
        guest.start();
        for index in 0..2 {
            let (kick, call) = (PeerEvent::new().unwrap(), PeerEvent::new().unwrap());
            let device = &mut guest.device;
            device.set_ring_kick(index, Some(kick.clone())).unwrap();
            device.set_ring_call(index, Some(call.clone())).unwrap();
            wait_for("an interrupt: some may have been missed", || call.drain().unwrap());
            let side = &mut guest.sides[usize::from(index)];
            (side.kick, side.call) = (kick, call);
        }
        guest.exchange(100, || echo(&model));
        for side in &guest.sides {
            wait_for("an interrupt", || side.call.drain().unwrap());
        }
        let error = guest.device.set_ring_kick(1, None).unwrap_err().to_string();
        assert!(error.contains("polled"), "{error}");
        guest.device.set_ring_call(1, None).unwrap();
        assert!(guest.device.set_ring_kick(2, None).is_err());
        guest.stop();
        check_stopped(&model);
    }
}

#[test]
fn a_kick_rings_the_doorbell() {
    let model = Model::new(&Shape::default());
    let mut guest = guest(&model, Features::empty(), 1);
    model.doorbells.write32(0x3000 + 4, 77);
    // The control queue is served until the device runs, and then nothing is.
    let running = model.run();
    guest.start();
    drop(running);
    let wait = |what: &str, is_true: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_true() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    };
    wait("every ring is looked into at the start", &|| model.notified(1) & 0xffff == 1);
    model.doorbells.write32(0x3000 + 4, 77);
    let before = guest.statistic("tx0_kicks");
    guest.sides[1].kick.signal().unwrap();
    wait("a kick", &|| model.notified(1) & 0xffff == 1);
    wait("its count", &|| guest.statistic("tx0_kicks") == before + 1);
    guest.device.reset_statistics();
    assert_eq!(guest.statistic("tx0_kicks"), 0);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    type Spoil = fn(&Model, &mut crate::Setup);
    let cases: [(&str, Spoil); 8] = [
        ("the IOMMU cannot do these", |model, _| model.state().most_address = 0x4000_0000),
        ("refuses to work", |model, _| model.state().refuses = true),
        ("is gone", |model, _| model.state().gone = true),
        ("2 MSI-X vectors", |model, _| model.state().msix = 2),
        ("ring 1 has no kick file", |_, setup| setup.rings[1].kick = None),
        ("has no ring 9", |_, setup| setup.rings[1].index = 9),
        ("bit 57", |_, setup| setup.features |= 1 << 57),
        ("before virtio 1.0", |_, setup| setup.features = 0),
    ];
    for (reason, spoil) in cases {
        let model = Model::new(&Shape::default());
        let running = model.run();
        let mut guest = guest(&model, Features::empty(), 1);
        let mut setup = guest.setup();
        spoil(&model, &mut setup);
        let error = guest.device.start(setup).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(!guest.device.is_running() && guest.device.stop().is_empty());
        assert_eq!((model.mapped(), model.connected()), (0, 0), "{reason}");
        assert_eq!(guest.statistic("device_failed_starts"), 1);
        drop(running);
    }
}

#[test]
fn a_device_that_does_not_stop_has_no_memory_any_more() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let mut guest = guest(&model, Features::empty(), 1);
    guest.start();
    model.state().stuck = true;
    assert_eq!(guest.device.stop().len(), 2);
    assert_eq!((model.mapped(), model.connected()), (0, 0));
    assert!(!model.state().bus_master);
    let error = guest.device.start(guest.setup()).unwrap_err().to_string();
    assert!(error.contains("has not reset itself"), "{error}");
    model.state().stuck = false;
    guest.start();
}

#[test]
fn a_device_that_cannot_serve_a_guest_is_refused() {
    let refusal = |model: &Model| open(model).unwrap_err().to_string();
    let without =
        Shape { offered: Features::all() - Features::ACCESS_PLATFORM, ..Shape::default() };
    assert!(refusal(&Model::new(&without)).contains("iommu_platform=on"));
    let pieces = Shape { piece: 2 << 20, ..Shape::default() };
    assert!(refusal(&Model::new(&pieces)).contains("vDPA needs VFIO with an IOMMU"));
    let legacy = Shape { legacy: true, ..Shape::default() };
    assert!(refusal(&Model::new(&legacy)).contains("disable-legacy=on"));
}

#[test]
fn what_the_guest_gets_is_what_can_be_kept() {
    let model = Model::new(&Shape::default());
    let device = open(&model).unwrap();
    let offered = Features::from_bits_retain(device.features());
    assert!(offered.contains(Features::RING_PACKED | Features::EVENT_IDX | Features::MQ));
    let kept_back = Features::CTRL_VQ | Features::ACCESS_PLATFORM | Features::IN_ORDER;
    assert!(!offered.intersects(kept_back | Features::NOTIFICATION_DATA | Features::CTRL_RX));
    assert_eq!(device.queue_pairs(), 2);
    let alone = Features::all() - Features::CTRL_VQ;
    let device = open(&Model::new(&Shape { offered: alone, ..Shape::default() })).unwrap();
    assert_eq!(device.queue_pairs(), 1);
    assert_eq!(device.features() & Features::MQ.bits(), 0);
}

#[test]
fn a_ring_that_is_too_large_for_the_device_is_served_through_a_shadow() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let model = Model::new(&Shape { size: SIZE / 2, ..Shape::default() });
        let _running = model.run();
        let mut guest = guest(&model, features, 1);
        guest.start();
        assert_eq!(guest.statistic("shadow_rings"), 2);
        guest.exchange(300, || echo(&model));
        guest.stop();
        check_stopped(&model);
    }
}

#[test]
fn the_configuration_is_the_devices_and_changes_are_told() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let mut guest = guest(&model, Features::empty(), 1);
    let mut mac = [0; 6];
    guest.device.read_config(0, &mut mac).unwrap();
    assert_eq!(mac, [0x52, 0x54, 0, 0, 0, 1]);
    for (offset, len) in [(30, 3), (33, 0), (u32::MAX, 1)] {
        assert!(guest.device.read_config(offset, &mut vec![0; len]).is_err());
    }
    assert!(guest.device.write_config(0, &mac).is_err());
    guest.start();
    let changed = guest.device.config_changed().unwrap().try_clone().unwrap();
    assert!(!changed.drain().unwrap());
    model.set_status_word(0);
    wait_for("the change", || changed.drain().unwrap());
    model.need_reset();
    assert!(!guest.device.is_running());
    assert_eq!(guest.device.stop().len(), 2);
    check_stopped(&model);
    model.state().gone = true;
    assert!(guest.device.read_config(0, &mut mac).is_err());
}

#[test]
fn a_doorbell_at_the_start_of_its_page_can_be_mapped() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let mut guest = guest(&model, Features::empty(), 1);
    assert!(guest.device.notify_area(0).is_none(), "it does not run");
    guest.start();
    // There are 64 bytes of doorbells, and who knows what behind them.
    assert!(guest.device.notify_area(0).is_none());
    drop(guest);
    let notify = FIRST_CAPABILITY + 20;
    model.config()[notify + 12..notify + 16].copy_from_slice(&4096_u32.to_le_bytes());
    let mut guest = self::guest(&model, Features::empty(), 1);
    guest.start();
    let area = guest.device.notify_area(0).unwrap();
    assert_eq!((area.offset, area.len), (0x3000, 4096));
    // The next one is a few bytes behind it.
    assert_eq!(NOTIFY_MULTIPLIER, 4);
    assert!(guest.device.notify_area(1).is_none());
}

#[test]
fn dropping_it_stops_the_device() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let mut guest = guest(&model, Features::RING_PACKED, 1);
    guest.start();
    drop(guest);
    check_stopped(&model);
}

#[test]
fn everything_that_is_written_is_in_the_log() {
    for features in FORMATS {
        let model = Model::new(&Shape::default());
        let _running = model.run();
        let mut guest = guest(&model, features, 1);
        guest.start();
        guest.exchange(100, || echo(&model));
        let (before, marks, log) = guest.snapshot();
        guest.device.set_dirty_log(Some(log)).unwrap();
        assert!(guest.device.is_running());
        assert_eq!(guest.statistic("shadow_rings"), 2);
        guest.exchange(500, || echo(&model));
        let written = guest.check_log(&before, &marks);
        assert!(written > 30, "{written}");
        // Another log while it runs, and one that outlives a stop.
        let (before, marks, log) = guest.snapshot();
        guest.device.set_dirty_log(Some(log)).unwrap();
        guest.exchange(100, || echo(&model));
        guest.stop();
        guest.start();
        guest.exchange(100, || echo(&model));
        guest.stop();
        assert!(guest.check_log(&before, &marks) > 30);
        guest.device.set_dirty_log(None).unwrap();
        guest.start();
        guest.exchange(100, || echo(&model));
        assert_eq!(guest.statistic("rx0_given_up") + guest.statistic("tx0_given_up"), 0);
    }
}
