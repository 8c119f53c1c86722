//! The kernel's interface to VFIO, as `linux/vfio.h` documents it: numbers, structures, and the
//! calls.
//!
//! Answers of variable length come as bytes, which are looked at with a check: the kernel is
//! trusted not to lie, but not to be the version that was built against.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Requests are `_IO(';', 100 + n)`.
const fn request(n: u8) -> u32 {
    (b';' as u32) << 8 | (100 + n as u32)
}

const GET_API_VERSION: u32 = request(0);
const CHECK_EXTENSION: u32 = request(1);
const SET_IOMMU: u32 = request(2);
const GROUP_GET_STATUS: u32 = request(3);
const GROUP_SET_CONTAINER: u32 = request(4);
const GROUP_UNSET_CONTAINER: u32 = request(5);
const GROUP_GET_DEVICE_FD: u32 = request(6);
const DEVICE_GET_INFO: u32 = request(7);
const DEVICE_GET_REGION_INFO: u32 = request(8);
const DEVICE_GET_IRQ_INFO: u32 = request(9);
const DEVICE_SET_IRQS: u32 = request(10);
const DEVICE_RESET: u32 = request(11);
const IOMMU_GET_INFO: u32 = request(12);
const IOMMU_MAP_DMA: u32 = request(13);
const IOMMU_UNMAP_DMA: u32 = request(14);

/// The only version there is.
pub const API_VERSION: c_int = 0;
/// An IOMMU of type 1, second version: partial unmapping is exact.
pub const TYPE1V2_IOMMU: u32 = 3;
/// No IOMMU: devices see physical memory.
pub const NO_IOMMU: u32 = 8;

/// All devices of the group are in the hands of user space, or of nobody.
pub const GROUP_VIABLE: u32 = 1 << 0;
/// The device can be reset.
pub const DEVICE_HAS_RESET: u32 = 1 << 0;
/// It is a PCI device.
pub const DEVICE_IS_PCI: u32 = 1 << 1;
/// The region can be mapped.
pub const REGION_MMAP: u32 = 1 << 2;
/// The configuration space's number among the regions; base address registers are 0 to 5.
pub const CONFIG_REGION: u32 = 7;
/// Numbers of the kinds of interrupts.
pub const IRQ_INTX: u32 = 0;
/// As above.
pub const IRQ_MSIX: u32 = 2;
/// Signalled when the kernel wants the device back (`VFIO_PCI_REQ_IRQ_INDEX`).
pub const IRQ_REQUEST: u32 = 4;

/// Answers have a list of capabilities behind them, where this flag is set.
const REGION_CAPS: u32 = 1 << 3;
const IOMMU_CAPS: u32 = 1 << 1;
const CAP_SPARSE_MMAP: u16 = 1;
const CAP_IOVA_RANGES: u16 = 1;

const DMA_READ: u32 = 1 << 0;
const DMA_WRITE: u32 = 1 << 1;

const IRQ_DATA_NONE: u32 = 1 << 0;
const IRQ_DATA_EVENTFD: u32 = 1 << 2;
const IRQ_ACTION_UNMASK: u32 = 1 << 4;
const IRQ_ACTION_TRIGGER: u32 = 1 << 5;

/// Answers are not longer than this, or make no sense.
const MAX_ANSWER: usize = 64 << 10;
const MAX_CAPABILITIES: usize = 32;

/// `vfio_iommu_type1_dma_map` and, without the address, `vfio_iommu_type1_dma_unmap`.
#[repr(C)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

#[repr(C)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// A region of a device: a base address register or the configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Combination of the `REGION_` flags.
    pub flags: u32,
    /// Size in bytes; 0 where there is none.
    pub size: u64,
    /// Where it is in the device's file.
    pub offset: u64,
    /// The parts that can be mapped, offset and length; `None`: all of it.
    pub areas: Option<Vec<(u64, u64)>>,
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call whose argument is a number.
fn call(fd: BorrowedFd<'_>, request: u32, argument: u32) -> io::Result<c_int> {
    // SAFETY: the requests that come here take a number and touch no memory of ours.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, u64::from(argument)) })
}

