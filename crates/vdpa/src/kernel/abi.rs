//! The kernel's interface to its vDPA devices, as `linux/vhost.h` and `linux/vhost_types.h`
//! document it: numbers, structures, and the calls.

use std::ffi::{c_int, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::calls::{Calls, Iotlb, RingAddresses};

/// Bits of the back-end features: messages of the second form, several of them at once, address
/// spaces, SUSPEND, and rings that are enabled while the device runs.
pub(super) const IOTLB_MSG_V2: u64 = 1 << 1;
pub(super) const IOTLB_BATCH: u64 = 1 << 2;
pub(super) const IOTLB_ASID: u64 = 1 << 3;
pub(super) const SUSPEND: u64 = 1 << 4;
pub(super) const ENABLE_AFTER_DRIVER_OK: u64 = 1 << 6;

const SET_OWNER: u32 = request(0, 0x01, 0);
const GET_FEATURES: Get<u64> = Get::new(0x00);
const SET_FEATURES: Set<u64> = Set::new(0x00);
const SET_VRING_NUM: Set<VringState> = Set::new(0x10);
const SET_VRING_ADDR: Set<VringAddr> = Set::new(0x11);
const SET_VRING_BASE: Set<VringState> = Set::new(0x12);
const GET_VRING_BASE: Exchange<VringState> = Exchange::new(0x12);
const SET_VRING_KICK: Set<VringFile> = Set::new(0x20);
const SET_VRING_CALL: Set<VringFile> = Set::new(0x21);
const SET_BACKEND_FEATURES: Set<u64> = Set::new(0x25);
const GET_BACKEND_FEATURES: Get<u64> = Get::new(0x26);
const GET_DEVICE_ID: Get<u32> = Get::new(0x70);
const GET_STATUS: Get<u8> = Get::new(0x71);
const SET_STATUS: Set<u8> = Set::new(0x72);
/// These two say the size of the fixed part only.
const GET_CONFIG: u32 = request(READ, 0x73, CONFIG_HEADER);
const SET_CONFIG: u32 = request(WRITE, 0x74, CONFIG_HEADER);
const SET_VRING_ENABLE: Set<VringState> = Set::new(0x75);
const GET_VRING_NUM: Get<u16> = Get::new(0x76);
const SET_CONFIG_CALL: Set<c_int> = Set::new(0x77);
const GET_IOVA_RANGE: Get<IovaRange> = Get::new(0x78);
const GET_CONFIG_SIZE: Get<u32> = Get::new(0x79);
const GET_AS_NUM: Get<u32> = Get::new(0x7A);
const GET_VRING_GROUP: Exchange<VringState> = Exchange::new(0x7B);
const SET_GROUP_ASID: Set<VringState> = Set::new(0x7C);
const SUSPEND_DEVICE: u32 = request(0, 0x7D, 0);
const GET_VQS_COUNT: Get<u32> = Get::new(0x80);

/// `VHOST_FILE_UNBIND`: no file.
const NO_FILE: c_int = -1;

/// Bytes of a `vhost_vdpa_config` before its data.
const CONFIG_HEADER: usize = 8;

/// `vhost_msg_v2`: its type, its length, and the types of changes in it.
const MSG_V2: u32 = 2;
const MSG_LEN: usize = 72;
const UPDATE: u8 = 2;
const INVALIDATE: u8 = 3;
const BATCH_BEGIN: u8 = 5;
const BATCH_END: u8 = 6;
const ACCESS_RW: u8 = 3;

const WRITE: u32 = 1;
const READ: u32 = 2;

/// `_IOC` of the kernel's general form, which x86, Arm and RISC-V use.
#[allow(clippy::cast_possible_truncation, reason = "checked: the size has 14 bits")]
const fn request(direction: u32, number: u8, size: usize) -> u32 {
    assert!(size < 1 << 14, "the size has 14 bits");
    direction << 30 | (size as u32) << 16 | 0xAF << 8 | number as u32
}

/// A type that the kernel fills or reads.
///
/// # Safety
/// Any bytes must be a value of it, and it must have no padding.
unsafe trait Plain: Copy + Default {}

// SAFETY: a number.
unsafe impl Plain for u8 {}
// SAFETY: a number.
unsafe impl Plain for u16 {}
// SAFETY: a number.
unsafe impl Plain for u32 {}
// SAFETY: a number.
unsafe impl Plain for u64 {}
// SAFETY: a number.
unsafe impl Plain for c_int {}

/// `vhost_vring_state`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct VringState {
    index: u32,
    num: u32,
}

