use std::os::fd::OwnedFd;
use std::sync::Arc;

use eal::{Mapping, PeerEvent, SharedMemory};
use virtio::memory::Region;
use virtio::{Features, GuestMemory};

use super::abi;
use super::model::Model;
use super::{KernelDevice, KernelVdpa};
use crate::device::{DeviceError, Ring, Setup, VdpaDevice};
use testkit::wait_for;

const MEMORY: u64 = 0x10_0000;
const GUEST: Features = Features::VERSION_1.union(Features::MRG_RXBUF);

fn open(model: &Model) -> Result<KernelDevice, DeviceError> {
    KernelDevice::new("vhost-vdpa-0", Box::new(model.clone()))
}

/// What a front-end has: memory, and the files of rings.
struct Guest {
    file: SharedMemory,
    memory: Arc<GuestMemory>,
    kicks: Vec<PeerEvent>,
    calls: Vec<PeerEvent>,
}

impl Guest {
    /// With memory in two regions and files for `pairs` queue pairs.
    fn new(pairs: u16) -> Self {
        let file = SharedMemory::allocate("guest", 4 * 4096).unwrap();
        let region = |guest_addr: u64, offset: u64, len: u64| Region {
            guest_addr,
            user_addr: guest_addr + (1 << 40),
            mapping: Arc::new(Mapping::map(file.fd(), offset, len).unwrap()),
        };
        let regions = vec![region(MEMORY, 0, 8192), region(0, 8192, 4096)];
        let memory = Arc::new(GuestMemory::new(regions).unwrap());
        let files = || (0..2 * pairs).map(|_| PeerEvent::new().unwrap()).collect();
        Self { file, memory, kicks: files(), calls: files() }
    }

    fn setup(&self, features: Features) -> Setup {
        let ring = |(index, (kick, call)): (u16, (&PeerEvent, &PeerEvent))| Ring {
            index,
            size: 16,
            descriptors: MEMORY,
            driver: MEMORY + 0x800,
            device: MEMORY + 0x1000,
            base: u32::from(index) + 7,
            enabled: true,
            kick: Some(kick.clone()),
            call: Some(call.clone()),
        };
        let rings = (0..).zip(self.kicks.iter().zip(&self.calls)).map(ring).collect();
        Setup { features: features.bits(), memory: Arc::clone(&self.memory), rings }
    }

    /// Writes the index of the used ring, where [`setup`](Self::setup) says that it is.
    fn set_used_index(&self, index: u16) {
        // SAFETY: inside of the memory, to which no reference exists.
        unsafe { self.file.as_ptr().add(0x1002).cast::<u16>().write_volatile(index) };
    }
}

/// Everything that the device was given has been taken away from it.
fn assert_stopped(model: &Model) {
    let state = model.lock();
    assert_eq!((state.status, state.maps.len(), state.batch), (0, 0, None));
    assert!(state.config_call.is_none());
    assert!(state.rings.iter().all(|ring| ring.kick.is_none() && ring.call.is_none()));
    assert_eq!(state.violations, [""; 0]);
}

#[test]
fn a_device_is_started_with_the_guests_memory_and_rings() {
    let (model, guest) = (Model::new(1), Guest::new(1));
    let mut device = open(&model).unwrap();
    assert_eq!((device.name(), device.queue_pairs()), ("vhost-vdpa-0", 1));
    let offered = Features::from_bits_retain(device.features());
    assert_eq!(
        offered,
        GUEST | Features::MAC | Features::STATUS | Features::RING_PACKED,
        "neither what needs the control queue nor what is between the kernel and the device"
    );
    assert!(!device.is_running());
    assert!(!model.lock().stale, "it has let go of what another process had mapped");
    device.start(guest.setup(GUEST)).unwrap();
    assert!(device.is_running());
    {
        let state = model.lock();
        assert_eq!(state.status, 15);
        assert_eq!(state.accepted, GUEST | Features::ACCESS_PLATFORM);
        let mut maps: Vec<_> = state.maps.iter().map(|(s, p)| (*s, p.iova, p.len)).collect();
        maps.sort_unstable();
        assert_eq!(maps, [(0, 0, 4096), (0, MEMORY, 8192)]);
        let mapping = &guest.memory.regions()[1].mapping;
        let piece = &state.maps.iter().find(|(_, piece)| piece.iova == MEMORY).unwrap().1;
        assert_eq!(piece.host_address(), mapping.ptr().addr().get() as u64);
        for (ring, base) in state.rings.iter().zip([7, 8]) {
            assert_eq!((ring.size, ring.base, ring.enabled), (16, base, true));
            let addresses = ring.addresses.unwrap();
            assert_eq!(
                (addresses.descriptors, addresses.driver, addresses.device),
                (MEMORY, MEMORY + 0x800, MEMORY + 0x1000)
            );
        }
        assert!(!state.rings[2].enabled, "one pair needs no control queue");
        assert!(state.config_call.is_some());
    }
    for kick in &guest.kicks {
        wait_for("what waits is noticed", || kick.drain().unwrap());
    }
    let bytes = device.statistics().into_iter().find(|one| one.name == "mapped_bytes");
    assert_eq!(bytes.unwrap().value, 3 * 4096);
    assert!(device.start(guest.setup(GUEST)).unwrap_err().0.contains("already"));
    device.stop();
    assert_stopped(&model);
    assert!(!device.is_running());
    assert_eq!(device.stop(), []);
}

