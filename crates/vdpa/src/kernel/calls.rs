//! What the driver asks of the kernel, so that tests can put a model in its place.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use eal::Mapping;
use eal::dma::DmaBacking;
use virtio::memory::Region;

/// Memory of this process for a device to reach at an address of its own.
///
/// It is made of memory that may be given away only, since a device reads and writes it; and it keeps
/// that memory, so that its addresses are not those of something else when the kernel maps them.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Where the device finds it.
    pub(super) iova: u64,
    /// Length in bytes.
    pub(super) len: u64,
    memory: Memory,
}

/// Whose memory it is.
#[derive(Clone, Debug)]
enum Memory {
    Guest(Arc<Mapping>),
    Own(Arc<DmaBacking>),
}

impl Piece {
    /// A region of a guest's memory, at its guest-physical address.
    pub(super) fn guest(region: &Region) -> Self {
        let Region { guest_addr, mapping, .. } = region;
        let (iova, len) = (*guest_addr, mapping.len() as u64);
        Self { iova, len, memory: Memory::Guest(Arc::clone(mapping)) }
    }

    /// Memory of our own, at `iova`.
    pub(super) fn own(memory: &Arc<DmaBacking>, iova: u64) -> Self {
        let len = memory.shared().len() as u64;
        Self { iova, len, memory: Memory::Own(Arc::clone(memory)) }
    }

    /// Where this process has it.
    pub(super) fn host_address(&self) -> u64 {
        let host: NonNull<u8> = match &self.memory {
            Memory::Guest(mapping) => mapping.ptr(),
            Memory::Own(backing) => backing.shared().as_ptr(),
        };
        host.addr().get() as u64
    }

    /// Its last address of the device's; `None` where that is beyond all addresses.
    pub(super) fn last(&self) -> Option<u64> {
        self.iova.checked_add(self.len.checked_sub(1)?)
    }
}

/// The address space that all rings are in, unless they are put elsewhere.
pub(super) const GUEST_SPACE: u32 = 0;

/// A change of what a device reaches.
#[derive(Clone, Debug)]
pub(super) enum Iotlb {
    /// Maps memory, for reading and writing.
    Update(Piece),
    /// Unmaps what is mapped at `iova`, `len` bytes of it.
    Invalidate { iova: u64, len: u64 },
    /// The device hears of what follows
    BatchBegin,
    /// with this, all at once.
    BatchEnd,
}

/// Addresses of the parts of a ring, as the device sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingAddresses {
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

/// An open `/dev/vhost-vdpa-N` (`linux/vhost.h`): what a method does not say of itself is said
/// there. Values are the device's own and were not checked.
pub(super) trait Calls: Send {
    /// The kind of device (virtio 1.3 section 5).
    fn device_id(&self) -> io::Result<u32>;
    /// Makes this process the one whose memory is mapped.
    fn set_owner(&self) -> io::Result<()>;
    fn features(&self) -> io::Result<u64>;
    fn set_features(&self, features: u64) -> io::Result<()>;
    fn backend_features(&self) -> io::Result<u64>;
    fn set_backend_features(&self, features: u64) -> io::Result<()>;
    fn status(&self) -> io::Result<u8>;
    fn set_status(&self, status: u8) -> io::Result<()>;
    /// Bytes of the configuration space.
    fn config_size(&self) -> io::Result<u32>;
    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> io::Result<()>;
    fn write_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()>;
    /// The number of rings, a control queue's included.
    fn ring_count(&self) -> io::Result<u32>;
    /// Most entries of a ring.
    fn max_ring_size(&self) -> io::Result<u16>;
    /// The first and the last address that can be mapped.
    fn iova_range(&self) -> io::Result<(u64, u64)>;
    /// The number of address spaces.
    fn space_count(&self) -> io::Result<u32>;
    /// The group that a ring is in; rings of one group share an address space.
    fn ring_group(&self, index: u16) -> io::Result<u32>;
    fn set_group_space(&self, group: u32, space: u32) -> io::Result<()>;
    fn iotlb(&self, space: u32, change: Iotlb) -> io::Result<()>;
    fn set_config_call(&self, call: Option<BorrowedFd<'_>>) -> io::Result<()>;
    fn set_ring_size(&self, index: u16, size: u16) -> io::Result<()>;
    fn set_ring_addresses(&self, index: u16, addresses: RingAddresses) -> io::Result<()>;
    fn set_ring_base(&self, index: u16, base: u32) -> io::Result<()>;
    fn ring_base(&self, index: u16) -> io::Result<u32>;
    fn set_ring_kick(&self, index: u16, kick: Option<BorrowedFd<'_>>) -> io::Result<()>;
    fn set_ring_call(&self, index: u16, call: Option<BorrowedFd<'_>>) -> io::Result<()>;
    fn set_ring_enabled(&self, index: u16, enabled: bool) -> io::Result<()>;
    /// Stops the device so that ring bases can be asked for.
    fn suspend(&self) -> io::Result<()>;
}

impl fmt::Debug for dyn Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls(..)")
    }
}
