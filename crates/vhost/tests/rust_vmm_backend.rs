//! The back-end of the rust-vmm `vhost` crate, as vhost-device and others use it, against our
//! front-end.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eal::{EventFd, SharedMemory};
use rust_vmm_vhost::VhostUserMemoryRegionBase;
use rust_vmm_vhost::vhost_user::message::*;
use rust_vmm_vhost::vhost_user::{
    BackendReqHandler, Error as PeerError, Result as PeerResult, VhostUserBackendReqHandlerMut,
};
use vhost::ProtocolFeatures;
use vhost::frontend::{Frontend, FrontendError, Ring};
use vhost::protocol::MemoryRegion;
use virtio::Features;

const OFFERED: Features = Features::VHOST_USER_PROTOCOL
    .union(Features::VERSION_1)
    .union(Features::MQ)
    .union(Features::MRG_RXBUF);

const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes down what the front-end wants.
#[derive(Default)]
struct Peer {
    offered: u64,
    features: u64,
    protocol: u64,
    calls: Vec<String>,
    memory: Vec<(u64, u64, u64, u64, File)>,
    kicks: Vec<(u8, File)>,
    calls_fds: Vec<(u8, File)>,
    refuse_addresses: bool,
}

fn unsupported<T>() -> PeerResult<T> {
    Err(PeerError::InvalidOperation("not in this test"))
}

impl Peer {
    fn note(&mut self, call: impl Into<String>) {
        self.calls.push(call.into());
    }
}

impl VhostUserBackendReqHandlerMut for Peer {
    fn set_owner(&mut self) -> PeerResult<()> {
        self.note("owner");
        Ok(())
    }

    fn get_features(&mut self) -> PeerResult<u64> {
        // Bit 50 is none that we know: it must not come back.
        Ok(self.offered | 1 << 50)
    }

    fn set_features(&mut self, features: u64) -> PeerResult<()> {
        self.features = features;
        self.note("features");
        Ok(())
    }

    fn get_protocol_features(&mut self) -> PeerResult<VhostUserProtocolFeatures> {
        // The crate adds REPLY_ACK of its own accord.
        Ok(VhostUserProtocolFeatures::from_bits_truncate(self.protocol))
    }

    fn set_protocol_features(&mut self, features: u64) -> PeerResult<()> {
        self.note(format!("protocol {features:#x}"));
        Ok(())
    }