/// A call whose argument is a structure that the kernel reads.
///
/// # Safety
/// `argument` must be the structure that `request` takes, with whatever it points to.
unsafe fn call_with<T>(fd: BorrowedFd<'_>, request: u32, argument: &T) -> io::Result<c_int> {
    let argument = std::ptr::from_ref(argument).cast::<c_void>();
    // SAFETY: the caller's promise.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) })
}

/// A call that fills a structure which begins with its own size and grows with the kernel.
/// `head` is what follows the size, `least` the bytes that an answer has at least.
fn query(fd: BorrowedFd<'_>, request: u32, head: &[u32], least: usize) -> io::Result<Vec<u8>> {
    let mut size = least.max(4 + 4 * head.len());
    loop {
        // Whole words, since structures want to be aligned.
        let mut words = vec![0_u64; size.div_ceil(8)];
        let argsz = u32::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?;
        let fields = std::iter::once(argsz).chain(head.iter().copied());
        let bytes: Vec<u8> = fields.flat_map(u32::to_ne_bytes).collect();
        for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *word = u64::from_ne_bytes(whole);
        }
        // SAFETY: the kernel writes as many bytes as the first field says, and `words` has them.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, words.as_mut_ptr()) })?;
        let mut answer: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        answer.truncate(size);
        // The kernel says how much it would have written.
        let wanted = usize::try_from(u32_at(&answer, 0)?).unwrap_or(usize::MAX);
        if wanted <= size {
            return Ok(answer);
        }
        if wanted > MAX_ANSWER {
            return Err(invalid(&format!("an answer of {wanted} bytes")));
        }
        size = wanted;
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel gave {what}"))
}

fn bytes_at<const N: usize>(answer: &[u8], at: usize) -> io::Result<[u8; N]> {
    let end = at.checked_add(N).ok_or_else(|| invalid("an offset out of range"))?;
    let bytes = answer.get(at..end).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| invalid("an answer that is too short"))
}

fn u16_at(answer: &[u8], at: usize) -> io::Result<u16> {
    bytes_at(answer, at).map(u16::from_ne_bytes)
}

fn u32_at(answer: &[u8], at: usize) -> io::Result<u32> {
    bytes_at(answer, at).map(u32::from_ne_bytes)
}

fn u64_at(answer: &[u8], at: usize) -> io::Result<u64> {
    bytes_at(answer, at).map(u64::from_ne_bytes)
}

/// Where the capability `id` of an answer begins; `first` is the offset of the first one.
fn capability(answer: &[u8], first: u32, id: u16) -> io::Result<Option<usize>> {
    let mut next = first;
    for _ in 0..MAX_CAPABILITIES {
        if next == 0 {
            return Ok(None);
        }
        let at = usize::try_from(next).map_err(|_| invalid("an offset out of range"))?;
        if u16_at(answer, at)? == id {
            return Ok(Some(at));
        }
        next = u32_at(answer, at.saturating_add(4))?;
    }
    Err(invalid("a list of capabilities without an end"))
}

/// Pairs of numbers in a capability: their count is at its byte 8, they are at its byte 16.
fn pairs(answer: &[u8], at: usize) -> io::Result<Vec<(u64, u64)>> {
    let count = usize::try_from(u32_at(answer, at.saturating_add(8))?).unwrap_or(usize::MAX);
    if count > MAX_ANSWER / 16 {
        return Err(invalid("more areas than fit"));
    }
    let first = at.saturating_add(16);
    let pair =
        |n: usize| Ok((u64_at(answer, first + n * 16)?, u64_at(answer, first + n * 16 + 8)?));
    (0..count).map(pair).collect()
}

/// The version of the interface.
pub fn api_version(container: BorrowedFd<'_>) -> io::Result<c_int> {
    call(container, GET_API_VERSION, 0)
}

/// Whether the kernel can drive this type of IOMMU.
pub fn has_iommu(container: BorrowedFd<'_>, kind: u32) -> bool {
    call(container, CHECK_EXTENSION, kind).is_ok_and(|answer| answer > 0)
}

/// Chooses the type of IOMMU, after the first group was added.
pub fn set_iommu(container: BorrowedFd<'_>, kind: u32) -> io::Result<()> {
    call(container, SET_IOMMU, kind).map(drop)
}

