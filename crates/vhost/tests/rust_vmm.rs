//! The front-end of the rust-vmm `vhost` crate, as Cloud Hypervisor and others use it, against
//! the control thread.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rust_vmm_vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight,
};
use rust_vmm_vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandler,
    VhostUserProtocolFeatures,
};
use rust_vmm_vhost::{
    VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData,
};
use vhost::control::{ControlHandle, ControlThread, SocketHandle, SocketOptions};
use vhost::protocol::BackendMessage;
use virtio::Features;
use vmm_sys_util::eventfd::EventFd;

use vhost::testing::{
    CONFIG, Call, FEATURES, LOG_ALL, MEMORY, PROGRESS, Recorder, Recording, Start, log, memory,
};

const SPLIT: u64 = FEATURES & !Features::RING_PACKED.bits() & !LOG_ALL;

struct Bench {
    _socket: SocketHandle,
    _control: ControlHandle,
    calls: Recorder,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(prepare: impl FnOnce(&mut Recording)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let control = ControlThread::start().unwrap();
        let (mut backend, calls) = Recording::new();
        prepare(&mut backend);
        let socket = control.add_server(&path, SocketOptions::default(), Box::new(backend));
        Self { _socket: socket.unwrap(), _control: control, calls, path, _dir: dir }
    }

    /// A front-end that has negotiated all there is, and waits for every acknowledgement.
    fn connect(&self) -> Frontend {
        let mut frontend = Frontend::connect(&self.path, 5).unwrap();
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_features().unwrap(), FEATURES);
        frontend.set_features(SPLIT).unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        assert_eq!(
            offered,
            VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::LOG_SHMFD
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::RARP
                | VhostUserProtocolFeatures::MTU
                | VhostUserProtocolFeatures::BACKEND_REQ
                | VhostUserProtocolFeatures::CONFIG
                | VhostUserProtocolFeatures::BACKEND_SEND_FD
                | VhostUserProtocolFeatures::HOST_NOTIFIER
                | VhostUserProtocolFeatures::INFLIGHT_SHMFD
                | VhostUserProtocolFeatures::RESET_DEVICE
                | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
                | VhostUserProtocolFeatures::STATUS
                | VhostUserProtocolFeatures::DEVICE_STATE
        );
        frontend.set_protocol_features(offered).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.calls.wait_for(&Call::Features(SPLIT));
        frontend
    }
}

fn region(number: u64, file: &OwnedFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: number * MEMORY,
        memory_size: MEMORY,
        userspace_addr: 0x7000_0000 + number * MEMORY,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

fn span(number: u64) -> (u64, u64, u64) {
    (number * MEMORY, 0x7000_0000 + number * MEMORY, MEMORY)
}

/// Starts a ring, and keeps the kick file for as long as the test likes.
fn start(frontend: &mut Frontend, index: usize, base: u16) -> EventFd {
    let config = VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: 0x7000_0000,
        used_ring_addr: 0x7000_2000,
        avail_ring_addr: 0x7000_1000,
        log_addr: None,
    };
    let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    frontend.set_vring_num(index, 256).unwrap();
    frontend.set_vring_addr(index, &config).unwrap();
    frontend.set_vring_base(index, base).unwrap();
    frontend.set_vring_call(index, &call).unwrap();
    frontend.set_vring_err(index, &call).unwrap();
    frontend.set_vring_kick(index, &kick).unwrap();
    frontend.set_vring_enable(index, true).unwrap();
    kick
}

fn started(index: u16, base: u16) -> Call {
    Call::Start(Start {
        index,
        size: 256,
        addrs: [0x7000_0000, 0x7000_1000, 0x7000_2000],
        log: None,
        base: base.into(),
        features: SPLIT,
        enabled: false,
        files: [true; 3],
    })
}