#[test]
fn bases_come_from_the_device_or_from_the_used_ring() {
    let guest = Guest::new(1);
    guest.set_used_index(0xFFFE);
    let run = |model: &Model, features, change: fn(&mut Setup)| {
        let mut device = open(model).unwrap();
        let mut setup = guest.setup(features);
        change(&mut setup);
        device.start(setup).unwrap();
        for (ring, base) in model.lock().rings.iter_mut().zip([100, 101]) {
            ring.base = base;
        }
        let bases = device.stop();
        assert_stopped(model);
        bases
    };
    let model = Model::new(1);
    assert_eq!(run(&model, GUEST, |_| ()), [(0, 100), (1, 101)]);
    let without = Model::new(1);
    without.lock().backend &= !abi::SUSPEND;
    assert_eq!(run(&without, GUEST, |_| ()), [(0, 0xFFFE), (1, 0xFFFE)]);
    assert_eq!(run(&without, GUEST | Features::RING_PACKED, |_| ()), [(0, 100), (1, 101)]);
    without.lock().fails = Some(("ring_base", libc::EIO));
    assert_eq!(run(&without, GUEST | Features::RING_PACKED, |_| ()), [(0, 7), (1, 8)]);
    let disabled = |setup: &mut Setup| setup.rings[1].enabled = false;
    assert_eq!(run(&without, GUEST, disabled), [(0, 0xFFFE), (1, 8)], "it did not run");
    model.lock().fails = Some(("suspend", libc::EIO));
    assert_eq!(run(&model, GUEST, |_| ()), [(0, 0xFFFE), (1, 0xFFFE)]);
}

#[test]
fn a_device_that_is_dropped_stops() {
    let (model, guest) = (Model::new(1), Guest::new(1));
    let mut device = open(&model).unwrap();
    device.start(guest.setup(GUEST)).unwrap();
    drop(device);
    assert_stopped(&model);
}

#[test]
fn several_pairs_run_by_a_command_in_a_space_of_its_own() {
    let (model, guest) = (Model::new(2), Guest::new(2));
    let served = model.serve();
    let mut device = open(&model).unwrap();
    assert_eq!(device.queue_pairs(), 2);
    let features = GUEST | Features::MQ;
    assert!(Features::from_bits_retain(device.features()).contains(features));
    device.start(guest.setup(features)).unwrap();
    {
        let state = model.lock();
        assert_eq!(state.pairs, [2]);
        assert!(state.accepted.contains(Features::MQ | Features::CTRL_VQ));
        assert_eq!(state.groups, [0, 1]);
        assert_eq!(state.maps.iter().filter(|(space, _)| *space == 1).count(), 1);
        assert!(state.rings[4].enabled);
    }
    device.stop();
    assert_stopped(&model);
    drop(served);
}

#[test]
fn the_control_queue_can_be_beside_the_guests_memory() {
    let (model, guest) = (Model::new(2), Guest::new(2));
    model.lock().spaces = 1;
    let served = model.serve();
    let mut device = open(&model).unwrap();
    device.start(guest.setup(GUEST | Features::MQ)).unwrap();
    {
        let state = model.lock();
        assert_eq!(state.pairs, [2]);
        assert_eq!(state.maps.last().unwrap().0, 0);
        assert_eq!(state.maps.last().unwrap().1.iova, MEMORY + 8192);
    }
    device.stop();
    assert_stopped(&model);
    // Behind the guest's memory there is no room: between its two regions.
    model.lock().range = (0, MEMORY + 8191);
    let mut device = open(&model).unwrap();
    device.start(guest.setup(GUEST | Features::MQ)).unwrap();
    assert_eq!(model.lock().maps.last().unwrap().1.iova, 4096);
    device.stop();
    assert_stopped(&model);
    drop(served);
}