/// The `GROUP_` flags of a group.
pub fn group_status(group: BorrowedFd<'_>) -> io::Result<u32> {
    u32_at(&query(group, GROUP_GET_STATUS, &[0], 8)?, 4)
}

/// Puts a group into a container.
pub fn group_set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let container: c_int = container.as_raw_fd();
    // SAFETY: the request takes the address of a file descriptor.
    unsafe { call_with(group, GROUP_SET_CONTAINER, &container) }.map(drop)
}

/// Takes a group out of its container.
pub fn group_unset_container(group: BorrowedFd<'_>) -> io::Result<()> {
    call(group, GROUP_UNSET_CONTAINER, 0).map(drop)
}

/// Opens a device of a group.
pub fn group_device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the request takes the address of a string that ends with NUL, which `name` is.
    let fd = check(unsafe {
        libc::ioctl(group.as_raw_fd(), GROUP_GET_DEVICE_FD as libc::Ioctl, name.as_ptr())
    })?;
    // SAFETY: the kernel has just made it for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// The `DEVICE_` flags of a device.
pub fn device_flags(device: BorrowedFd<'_>) -> io::Result<u32> {
    u32_at(&query(device, DEVICE_GET_INFO, &[0], 16)?, 4)
}

/// About a region of a device.
pub fn region(device: BorrowedFd<'_>, index: u32) -> io::Result<Region> {
    let answer = query(device, DEVICE_GET_REGION_INFO, &[0, index], 32)?;
    let flags = u32_at(&answer, 4)?;
    let first = if flags & REGION_CAPS == 0 { 0 } else { u32_at(&answer, 12)? };
    let areas = match capability(&answer, first, CAP_SPARSE_MMAP)? {
        Some(at) => Some(pairs(&answer, at)?),
        None => None,
    };
    Ok(Region { flags, size: u64_at(&answer, 16)?, offset: u64_at(&answer, 24)?, areas })
}

/// How many interrupts of a kind a device has.
pub fn irq_count(device: BorrowedFd<'_>, index: u32) -> io::Result<u32> {
    u32_at(&query(device, DEVICE_GET_IRQ_INFO, &[0, index], 16)?, 12)
}

