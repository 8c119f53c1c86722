//! The kernel's interface to VDUSE, as `linux/vduse.h` has it: numbers, structures, and the calls.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::ioctl::{Opcode, opcode};

const GROUP: u8 = 0x81;

/// The version of the interface that is spoken here.
pub(super) const API_VERSION: u64 = 0;
/// Bytes of a device's name with the NUL behind it.
pub(super) const NAME_BYTES: usize = 256;
/// Bytes of `struct virtio_net_config`.
pub(super) const CONFIG_BYTES: usize = 24;
/// The value of [`IotlbEntry::access`] for memory that a device may read and write.
pub(super) const ACCESS_RW: u8 = 3;
/// Bytes of a request and of a response on a device's file.
pub(super) const MESSAGE_BYTES: usize = 152;

/// `struct vduse_dev_config` without the configuration space behind it.
#[repr(C)]
pub(super) struct DeviceHead {
    pub(super) name: [u8; NAME_BYTES],
    pub(super) vendor_id: u32,
    pub(super) device_id: u32,
    pub(super) features: u64,
    pub(super) ring_count: u32,
    pub(super) ring_align: u32,
    pub(super) reserved: [u32; 13],
    pub(super) config_size: u32,
}

/// `struct vduse_dev_config` of a network device.
#[repr(C)]
pub(super) struct DeviceConfig {
    pub(super) head: DeviceHead,
    pub(super) config: [u8; CONFIG_BYTES],
}

/// `struct vduse_iotlb_entry`.
#[repr(C)]
#[derive(Default)]
pub(super) struct IotlbEntry {
    pub(super) offset: u64,
    pub(super) start: u64,
    pub(super) last: u64,
    pub(super) access: u8,
}

/// `struct vduse_config_data` without the data behind it.
#[repr(C)]
pub(super) struct ConfigHead {
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// `struct vduse_config_data` with two bytes, the only ones that are ever changed: the status.
#[repr(C)]
pub(super) struct ConfigStatus {
    pub(super) head: ConfigHead,
    pub(super) status: [u8; 2],
}

/// `struct vduse_vq_config`.
#[repr(C)]
#[derive(Default)]
pub(super) struct RingConfig {
    pub(super) index: u32,
    pub(super) max_size: u16,
    pub(super) reserved: [u16; 13],
}

/// `struct vduse_vq_info`. Of the state, split rings use the first field: the index in the
/// available ring.
#[repr(C)]
#[derive(Default)]
pub(super) struct RingInfo {
    pub(super) index: u32,
    pub(super) size: u32,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    pub(super) state: [u16; 4],
    pub(super) ready: u8,
}

/// `struct vduse_vq_eventfd`.
#[repr(C)]
pub(super) struct RingEvent {
    pub(super) index: u32,
    pub(super) fd: c_int,
}

/// A request with the structure that it takes.
pub(super) struct Request<T> {
    opcode: Opcode,
    argument: std::marker::PhantomData<T>,
}

impl<T> Request<T> {
    /// The kernel reads and writes no more than `T` for it.
    const fn new(opcode: Opcode) -> Self {
        Self { opcode, argument: std::marker::PhantomData }
    }
}

pub(super) const SET_API_VERSION: Request<u64> = Request::new(opcode::write::<u64>(GROUP, 0x01));
pub(super) const CREATE_DEV: Request<DeviceConfig> =
    Request::new(opcode::write::<DeviceHead>(GROUP, 0x02));
pub(super) const DESTROY_DEV: Request<[u8; NAME_BYTES]> =
    Request::new(opcode::write::<[u8; NAME_BYTES]>(GROUP, 0x03));
pub(super) const IOTLB_GET_FD: Request<IotlbEntry> =
    Request::new(opcode::read_write::<IotlbEntry>(GROUP, 0x10));
pub(super) const GET_FEATURES: Request<u64> = Request::new(opcode::read::<u64>(GROUP, 0x11));
pub(super) const SET_CONFIG: Request<ConfigStatus> =
    Request::new(opcode::write::<ConfigHead>(GROUP, 0x12));
pub(super) const INJECT_CONFIG_IRQ: Request<()> = Request::new(opcode::none(GROUP, 0x13));
pub(super) const RING_SETUP: Request<RingConfig> =
    Request::new(opcode::write::<RingConfig>(GROUP, 0x14));
pub(super) const RING_GET_INFO: Request<RingInfo> =
    Request::new(opcode::read_write::<RingInfo>(GROUP, 0x15));
pub(super) const RING_SET_KICK: Request<RingEvent> =
    Request::new(opcode::write::<RingEvent>(GROUP, 0x16));
pub(super) const RING_INJECT_IRQ: Request<u32> = Request::new(opcode::write::<u32>(GROUP, 0x17));

/// Makes `request` of the VDUSE file `fd`; what comes back is a file descriptor for
/// [`IOTLB_GET_FD`] and of no meaning otherwise.
#[inline]
pub(super) fn call<T>(
    fd: BorrowedFd<'_>,
    request: &Request<T>,
    argument: &mut T,
) -> io::Result<c_int> {
    let argument = std::ptr::from_mut(argument).cast::<c_void>();
    // SAFETY: each request is bound to the structure that the kernel takes with it (see the
    // constants; a structure with something behind it has its length in it), and on a file that
    // is not VDUSE's the group makes the number unknown.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.opcode as libc::Ioctl, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_and_numbers_are_those_of_the_kernel() {
        assert_eq!(size_of::<DeviceHead>(), 336);
        assert_eq!(std::mem::offset_of!(DeviceConfig, config), 336);
        assert_eq!(size_of::<IotlbEntry>(), 32);
        assert_eq!(size_of::<RingConfig>(), 32);
        assert_eq!(size_of::<RingInfo>(), 48);
        assert_eq!(std::mem::offset_of!(RingInfo, state), 32);
        assert_eq!(std::mem::offset_of!(RingInfo, ready), 40);
        assert_eq!(std::mem::offset_of!(ConfigStatus, status), 8);
        assert_eq!(u64::from(IOTLB_GET_FD.opcode), 0xc020_8110);
        assert_eq!(u64::from(CREATE_DEV.opcode), 0x4150_8102);
        assert_eq!(u64::from(DESTROY_DEV.opcode), 0x4100_8103);
        assert_eq!(u64::from(RING_INJECT_IRQ.opcode), 0x4004_8117);
        assert_eq!(u64::from(INJECT_CONFIG_IRQ.opcode), 0x8113);
    }
}