#[test]
fn a_device_that_does_not_do_as_it_is_told_is_stopped() {
    let (model, guest) = (Model::new(2), Guest::new(2));
    let served = model.serve();
    let mut device = open(&model).unwrap();
    model.lock().ack = Some(1);
    let reason = device.start(guest.setup(GUEST | Features::MQ)).unwrap_err().0;
    assert!(reason.contains("2 queue pairs"), "{reason}");
    assert_stopped(&model);
    model.lock().ack = None;
    let reason = device.start(guest.setup(GUEST | Features::MQ)).unwrap_err().0;
    assert!(reason.contains("not answered"), "{reason}");
    assert_stopped(&model);
    drop(served);
}

#[test]
fn whatever_fails_leaves_nothing_behind() {
    let guest = Guest::new(2);
    let methods = [
        "set_features",
        "iotlb",
        "third map",
        "set_config_call",
        "set_ring_size",
        "set_ring_addresses",
        "set_ring_base",
        "set_ring_kick",
        "set_ring_call",
        "set_ring_enabled",
    ];
    for method in methods {
        for spaces in [1, 2] {
            let model = Model::new(2);
            model.lock().spaces = spaces;
            let mut device = open(&model).unwrap();
            model.lock().fails = Some((method, libc::EIO));
            let error = device.start(guest.setup(GUEST | Features::MQ));
            assert!(error.is_err(), "{method}");
            assert!(!device.is_running());
            assert_stopped(&model);
        }
    }
    let (model, guest) = (Model::new(1), Guest::new(1));
    let mut device = open(&model).unwrap();
    for (refuses, text) in [(8, "refuses"), (4, "does not start")] {
        model.lock().refuses = refuses;
        let reason = device.start(guest.setup(GUEST)).unwrap_err().0;
        assert!(reason.contains(text), "{reason}");
        assert_stopped(&model);
    }
    model.lock().refuses = 0;
    device.start(guest.setup(GUEST)).unwrap();
}

#[test]
fn a_limit_of_locked_memory_is_named() {
    let (model, guest) = (Model::new(2), Guest::new(2));
    model.lock().spaces = 1;
    let mut device = open(&model).unwrap();
    model.lock().fails = Some(("third map", libc::ENOMEM));
    let reason = device.start(guest.setup(GUEST | Features::MQ)).unwrap_err().0;
    let limited = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    assert!(reason.contains("ulimit -l") || limited.is_none(), "{reason}");
    assert_stopped(&model);
}

#[test]
fn setups_that_the_device_cannot_have_are_refused_untouched() {
    let (model, guest) = (Model::new(1), Guest::new(1));
    model.lock().range = (0, MEMORY + 8191);
    let mut device = open(&model).unwrap();
    let mut refused = |change: fn(&mut Setup), text: &str| {
        let mut setup = guest.setup(GUEST);
        change(&mut setup);
        let reason = device.start(setup).unwrap_err().0;
        assert!(reason.contains(text), "{reason}");
        assert_eq!(model.lock().resets, 0);
    };
    refused(|setup| setup.features |= Features::IN_ORDER.bits(), "in_order");
    refused(|setup| setup.features |= Features::CTRL_VQ.bits(), "ctrl_vq");
    refused(|setup| setup.features |= 1 << 62, "negotiated: bit 62;");
    refused(|setup| setup.rings[1].index = 2, "ring 2");
    refused(|setup| setup.rings[1].index = 0, "ring 0");
    refused(|setup| setup.rings[0].size = 2048, "power of two up to 1024");
    refused(|setup| setup.rings[0].size = 12, "12 entries");
    refused(|setup| setup.rings[1].kick = None, "no kick file");
    drop(device);
    model.lock().range = (0, MEMORY + 8190);
    let reason = open(&model).unwrap().start(guest.setup(GUEST)).unwrap_err().0;
    assert!(reason.contains("outside"), "{reason}");
    assert_stopped(&model);
}