// SAFETY: two numbers of equal size.
unsafe impl Plain for VringState {}

/// `vhost_vring_file`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct VringFile {
    index: u32,
    fd: c_int,
}

// SAFETY: two numbers of equal size.
unsafe impl Plain for VringFile {}

/// `vhost_vring_addr`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct VringAddr {
    index: u32,
    flags: u32,
    desc: u64,
    used: u64,
    avail: u64,
    log: u64,
}

// SAFETY: two numbers of half a word, and words.
unsafe impl Plain for VringAddr {}

/// `vhost_vdpa_iova_range`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct IovaRange {
    first: u64,
    last: u64,
}

// SAFETY: two numbers of equal size.
unsafe impl Plain for IovaRange {}

/// A request by which the kernel fills a `T`.
struct Get<T>(u8, PhantomData<T>);
/// A request by which the kernel reads a `T`.
struct Set<T>(u8, PhantomData<T>);
/// A request by which the kernel reads a `T` and fills it anew.
struct Exchange<T>(u8, PhantomData<T>);

impl<T> Get<T> {
    const fn new(number: u8) -> Self {
        Self(number, PhantomData)
    }

    const fn request(&self) -> u32 {
        request(READ, self.0, size_of::<T>())
    }
}

impl<T> Set<T> {
    const fn new(number: u8) -> Self {
        Self(number, PhantomData)
    }

    const fn request(&self) -> u32 {
        request(WRITE, self.0, size_of::<T>())
    }
}

impl<T> Exchange<T> {
    const fn new(number: u8) -> Self {
        Self(number, PhantomData)
    }

    const fn request(&self) -> u32 {
        request(READ | WRITE, self.0, size_of::<T>())
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An open `/dev/vhost-vdpa-N`.
#[derive(Debug)]
pub(super) struct VhostFile(OwnedFd);

impl VhostFile {
    /// Opens the device, which is reset by that. Only one process at a time can.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn get<T: Plain>(&self, request: &Get<T>) -> io::Result<T> {
        let mut value = T::default();
        // SAFETY: the kernel writes as many bytes as the request says, those of `value`, and any
        // bytes are a `T`.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), request.request() as libc::Ioctl, &raw mut value)
        })?;
        Ok(value)
    }

    fn set<T: Plain>(&self, request: &Set<T>, value: &T) -> io::Result<()> {
        // SAFETY: the kernel reads as many bytes as the request says, those of `value`, and
        // follows no address in them: those of rings are the device's.
        check(unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                request.request() as libc::Ioctl,
                std::ptr::from_ref(value),
            )
        })
    }

    fn exchange(&self, request: &Exchange<VringState>, index: u16) -> io::Result<u32> {
        let mut state = VringState { index: index.into(), num: 0 };
        // SAFETY: the kernel reads and writes as many bytes as the request says, those of
        // `state`, and any bytes are one.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), request.request() as libc::Ioctl, &raw mut state)
        })?;
        Ok(state.num)
    }

    /// A request without an argument.
    fn plain(&self, request: u32) -> io::Result<()> {
        // SAFETY: the requests that come here touch no memory of ours.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request as libc::Ioctl, 0) })
    }

    fn set_ring(&self, request: &Set<VringState>, index: u32, num: u32) -> io::Result<()> {
        self.set(request, &VringState { index, num })
    }

    fn set_file(
        &self,
        request: &Set<VringFile>,
        index: u16,
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        self.set(request, &VringFile { index: index.into(), fd: raw(file) })
    }

    /// Exchanges `words`: offset, length in bytes, and that many bytes, with the configuration.
    fn config(&self, request: u32, words: &mut [u32]) -> io::Result<()> {
        let room = size_of_val(words).saturating_sub(CONFIG_HEADER);
        let len = words.get(1).copied().and_then(|len| usize::try_from(len).ok());
        if len.is_none_or(|len| len > room) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let argument = words.as_mut_ptr().cast::<c_void>();
        // SAFETY: the kernel reads offset and length, and then reads or writes as many bytes
        // behind them as the length says: they are there, as was checked.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), request as libc::Ioctl, argument) })
    }
}