#[test]
fn a_device_runs_from_start_to_stop() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let file = memory();
    frontend.set_mem_table(&[region(0, &file), region(1, &file)]).unwrap();
    let kicks = [start(&mut frontend, 0, 0), start(&mut frontend, 1, 65_535)];
    frontend.set_vring_enable(1, false).unwrap();
    assert_eq!(frontend.get_vring_base(0).unwrap(), PROGRESS);
    assert_eq!(frontend.get_vring_base(1).unwrap(), (65_535 + PROGRESS) & 0xffff);
    drop((kicks, frontend));
    let expected = [
        Call::Memory(vec![span(0), span(1)]),
        started(0, 0),
        Call::Enabled(0, true),
        started(1, 65_535),
        Call::Enabled(1, true),
        Call::Enabled(1, false),
        Call::Stop(0),
        Call::Stop(1),
        Call::Disconnected,
    ];
    assert_eq!(bench.calls.wait_for(&Call::Disconnected), expected);
}

#[test]
fn the_number_of_queues_and_slots_is_told() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    assert_eq!(frontend.get_queue_num().unwrap(), 2);
    assert_eq!(frontend.get_max_mem_slots().unwrap(), 509);
}

#[test]
fn memory_grows_and_shrinks_while_a_ring_runs() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let file = memory();
    frontend.add_mem_region(&region(0, &file)).unwrap();
    let _kick = start(&mut frontend, 0, 0);
    frontend.add_mem_region(&region(1, &file)).unwrap();
    frontend.add_mem_region(&region(1, &file)).unwrap_err();
    frontend.remove_mem_region(&region(1, &file)).unwrap();
    frontend.remove_mem_region(&region(1, &file)).unwrap_err();
    let expected = [
        Call::Memory(vec![span(0)]),
        started(0, 0),
        Call::Enabled(0, true),
        Call::Memory(vec![span(0), span(1)]),
        Call::Memory(vec![span(0)]),
    ];
    assert_eq!(bench.calls.take(), expected);
}

#[test]
fn what_is_refused_leaves_the_connection_alone() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let file = memory();
    let too_large = VhostUserMemoryRegionInfo { memory_size: 2 * MEMORY, ..region(0, &file) };
    frontend.set_mem_table(&[too_large]).unwrap_err();
    frontend.set_vring_num(0, 100).unwrap_err();
    frontend.set_vring_kick(0, &EventFd::new(0).unwrap()).unwrap_err();
    frontend.set_features(1 << 63).unwrap_err();
    assert_eq!(bench.calls.take(), []);
    // It has not noticed that these are still in force.
    frontend.set_features(SPLIT).unwrap();
    frontend.set_mem_table(&[region(0, &file)]).unwrap();
    let _kick = start(&mut frontend, 0, 0);
    assert_eq!(frontend.get_vring_base(0).unwrap(), PROGRESS);
}

#[test]
fn a_reset_device_can_be_started_again() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let file = memory();
    frontend.set_mem_table(&[region(0, &file)]).unwrap();
    let _kick = start(&mut frontend, 0, 3);
    frontend.reset_device().unwrap();
    frontend.reset_owner().unwrap();
    frontend.set_features(SPLIT).unwrap();
    let _again = start(&mut frontend, 0, 0);
    let expected = [
        Call::Memory(vec![span(0)]),
        started(0, 3),
        Call::Enabled(0, true),
        Call::Stop(0),
        Call::Reset,
        Call::Features(SPLIT),
        started(0, 0),
        Call::Enabled(0, true),
    ];
    assert_eq!(bench.calls.take(), expected);
}

#[test]
fn a_front_end_that_dies_is_followed_by_another() {
    let bench = Bench::new();
    let file = memory();
    for _ in 0..5 {
        let mut frontend = bench.connect();
        frontend.set_mem_table(&[region(0, &file)]).unwrap();
        let _kick = start(&mut frontend, 0, 0);
        drop(frontend);
        let calls = bench.calls.wait_for(&Call::Disconnected);
        assert!(calls.ends_with(&[Call::Stop(0), Call::Disconnected]), "{calls:?}");
    }
}