#[test]
fn devices_that_make_no_sense_are_not_opened() {
    let refused = |change: fn(&Model), text: &str| {
        let model = Model::new(2);
        change(&model);
        let reason = open(&model).unwrap_err().0;
        assert!(reason.contains(text), "{reason}");
    };
    refused(|model| model.lock().device_id = 2, "type 2");
    refused(|model| model.lock().fails = Some(("device_id", libc::ENOTTY)), "not a vhost-vdpa");
    refused(|model| model.lock().backend = 0, "IOTLB_MSG_V2");
    refused(|model| model.lock().told_rings = Some(0), "0 rings");
    refused(|model| model.lock().told_rings = Some(1), "1 rings");
    refused(|model| model.lock().max_ring = 0, "of 0 entries");
    refused(|model| model.lock().range = (2, 1), "none");
    refused(|model| model.lock().fails = Some(("set_owner", libc::EBUSY)), "SET_OWNER");
    refused(|model| model.lock().fails = Some(("read_config", libc::EIO)), "GET_CONFIG");
}

#[test]
fn numbers_of_pairs_are_believed_as_far_as_there_are_rings() {
    let pairs = |configured: u16, rings: Option<u32>, features: Features| {
        let model = Model::new(2);
        model.lock().config[8..10].copy_from_slice(&configured.to_le_bytes());
        model.lock().told_rings = rings;
        model.lock().offered -= Features::all() - features;
        open(&model).unwrap().queue_pairs()
    };
    let all = Features::all();
    assert_eq!(pairs(2, None, all), 2);
    assert_eq!(pairs(0, None, all), 1);
    assert_eq!(pairs(3, None, all), 1, "no control queue behind three pairs");
    assert_eq!(pairs(2, Some(4), all), 1);
    assert_eq!(pairs(u16::MAX, Some(u32::MAX), all), 1);
    assert_eq!(pairs(32_767, Some(u32::MAX), all), 127);
    assert_eq!(pairs(2, None, all - Features::MQ), 1);
    assert_eq!(pairs(2, None, all - Features::CTRL_VQ), 1);
    let model = Model::new(2);
    model.lock().config_size = 9;
    assert_eq!(open(&model).unwrap().queue_pairs(), 1);
}

#[test]
fn kernels_that_do_not_tell_are_used_all_the_same() {
    let guest = Guest::new(1);
    for method in ["config_size", "ring_count", "iova_range", "space_count"] {
        let model = Model::new(1);
        model.lock().fails = Some((method, libc::ENOTTY));
        let mut device = open(&model).unwrap();
        device.start(guest.setup(GUEST)).unwrap();
        assert!(device.is_running());
    }
}

#[test]
fn the_configuration_is_read_and_written_in_its_bounds() {
    let model = Model::new(1);
    let mut device = open(&model).unwrap();
    let mut bytes = [0; 6];
    device.read_config(0, &mut bytes).unwrap();
    assert_eq!(bytes, [2, 0, 0, 0, 0, 1]);
    device.read_config(12, &mut []).unwrap();
    for offset in [7, 12, u32::MAX] {
        let reason = device.read_config(offset, &mut bytes).unwrap_err().0;
        assert!(reason.contains("12 bytes"), "{reason}");
    }
    device.write_config(5, &[9]).unwrap();
    assert_eq!(model.lock().config[5], 9);
    assert!(device.write_config(12, &[9]).is_err());
    // A size that is not true.
    model.lock().config_size = u32::MAX;
    let device = open(&model).unwrap();
    assert!(device.read_config(8, &mut bytes).unwrap_err().0.contains("GET_CONFIG"));
}

#[test]
fn changes_of_the_configuration_are_told() {
    let (model, guest) = (Model::new(1), Guest::new(1));
    let mut device = open(&model).unwrap();
    device.start(guest.setup(GUEST)).unwrap();
    let call = model.lock().config_call.as_ref().unwrap().try_clone().unwrap();
    PeerEvent::from_fd(call).unwrap().signal().unwrap();
    assert!(device.config_changed().unwrap().drain().unwrap());
}

#[test]
fn a_device_that_has_failed_does_not_run() {
    let (model, guest) = (Model::new(1), Guest::new(1));
    let mut device = open(&model).unwrap();
    device.start(guest.setup(GUEST)).unwrap();
    for status in [15 | 64, 15 | 128, 11, 0] {
        model.lock().status = status;
        assert!(!device.is_running(), "{status:#x}");
    }
    model.lock().status = 15;
    assert!(device.is_running());
    model.lock().fails = Some(("status", libc::EIO));
    assert!(!device.is_running());
}