fn set_irqs(
    device: BorrowedFd<'_>,
    index: u32,
    flags: u32,
    (start, count): (u32, u32),
    data: &[i32],
) -> io::Result<()> {
    let size = u32::try_from(20 + 4 * data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let data = data.iter().map(|number| number.cast_unsigned());
    let words: Vec<u32> = [size, flags, index, start, count].into_iter().chain(data).collect();
    // SAFETY: the kernel reads as many bytes as the first field says, and `words` has them.
    check(unsafe {
        libc::ioctl(device.as_raw_fd(), DEVICE_SET_IRQS as libc::Ioctl, words.as_ptr())
    })
    .map(drop)
}

/// Has interrupts of a kind, from the first on, signal these eventfds; those without one are
/// not heard.
pub fn enable_irqs(
    device: BorrowedFd<'_>,
    index: u32,
    events: &[Option<BorrowedFd<'_>>],
) -> io::Result<()> {
    let fds: Vec<i32> =
        events.iter().map(|event| event.map_or(-1, |event| event.as_raw_fd())).collect();
    let count = u32::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_irqs(device, index, IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER, (0, count), &fds)
}

/// Has one interrupt of a kind that is on signal another eventfd, or nobody.
pub fn change_irq(
    device: BorrowedFd<'_>,
    index: u32,
    number: u32,
    event: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let fd = event.map_or(-1, |event| event.as_raw_fd());
    set_irqs(device, index, IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER, (number, 1), &[fd])
}

/// Switches all interrupts of a kind off.
pub fn disable_irqs(device: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    set_irqs(device, index, IRQ_DATA_NONE | IRQ_ACTION_TRIGGER, (0, 0), &[])
}

/// Unmasks the first interrupt of a kind.
pub fn unmask_irq(device: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    set_irqs(device, index, IRQ_DATA_NONE | IRQ_ACTION_UNMASK, (0, 1), &[])
}

/// Resets a device.
pub fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    call(device, DEVICE_RESET, 0).map(drop)
}

/// The ranges of addresses that the devices of a container may use, first and last. `None`: the
/// kernel is too old to say (before 5.4).
pub fn iova_ranges(container: BorrowedFd<'_>) -> io::Result<Option<Vec<(u64, u64)>>> {
    let answer = query(container, IOMMU_GET_INFO, &[0], 24)?;
    let first = if u32_at(&answer, 4)? & IOMMU_CAPS == 0 { 0 } else { u32_at(&answer, 16)? };
    match capability(&answer, first, CAP_IOVA_RANGES)? {
        Some(at) => pairs(&answer, at).map(Some),
        None => Ok(None),
    }
}

/// Lets the devices of a container find `size` bytes at address `vaddr` of this process at
/// `iova`, for reading and writing.
///
/// # Safety
///
/// The memory must be there until it is [unmapped](unmap_dma), and of a kind that devices may write
/// to: nobody may have references to it that this would break.
pub unsafe fn map_dma(
    container: BorrowedFd<'_>,
    vaddr: u64,
    iova: u64,
    size: u64,
) -> io::Result<()> {
    let flags = DMA_READ | DMA_WRITE;
    let argument = DmaMap { argsz: argsz::<DmaMap>(), flags, vaddr, iova, size };
    // SAFETY: the structure is the one that the request takes. The kernel pins whatever memory is
    // there, for devices to access, which the caller vouches for.
    unsafe { call_with(container, IOMMU_MAP_DMA, &argument) }.map(drop)
}

/// Undoes [`map_dma`].
pub fn unmap_dma(container: BorrowedFd<'_>, iova: u64, size: u64) -> io::Result<()> {
    let mut argument = DmaUnmap { argsz: argsz::<DmaUnmap>(), flags: 0, iova, size };
    let pointer = (&raw mut argument).cast::<c_void>();
    // SAFETY: the structure is the one that the request takes, and writes its last field of.
    check(unsafe { libc::ioctl(container.as_raw_fd(), IOMMU_UNMAP_DMA as libc::Ioctl, pointer) })?;
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "structures of 40 bytes at most")]
const fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// Where a capability is, its id, the offset of the next one, and pairs.
    type Entry<'a> = (usize, u16, u32, &'a [(u64, u64)]);

    /// An answer with capabilities.
    fn answer(capabilities: &[Entry<'_>]) -> Vec<u8> {
        let mut bytes = vec![0; 256];
        for (at, id, next, pairs) in capabilities {
            let count = u32::try_from(pairs.len()).unwrap();
            bytes[*at..at + 2].copy_from_slice(&id.to_ne_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&next.to_ne_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&count.to_ne_bytes());
            for (n, (a, b)) in pairs.iter().enumerate() {
                let to = at + 16 + n * 16;
                bytes[to..to + 8].copy_from_slice(&a.to_ne_bytes());
                bytes[to + 8..to + 16].copy_from_slice(&b.to_ne_bytes());
            }
        }
        bytes
    }

    #[test]
    fn capabilities_are_found_and_their_pairs_read() {
        let answer = answer(&[(32, 3, 64, &[]), (64, 1, 0, &[(0, 4096), (8192, 4096)])]);
        let at = capability(&answer, 32, 1).unwrap().unwrap();
        assert_eq!(pairs(&answer, at).unwrap(), [(0, 4096), (8192, 4096)]);
        assert_eq!(capability(&answer, 32, 7).unwrap(), None);
        assert_eq!(capability(&answer, 0, 1).unwrap(), None);
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        let circle = answer(&[(32, 3, 32, &[])]);
        assert!(capability(&circle, 32, 1).is_err());
        assert!(capability(&circle, u32::MAX, 1).is_err());
        let mut long = answer(&[(32, 1, 0, &[])]);
        long[40..44].copy_from_slice(&1000_u32.to_ne_bytes());
        assert!(pairs(&long, 32).is_err());
        long[40..44].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(pairs(&long, 32).is_err());
    }

    #[test]
    fn requests_have_the_numbers_of_the_header() {
        assert_eq!((GET_API_VERSION, IOMMU_UNMAP_DMA), (0x3b64, 0x3b72));
        assert_eq!((argsz::<DmaMap>(), argsz::<DmaUnmap>()), (32, 24));
    }
}