#[test]
fn configuration_space_is_read_and_written() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, bytes) = frontend.get_config(2, 4, flags, &[0; 4]).unwrap();
    assert_eq!(bytes, CONFIG[2..6]);
    frontend.set_config(1, VhostUserConfigFlags::empty(), &[9, 8]).unwrap();
    assert_eq!(bench.calls.take(), [Call::Config(1, vec![9, 8], false)]);
}

/// Counts what it hears.
#[derive(Default)]
struct Ears(AtomicU32);

impl VhostUserFrontendReqHandler for Ears {
    fn handle_config_change(&self) -> HandlerResult<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
}

#[test]
fn changes_of_the_configuration_are_told() {
    let bench = Bench::with(|device| {
        device.to_tell.extend([BackendMessage::ConfigChange, BackendMessage::ConfigChange]);
    });
    let mut frontend = bench.connect();
    let ears = Arc::new(Ears::default());
    let mut handler = FrontendReqHandler::new(Arc::clone(&ears)).unwrap();
    frontend.set_backend_request_fd(&handler.get_tx_raw_fd()).unwrap();
    handler.handle_request().unwrap();
    handler.handle_request().unwrap();
    assert_eq!(ears.0.load(Ordering::Relaxed), 2);
}

#[test]
fn records_of_chains_in_flight_are_kept_over_connections() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let asked = VhostUserInflight { num_queues: 2, queue_size: 256, ..Default::default() };
    let (region, file) = frontend.get_inflight_fd(&asked).unwrap();
    assert_eq!((region.mmap_offset, region.num_queues, region.queue_size), (0, 2, 256));
    assert_eq!(file.metadata().unwrap().len(), region.mmap_size);
    for _ in 0..2 {
        frontend.set_inflight_fd(&region, file.as_raw_fd()).unwrap();
        frontend.set_mem_table(&[self::region(0, &memory())]).unwrap();
        let _kick = start(&mut frontend, 1, 7);
        let calls = bench.calls.wait_for(&started(1, 7));
        assert!(calls.contains(&Call::Inflight(1, 256)), "{calls:?}");
        drop(frontend);
        bench.calls.wait_for(&Call::Disconnected);
        frontend = bench.connect();
    }
}

#[test]
fn a_guest_is_migrated() {
    let bench = Bench::new();
    let mut frontend = bench.connect();
    let (file, bits) = (memory(), log(8));
    frontend.set_mem_table(&[region(0, &file)]).unwrap();
    let _kick = start(&mut frontend, 0, 0);
    bench.calls.take();
    let log_region = |size| VhostUserDirtyLogRegion {
        mmap_size: size,
        mmap_offset: 0,
        mmap_handle: bits.as_raw_fd(),
    };
    frontend.set_log_base(0, Some(log_region(8))).unwrap();
    frontend.set_log_fd(EventFd::new(0).unwrap().as_raw_fd()).unwrap();
    frontend.set_features(SPLIT | LOG_ALL).unwrap();
    let mut seen = [0; 8];
    rustix::io::pread(&bits, &mut seen, 0).unwrap();
    assert_eq!(seen, [1, 0, 0, 0, 0, 0, 0, 0], "the device of these tests marks page 0");
    assert_eq!(frontend.get_vring_base(0).unwrap(), PROGRESS);
    frontend.set_features(SPLIT).unwrap();
    let features = Call::Features(SPLIT);
    let expected = [features.clone(), Call::Log(Some(8)), Call::Stop(0), features, Call::Log(None)];
    assert_eq!(bench.calls.take(), expected);
    // One that the file does not hold ends the connection: the reply has no way to say no.
    frontend.set_log_base(0, Some(log_region(9))).unwrap_err();
    bench.calls.wait_for(&Call::Disconnected);
}