#[test]
fn files_of_a_running_ring_are_replaced() {
    let (model, guest) = (Model::new(1), Guest::new(1));
    let mut device = open(&model).unwrap();
    assert!(device.set_ring_kick(0, None).unwrap_err().0.contains("does not run"));
    device.start(guest.setup(GUEST)).unwrap();
    let (kick, call) = (PeerEvent::new().unwrap(), PeerEvent::new().unwrap());
    let same = |one: &OwnedFd, two: &PeerEvent| {
        PeerEvent::from_fd(one.try_clone().unwrap()).unwrap().signal().unwrap();
        two.drain().unwrap()
    };
    device.set_ring_kick(1, Some(kick.clone())).unwrap();
    wait_for("a kick: one by the old one may have been lost", || kick.drain().unwrap());
    device.set_ring_call(1, Some(call.clone())).unwrap();
    wait_for("an interrupt, of which the same is true", || call.drain().unwrap());
    let (their_kick, their_call) = {
        let ring = &model.lock().rings[1];
        (ring.kick.clone().unwrap(), ring.call.clone().unwrap())
    };
    assert!(same(&their_kick, &kick) && same(&their_call, &call));
    device.set_ring_call(1, None).unwrap();
    assert!(model.lock().rings[1].call.is_none());
    assert!(device.set_ring_call(2, None).is_err());
    assert!(device.set_ring_kick(1, None).unwrap_err().0.contains("no kick file"));
    model.lock().fails = Some(("set_ring_kick", libc::EIO));
    assert!(device.set_ring_kick(0, Some(kick)).unwrap_err().0.contains("refuses ring 0"));
}

#[test]
fn rings_are_enabled_while_the_device_runs_where_it_can_that() {
    let guest = Guest::new(2);
    let start = |backend: u64| {
        let model = Model::new(2);
        model.lock().backend = backend;
        let mut device = open(&model).unwrap();
        let mut setup = guest.setup(GUEST | Features::MQ);
        setup.rings.iter_mut().skip(1).for_each(|ring| ring.enabled = false);
        device.start(setup).unwrap();
        (model, device)
    };
    let (model, mut device) = start(!0);
    assert!(!model.lock().rings[1].enabled);
    assert!(!model.lock().accepted.contains(Features::MQ), "one pair is enabled");
    device.set_ring_enabled(1, true).unwrap();
    assert!(model.lock().rings[1].enabled);
    device.set_ring_enabled(1, false).unwrap();
    assert!(!model.lock().rings[1].enabled);
    let reason = device.set_ring_enabled(2, true).unwrap_err().0;
    assert!(reason.contains("1 queue pairs"), "{reason}");
    assert!(device.set_ring_enabled(4, true).is_err());
    // It is stopped where it was, though it is disabled by now; the others never ran.
    model.lock().rings.iter_mut().for_each(|ring| ring.base = 100);
    assert_eq!(device.stop(), [(0, 100), (1, 100), (2, 9), (3, 10)]);
    let (model, mut device) = start(!abi::ENABLE_AFTER_DRIVER_OK);
    device.set_ring_enabled(1, false).unwrap();
    assert!(device.set_ring_enabled(1, true).unwrap_err().0.contains("ring 1"));
    assert!(!model.lock().rings[1].enabled);
}

#[test]
fn devices_are_listed_with_what_is_in_the_way() {
    let device = KernelVdpa {
        name: "vdpa0".to_owned(),
        driver: Some("vhost_vdpa".to_owned()),
        node: Some("/dev/vhost-vdpa-3".into()),
    };
    let found = super::found(&device);
    assert_eq!((found.device.as_str(), found.obstacle), ("vhost-vdpa:vdpa0", None));
    assert_eq!(found.description, "/dev/vhost-vdpa-3");
    let found = super::found(&KernelVdpa { driver: None, node: None, ..device });
    assert_eq!(found.description, "bound to no driver");
    assert!(found.obstacle.unwrap().contains("driver_override"));
}

#[test]
fn device_strings_name_a_device() {
    let open = |text: &str| crate::open(text).unwrap_err().to_string();
    assert!(open("vhost-vdpa:").contains("such as vhost-vdpa-0"));
    assert!(open("vhost-vdpa:x,queues=2").contains("unknown option 'queues'"));
    let missing = open("vhost-vdpa:/dev/vhost-vdpa-none");
    assert!(missing.contains("modprobe") || missing.contains("load the module"), "{missing}");
    assert!(open("vhost-vdpa:no-such-device").contains("no vDPA device of this name"));
    assert!(open("vhost-vdpa:/dev/null").contains("not a vhost-vdpa device"));
}