    fn get_queue_num(&mut self) -> PeerResult<u64> {
        Ok(7)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> PeerResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.note("memory table");
        for (region, file) in regions.iter().zip(files) {
            let (guest, size) = (region.guest_phys_addr, region.memory_size);
            self.memory.push((guest, size, region.user_addr, region.mmap_offset, file));
        }
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> PeerResult<u64> {
        Ok(2)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> PeerResult<Option<VhostUserMemoryRegionBase>> {
        self.note("memory region");
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        self.memory.push((guest, size, region.user_addr, region.mmap_offset, file));
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> PeerResult<()> {
        self.note(format!("ring {index}: size {num}"));
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> PeerResult<()> {
        self.note(format!("ring {index}: at {descriptor:#x} {available:#x} {used:#x}"));
        if self.refuse_addresses { unsupported() } else { Ok(()) }
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> PeerResult<()> {
        self.note(format!("ring {index}: base {base}"));
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> PeerResult<VhostUserVringState> {
        self.note(format!("ring {index}: stop"));
        Ok(VhostUserVringState::new(index, 42))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> PeerResult<()> {
        self.note(format!("ring {index}: kick"));
        self.kicks.push((index, fd.unwrap()));
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> PeerResult<()> {
        self.note(format!("ring {index}: call"));
        self.calls_fds.push((index, fd.unwrap()));
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> PeerResult<()> {
        self.note(format!("ring {index}: enable {enable}"));
        Ok(())
    }

    fn reset_owner(&mut self) -> PeerResult<()> {
        unsupported()
    }
    fn reset_device(&mut self) -> PeerResult<()> {
        unsupported()
    }
    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> PeerResult<()> {
        unsupported()
    }
    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> PeerResult<Vec<u8>> {
        unsupported()
    }
    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> PeerResult<()> {
        unsupported()
    }
    fn set_gpu_socket(&mut self, _: rust_vmm_vhost::vhost_user::GpuBackend) -> PeerResult<()> {
        unsupported()
    }
    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> PeerResult<File> {
        unsupported()
    }
    fn get_inflight_fd(
        &mut self,
        asked: &VhostUserInflight,
    ) -> PeerResult<(VhostUserInflight, File)> {
        let (rings, entries) = (asked.num_queues, asked.queue_size);
        self.note(format!("records for {rings} rings of {entries} entries, please"));
        let memory = SharedMemory::allocate("records", 8192).unwrap();
        let file = File::from(memory.fd().try_clone_to_owned().unwrap());
        let num_queues = if entries == 77 { rings + 1 } else { rings };
        Ok((VhostUserInflight { mmap_size: 8192, num_queues, ..*asked }, file))
    }
    fn set_inflight_fd(&mut self, region: &VhostUserInflight, file: File) -> PeerResult<()> {
        let VhostUserInflight { mmap_size, num_queues, queue_size, .. } = *region;
        let len = file.metadata().unwrap().len();
        self.note(format!("records: {mmap_size} of {len} bytes, {num_queues}, {queue_size}"));
        Ok(())
    }
    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> PeerResult<()> {
        unsupported()
    }
    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> PeerResult<Option<File>> {
        unsupported()
    }
    fn check_device_state(&mut self) -> PeerResult<()> {
        unsupported()
    }
    fn get_shmem_config(&mut self) -> PeerResult<VhostUserShMemConfig> {
        unsupported()
    }
    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> PeerResult<()> {
        unsupported()
    }
}

struct Bench {
    peer: Arc<Mutex<Peer>>,
    thread: Option<JoinHandle<()>>,
}

impl Bench {
    /// A peer with some protocol features, and a front-end connected to it.
    fn new(
        offered: Features,
        protocol: ProtocolFeatures,
        refuse_addresses: bool,
    ) -> (Self, Frontend) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (offered, protocol) = (offered.bits(), protocol.bits());
        let peer = Peer { offered, protocol, refuse_addresses, ..Peer::default() };
        let peer = Arc::new(Mutex::new(peer));
        let mut handler = BackendReqHandler::from_stream(theirs, Arc::clone(&peer));
        // It ends when the front-end hangs up.
        let thread = std::thread::spawn(move || {
            loop {
                match handler.handle_request() {
                    Ok(())
                    | Err(PeerError::InvalidOperation(_) | PeerError::ReqHandlerError(_)) => {}
                    Err(_) => return,
                }
            }
        });
        let frontend = Frontend::new(ours.into(), "test", TIMEOUT, None).unwrap();
        (Self { peer, thread: Some(thread) }, frontend)
    }

    /// What the peer was told, once the front-end has gone.
    fn finish(mut self, frontend: Frontend) -> Peer {
        drop(frontend);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.peer.lock().unwrap())
    }
}

fn region(memory: &SharedMemory) -> MemoryRegion {
    MemoryRegion {
        guest_addr: 0x1_0000,
        size: memory.len() as u64,
        user_addr: 0x7000_0000,
        mmap_offset: 0,
    }
}

#[test]
fn a_session_from_beginning_to_end() {
    let (mq, ack) = (ProtocolFeatures::MQ, ProtocolFeatures::REPLY_ACK);
    let slots = ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let old = OFFERED.difference(Features::VHOST_USER_PROTOCOL);
    for (offered, protocol) in [
        (OFFERED, mq | ack | slots),
        (OFFERED, mq | ack),
        (OFFERED, ack),
        (old, ProtocolFeatures::empty()),
    ] {
        let (bench, mut frontend) = Bench::new(offered, protocol, false);
        let offer = frontend.handshake().unwrap();
        let queue_pairs = if protocol.contains(mq) { 7 } else { 1 };
        assert_eq!((offer.features, offer.protocol), (offered, protocol));
        assert_eq!(offer.queue_pairs, queue_pairs);
        let wanted = offered & (Features::VERSION_1 | Features::VHOST_USER_PROTOCOL);
        frontend.set_features(wanted).unwrap();
        frontend.set_mtu(1500).unwrap();
        let memory = SharedMemory::allocate("test", 8192).unwrap();
        // SAFETY: inside the memory, of which nobody holds a reference.
        unsafe { memory.as_ptr().add(5000).write(99) };
        frontend.share_memory(&[(region(&memory), memory.fd())]).unwrap();
        let (kick, call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let size = 256;
        let addresses = (0x7000_0000, 0x7000_1000, 0x7000_2000);
        let files = (Some(kick.as_fd()), Some(call.as_fd()));
        let ring = Ring { index: 1, size, base: 3, addresses, kick: files.0, call: files.1 };
        frontend.start_ring(&ring).unwrap();
        if offered == OFFERED {
            frontend.enable_ring(1, true).unwrap();
        }
        frontend.driver_ok().unwrap();
        kick.signal().unwrap();
        assert_eq!(frontend.stop_ring(1).unwrap(), 42);
        frontend.check().unwrap();

        let mut peer = bench.finish(frontend);
        let shared = if protocol.contains(slots) { "memory region" } else { "memory table" };
        let protocol_call = format!("protocol {:#x}", protocol.bits());
        let mut expected = vec!["owner", &protocol_call, "features", shared];
        expected.extend(["ring 1: call", "ring 1: size 256", "ring 1: base 3"]);
        expected.push("ring 1: at 0x70000000 0x70001000 0x70002000");
        expected.extend(["ring 1: kick", "ring 1: enable true", "ring 1: stop"]);
        if offered == old {
            expected.retain(|call| *call != protocol_call && *call != "ring 1: enable true");
        }
        assert_eq!(peer.calls, expected);
        assert_eq!(peer.features, wanted.bits());
        let (guest, size, user, offset, file) = &peer.memory[0];
        let expected = (0x1_0000, memory.len() as u64, 0x7000_0000, 0);
        assert_eq!((*guest, *size, *user, *offset), expected);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 5000).unwrap();
        assert_eq!(byte, [99], "the file is our memory");
        let mut count = [0; 8];
        peer.kicks[0].1.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1, "the kick arrives");
        peer.calls_fds[0].1.write_all(&1_u64.to_ne_bytes()).unwrap();
        assert!(call.drain().unwrap(), "the call arrives");
    }
}

#[test]
fn records_of_chains_in_flight_are_asked_for_and_handed_over() {
    let protocol = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::INFLIGHT_SHMFD;
    let (bench, mut frontend) = Bench::new(OFFERED, protocol, false);
    assert_eq!(frontend.handshake().unwrap().protocol, protocol);
    let records = frontend.get_inflight(3, 64).unwrap().unwrap();
    frontend.set_inflight(&records).unwrap();
    frontend.set_inflight(&records).unwrap();
    let error = frontend.get_inflight(2, 77).unwrap_err().to_string();
    assert!(error.contains("a region for 2 rings of 77 entries"), "{error}");
    let calls = bench.finish(frontend).calls;
    let handed = "records: 8192 of 8192 bytes, 3, 64";
    assert_eq!(calls[2..5], ["records for 3 rings of 64 entries, please", handed, handed]);

    let (bench, mut frontend) = Bench::new(OFFERED, ProtocolFeatures::REPLY_ACK, false);
    frontend.handshake().unwrap();
    assert!(frontend.get_inflight(3, 64).unwrap().is_none());
    bench.finish(frontend);
}

#[test]
fn a_refusal_is_told_by_the_name_of_the_message() {
    let protocol = ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK;
    let (bench, mut frontend) = Bench::new(OFFERED, protocol, true);
    frontend.handshake().unwrap();
    frontend.set_features(OFFERED).unwrap();
    let (kick, call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let ring = Ring {
        index: 0,
        size: 16,
        base: 0,
        addresses: (0, 0, 0),
        kick: Some(kick.as_fd()),
        call: Some(call.as_fd()),
    };
    let error = frontend.start_ring(&ring).unwrap_err();
    assert!(matches!(error, FrontendError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("SET_VRING_ADDR") && text.contains("test"), "{text}");
    let _ = bench.finish(frontend);
}

#[test]
fn more_regions_than_the_back_end_takes_are_refused_here() {
    let protocol = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let (bench, mut frontend) = Bench::new(OFFERED, protocol, false);
    frontend.handshake().unwrap();
    frontend.set_features(OFFERED).unwrap();
    let memory = SharedMemory::allocate("test", 4096).unwrap();
    let error = frontend.share_memory(&[(region(&memory), memory.fd()); 3]).unwrap_err();
    assert!(matches!(error, FrontendError::Regions { count: 3, most: 2, .. }), "{error:?}");
    assert_eq!(bench.finish(frontend).memory.len(), 0);
}

#[test]
fn silence_nonsense_and_hang_up_end_a_call() {
    let limit = Duration::from_millis(50);
    let pair = |timeout, cancel| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Frontend::new(ours.into(), "test", timeout, cancel).unwrap(), theirs)
    };
    let (mut frontend, theirs) = pair(limit, None);
    let error = frontend.handshake().unwrap_err();
    assert!(matches!(error, FrontendError::Timeout { request: "GET_FEATURES", .. }), "{error:?}");
    drop(theirs);

    // One byte now and then does not prolong the time limit.
    let (mut frontend, mut theirs) = pair(limit, None);
    let dripping = std::thread::spawn(move || {
        while theirs.write_all(&[1]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let begin = Instant::now();
    assert!(frontend.handshake().is_err());
    assert!(begin.elapsed() < TIMEOUT);
    drop(frontend);
    dripping.join().unwrap();

    let (mut frontend, mut theirs) = pair(TIMEOUT, None);
    let header = [2_u32, 5, 8].map(u32::to_ne_bytes).concat();
    theirs.write_all(&[&header[..], &[0; 8]].concat()).unwrap();
    let error = frontend.handshake().unwrap_err();
    assert!(matches!(error, FrontendError::Reply { .. }), "{error:?}");

    let (mut frontend, theirs) = pair(TIMEOUT, None);
    drop(theirs);
    let error = frontend.handshake().unwrap_err();
    assert!(matches!(error, FrontendError::Connection { .. }), "{error:?}");

    let cancel = EventFd::new().unwrap();
    let other = cancel.try_clone().unwrap();
    let (mut frontend, _theirs) = pair(TIMEOUT, Some(OwnedFd::from(other)));
    cancel.signal().unwrap();
    let begin = Instant::now();
    let error = frontend.handshake().unwrap_err();
    assert!(matches!(error, FrontendError::Cancelled { .. }), "{error:?}");
    assert!(begin.elapsed() < TIMEOUT);
}