/// The number of a file for the kernel, which takes a reference of its own.
fn raw(file: Option<BorrowedFd<'_>>) -> c_int {
    file.map_or(NO_FILE, |file| file.as_raw_fd())
}

/// Offset, length and room for `len` bytes.
fn config_words(offset: u32, len: usize) -> io::Result<Vec<u32>> {
    let bytes = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut words = vec![0; 2 + len.div_ceil(4)];
    if let [first, second, ..] = words.as_mut_slice() {
        (*first, *second) = (offset, bytes);
    }
    Ok(words)
}

/// A `vhost_msg_v2`.
fn message(space: u32, change: &Iotlb) -> [u8; MSG_LEN] {
    let (kind, iova, len, host, access) = match change {
        Iotlb::Update(piece) => (UPDATE, piece.iova, piece.len, piece.host_address(), ACCESS_RW),
        Iotlb::Invalidate { iova, len } => (INVALIDATE, *iova, *len, 0, 0),
        Iotlb::BatchBegin => (BATCH_BEGIN, 0, 0, 0, 0),
        Iotlb::BatchEnd => (BATCH_END, 0, 0, 0, 0),
    };
    let head = MSG_V2.to_ne_bytes().into_iter().chain(space.to_ne_bytes());
    let words = [iova, len, host].into_iter().flat_map(u64::to_ne_bytes);
    let mut bytes = [0; MSG_LEN];
    let all = head.chain(words).chain([access, kind]);
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    bytes
}

impl Calls for VhostFile {
    fn device_id(&self) -> io::Result<u32> {
        self.get(&GET_DEVICE_ID)
    }

    fn set_owner(&self) -> io::Result<()> {
        self.plain(SET_OWNER)
    }

    fn features(&self) -> io::Result<u64> {
        self.get(&GET_FEATURES)
    }

    fn set_features(&self, features: u64) -> io::Result<()> {
        self.set(&SET_FEATURES, &features)
    }

    fn backend_features(&self) -> io::Result<u64> {
        self.get(&GET_BACKEND_FEATURES)
    }

    fn set_backend_features(&self, features: u64) -> io::Result<()> {
        self.set(&SET_BACKEND_FEATURES, &features)
    }

    fn status(&self) -> io::Result<u8> {
        self.get(&GET_STATUS)
    }

    fn set_status(&self, status: u8) -> io::Result<()> {
        self.set(&SET_STATUS, &status)
    }

    fn config_size(&self) -> io::Result<u32> {
        self.get(&GET_CONFIG_SIZE)
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> io::Result<()> {
        let mut words = config_words(offset, bytes.len())?;
        self.config(GET_CONFIG, &mut words)?;
        let read = words.iter().skip(2).flat_map(|word| word.to_ne_bytes());
        bytes.iter_mut().zip(read).for_each(|(to, from)| *to = from);
        Ok(())
    }

    fn write_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let mut words = config_words(offset, bytes.len())?;
        for (word, bytes) in words.iter_mut().skip(2).zip(bytes.chunks(4)) {
            let mut whole = [0; 4];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *word = u32::from_ne_bytes(whole);
        }
        self.config(SET_CONFIG, &mut words)
    }

    fn ring_count(&self) -> io::Result<u32> {
        self.get(&GET_VQS_COUNT)
    }

    fn max_ring_size(&self) -> io::Result<u16> {
        self.get(&GET_VRING_NUM)
    }

    fn iova_range(&self) -> io::Result<(u64, u64)> {
        self.get(&GET_IOVA_RANGE).map(|IovaRange { first, last }| (first, last))
    }

    fn space_count(&self) -> io::Result<u32> {
        self.get(&GET_AS_NUM)
    }

    fn ring_group(&self, index: u16) -> io::Result<u32> {
        self.exchange(&GET_VRING_GROUP, index)
    }

    fn set_group_space(&self, group: u32, space: u32) -> io::Result<()> {
        self.set_ring(&SET_GROUP_ASID, group, space)
    }

