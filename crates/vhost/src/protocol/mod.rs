//! The vhost-user wire format (QEMU docs/interop/vhost-user.rst), for both sides.
//!
//! - [`header`]: what every message starts with
//! - [`request`]: the numbers and names of messages
//! - [`payload`]: fixed-size payloads, to and from bytes
//! - [`device_state`]: the payload of messages about the state of a device
//! - [`inflight`]: the payload of messages about the region of chains in flight
//! - [`iotlb`]: the payload of messages about translations
//! - [`message`]: a whole front-end message, its payload and descriptors checked together
//! - [`back_channel`]: the same for messages of the back-end
//!
//! All integers are in the byte order of the machine: both sides run on the same one.

pub mod back_channel;
pub mod device_state;
pub mod header;
pub mod inflight;
pub mod iotlb;
pub mod message;
pub mod payload;
pub mod request;

pub use back_channel::{BackendMessage, VringArea};
pub use device_state::StateTransfer;
pub use header::{HEADER_SIZE, Header, HeaderFlags};
pub use inflight::InflightRegion;
pub use iotlb::IotlbMessage;
pub use message::FrontendMessage;
pub use payload::{ConfigSpace, LogBase, MemoryRegion, Payload, VringAddr, VringFile, VringState};
pub use request::{BackendRequest, FrontendRequest};

/// Largest payload in bytes that is received or sent. The largest message of the protocol that
/// Ringway knows has 264; the rest is room for newer ones, which are read and refused.
pub const MAX_PAYLOAD: usize = 4096;

/// Largest part of a device's configuration space in one message, in bytes (QEMU's limit; a network
/// device has some 30 in all).
pub const MAX_CONFIG: usize = 256;

/// Largest number of file descriptors with one message, which is that of memory regions in
/// SET_MEM_TABLE.
pub const MAX_FDS: usize = 8;

/// Largest number of regions in SET_MEM_TABLE; ADD_MEM_REG can add more one by one.
pub const MAX_TABLE_REGIONS: usize = 8;

bitflags::bitflags! {
    /// Protocol feature bits (chapter "Protocol features"). Bits that are not named here are
    /// neither offered nor accepted.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct ProtocolFeatures: u64 {
        /// Several queue pairs; GET_QUEUE_NUM tells how many.
        const MQ = 1 << 0;
        /// The log of written pages is shared memory.
        const LOG_SHMFD = 1 << 1;
        /// SEND_RARP announces the guest after a migration.
        const RARP = 1 << 2;
        /// Any message can ask for an acknowledgement.
        const REPLY_ACK = 1 << 3;
        /// NET_SET_MTU.
        const MTU = 1 << 4;
        /// A second channel for messages from the back-end.
        const BACKEND_REQ = 1 << 5;
        /// SET_VRING_ENDIAN.
        const CROSS_ENDIAN = 1 << 6;
        /// Crypto sessions.
        const CRYPTO_SESSION = 1 << 7;
        /// Post-copy migration.
        const PAGEFAULT = 1 << 8;
        /// GET_CONFIG and SET_CONFIG.
        const CONFIG = 1 << 9;
        /// The back-end may send file descriptors over its channel.
        const BACKEND_SEND_FD = 1 << 10;
        /// Doorbells of the device, mapped into the guest.
        const HOST_NOTIFIER = 1 << 11;
        /// Buffers in flight are recorded in shared memory.
        const INFLIGHT_SHMFD = 1 << 12;
        /// RESET_DEVICE.
        const RESET_DEVICE = 1 << 13;
        /// Notifications as messages.
        const INBAND_NOTIFICATIONS = 1 << 14;
        /// Memory regions can be added and removed one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The device status byte of virtio is forwarded.
        const STATUS = 1 << 16;
        /// Memory is mapped through Xen.
        const XEN_MMAP = 1 << 17;
        /// Objects shared between back-ends.
        const SHARED_OBJECT = 1 << 18;
        /// The device's state can be saved and loaded.
        const DEVICE_STATE = 1 << 19;
        /// A ring may be stopped while chains are in flight, which are recorded.
        const GET_VRING_BASE_INFLIGHT = 1 << 20;
        /// Addresses are the guest's physical ones.
        const GPA_ADDRESSES = 1 << 21;
        /// Shared memory regions of the device.
        const SHMEM = 1 << 22;
        /// GET_VRING_BASE_SKIP_DRAIN.
        const GET_VRING_BASE_SKIP_DRAIN = 1 << 23;
    }
}

/// A message that does not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A request number that Ringway does not know, or does not implement.
    #[error("request {0} is unknown or not supported")]
    UnknownRequest(u32),
    /// Not a version 1 message.
    #[error("message flags {flags:#x}: version 1 expected in the lowest two bits")]
    Version {
        /// The flags as received.
        flags: u32,
    },
    /// A reply where a request was expected, or the other way around.
    #[error("{request}: flags {flags:#x} have the reply bit wrong")]
    Direction {
        /// Name of the message.
        request: &'static str,
        /// The flags as received.
        flags: u32,
    },
    /// The payload does not have the size that the message asks for.
    #[error("{request}: payload of {got} bytes, expected {expected}")]
    PayloadSize {
        /// Name of the message.
        request: &'static str,
        /// Bytes received.
        got: usize,
        /// Bytes that were expected.
        expected: usize,
    },
    /// The number of file descriptors is not the one that the message asks for.
    #[error("{request}: came with {got} file descriptors, expected {expected}")]
    FdCount {
        /// Name of the message.
        request: &'static str,
        /// Descriptors received.
        got: usize,
        /// Descriptors that were expected.
        expected: usize,
    },
    /// A part of configuration space that has no byte, or more than a message can carry.
    #[error("{request}: {size} bytes of configuration space, 1 to {MAX_CONFIG} expected")]
    ConfigSize {
        /// Name of the message.
        request: &'static str,
        /// The size as received, in bytes.
        size: u32,
    },
    /// A memory table with more regions than a message can carry.
    #[error("SET_MEM_TABLE: {0} regions, at most {MAX_TABLE_REGIONS} expected")]
    TooManyRegions(u32),
    /// A SET_VRING_KICK, CALL, ERR or VRING_HOST_NOTIFIER_MSG whose reserved bits are set.
    #[error("{request}: {value:#x} has bits set above bit 8, which are reserved")]
    VringFile {
        /// Name of the message.
        request: &'static str,
        /// The payload as received.
        value: u64,
    },
}