    fn iotlb(&self, space: u32, change: Iotlb) -> io::Result<()> {
        let bytes = message(space, &change);
        let written = rustix::io::write(&self.0, &bytes)?;
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn set_config_call(&self, call: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.set(&SET_CONFIG_CALL, &raw(call))
    }

    fn set_ring_size(&self, index: u16, size: u16) -> io::Result<()> {
        self.set_ring(&SET_VRING_NUM, index.into(), size.into())
    }

    fn set_ring_addresses(&self, index: u16, addresses: RingAddresses) -> io::Result<()> {
        let RingAddresses { descriptors, driver, device } = addresses;
        let index = index.into();
        let addr =
            VringAddr { index, flags: 0, desc: descriptors, used: device, avail: driver, log: 0 };
        self.set(&SET_VRING_ADDR, &addr)
    }

    fn set_ring_base(&self, index: u16, base: u32) -> io::Result<()> {
        self.set_ring(&SET_VRING_BASE, index.into(), base)
    }

    fn ring_base(&self, index: u16) -> io::Result<u32> {
        self.exchange(&GET_VRING_BASE, index)
    }

    fn set_ring_kick(&self, index: u16, kick: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.set_file(&SET_VRING_KICK, index, kick)
    }

    fn set_ring_call(&self, index: u16, call: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.set_file(&SET_VRING_CALL, index, call)
    }

    fn set_ring_enabled(&self, index: u16, enabled: bool) -> io::Result<()> {
        self.set_ring(&SET_VRING_ENABLE, index.into(), enabled.into())
    }

    fn suspend(&self) -> io::Result<()> {
        self.plain(SUSPEND_DEVICE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eal::SharedMemory;
    use eal::dma::DmaBacking;

    use super::super::calls::Piece;
    use super::*;

    #[test]
    fn requests_have_the_numbers_of_the_header() {
        assert_eq!((SET_OWNER, SUSPEND_DEVICE), (0xaf01, 0xaf7d));
        assert_eq!(GET_FEATURES.request(), 0x8008_af00);
        assert_eq!(SET_VRING_ADDR.request(), 0x4028_af11);
        assert_eq!(GET_VRING_BASE.request(), 0xc008_af12);
        assert_eq!(SET_VRING_KICK.request(), 0x4008_af20);
        assert_eq!(SET_BACKEND_FEATURES.request(), 0x4008_af25);
        assert_eq!((GET_STATUS.request(), SET_STATUS.request()), (0x8001_af71, 0x4001_af72));
        assert_eq!((GET_CONFIG, SET_CONFIG), (0x8008_af73, 0x4008_af74));
        assert_eq!(GET_VRING_NUM.request(), 0x8002_af76);
        assert_eq!(SET_CONFIG_CALL.request(), 0x4004_af77);
        assert_eq!(GET_IOVA_RANGE.request(), 0x8010_af78);
        assert_eq!(GET_VRING_GROUP.request(), 0xc008_af7b);
        assert_eq!(GET_VQS_COUNT.request(), 0x8004_af80);
    }

    #[test]
    fn messages_have_the_layout_of_the_header() {
        let memory = SharedMemory::allocate("test", 4096).unwrap();
        let backing = Arc::new(DmaBacking::Shared(memory, 0x1234_5000));
        let memory = backing.shared();
        let bytes = message(3, &Iotlb::Update(Piece::own(&backing, 0x1234_5000)));
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(bytes[..8], [2, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!((word(8), word(16)), (0x1234_5000, memory.len() as u64));
        assert_eq!(word(24), memory.as_ptr().addr().get() as u64);
        assert_eq!(bytes[32..35], [3, 2, 0]);
        let bytes = message(0, &Iotlb::Invalidate { iova: 1 << 40, len: 7 });
        assert_eq!((bytes[13], bytes[16], bytes[32], bytes[33]), (1, 7, 0, 3));
    }

    #[test]
    fn a_configuration_is_not_read_past_its_room() {
        let file = VhostFile::open(Path::new("/dev/null")).unwrap();
        for words in [&mut [][..], &mut [0], &mut [0, 1], &mut [0, 5, 0], &mut [0, u32::MAX, 0]] {
            let error = file.config(GET_CONFIG, words).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(config_words(2, 5).unwrap(), [2, 5, 0, 0]);
    }

    #[test]
    fn other_files_know_none_of_it() {
        let file = VhostFile::open(Path::new("/dev/null")).unwrap();
        assert_eq!(file.device_id().unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(file.ring_base(0).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
