//! Why a message is refused.

use eal::MemError;
use virtio::memory::MemoryError;

use super::iotlb::hint;
use super::memory::{MAX_MEMORY, MAX_SLOTS};
use crate::backend::BackendError;
use crate::protocol::ProtocolError;

/// Why a message is refused. The text starts with the name of the message.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It does not follow the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Its protocol feature has not been negotiated.
    #[error("{request}: protocol feature {feature} has not been negotiated")]
    NotNegotiated {
        /// Name of the message.
        request: &'static str,
        /// Name of the feature.
        feature: &'static str,
    },
    /// Feature bits that were not offered.
    #[error("{request}: bits {unknown:#x} were not offered{}", hint(*unknown))]
    Features {
        /// Name of the message.
        request: &'static str,
        /// The bits.
        unknown: u64,
    },
    /// Feature bits change while rings run.
    #[error(
        "SET_FEATURES: {new:#x} instead of {old:#x} while rings run; stop them with GET_VRING_BASE"
    )]
    FeaturesInUse {
        /// The bits until now.
        old: u64,
        /// The bits of the message.
        new: u64,
    },
    /// There is no such ring.
    #[error("{request}: ring {index} does not exist, there are {count}")]
    RingIndex {
        /// Name of the message.
        request: &'static str,
        /// The index.
        index: u32,
        /// Number of rings.
        count: u16,
    },
    /// The ring runs.
    #[error("{request}: ring {index} runs; stop it with GET_VRING_BASE")]
    RingRuns {
        /// Name of the message.
        request: &'static str,
        /// Index of the ring.
        index: u16,
    },
    /// The ring cannot start yet.
    #[error("SET_VRING_KICK: ring {index} cannot start before {missing}")]
    RingIncomplete {
        /// Index of the ring.
        index: u16,
        /// The message that is missing.
        missing: &'static str,
    },
    /// A value is out of its range.
    #[error("{request}: {what} is {value:#x}, expected {expected}")]
    Value {
        /// Name of the message.
        request: &'static str,
        /// Which value.
        what: &'static str,
        /// The value.
        value: u64,
        /// What it should have been.
        expected: &'static str,
    },
    /// A descriptor that should be an eventfd and is something else.
    #[error("{request}: the file descriptor is no eventfd but '{found}'")]
    NoEventFd {
        /// Name of the message.
        request: &'static str,
        /// What it is.
        found: String,
    },
    /// A descriptor that should be a socket and is something else.
    #[error("SET_BACKEND_REQ_FD: the file descriptor is no Unix stream socket")]
    NoSocket,
    /// The eventfd cannot be used.
    #[error("{request}: the eventfd cannot be used: {source}")]
    EventFd {
        /// Name of the message.
        request: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// A memory region cannot be mapped.
    #[error("{request}: memory region at guest address {guest_addr:#x} cannot be mapped: {source}")]
    Map {
        /// Name of the message.
        request: &'static str,
        /// Guest-physical address of the region.
        guest_addr: u64,
        /// What is wrong with it.
        source: MemError,
    },
    /// The log of written pages cannot be mapped.
    #[error("SET_LOG_BASE: the log cannot be mapped: {source}")]
    MapLog {
        /// What is wrong with it.
        source: MemError,
    },
    /// The region of chains in flight cannot be made.
    #[error("{request}: the region of chains in flight cannot be made: {source}")]
    Inflight {
        /// Name of the message.
        request: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no file for the state of the device.
    #[error("{request}: the state of the device cannot be moved: {source}")]
    State {
        /// Name of the message.
        request: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The region of chains in flight does not lie as it must.
    #[error(
        "SET_INFLIGHT_FD: {size} bytes at offset {offset}, {needed} at a multiple of 64 expected"
    )]
    InflightPlace {
        /// Size in bytes.
        size: u64,
        /// Where it starts in its file.
        offset: u64,
        /// The size that rings and entries need.
        needed: u64,
    },
    /// The region of chains in flight cannot be mapped.
    #[error("SET_INFLIGHT_FD: the region cannot be mapped: {source}")]
    MapInflight {
        /// What is wrong with it.
        source: MemError,
    },
    /// The region of chains in flight is for smaller rings, or those of the other format.
    #[error(
        "SET_VRING_KICK: ring {index} has {size} entries, the region of chains in flight with \
         {bytes} bytes is for rings of {entries}"
    )]
    InflightArea {
        /// Index of the ring.
        index: u16,
        /// Its entries.
        size: u16,
        /// Entries that the region is for.
        entries: u16,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The log of written pages does not cover what is to be logged.
    #[error(
        "{request}: the log of {len} bytes ends before address {end:#x}; it needs a bit for every \
         4096 bytes below that"
    )]
    LogTooSmall {
        /// Name of the message.
        request: &'static str,
        /// The first address that need not be covered.
        end: u64,
        /// Size of the log in bytes.
        len: usize,
    },
    /// The regions cannot be one guest's memory.
    #[error("{request}: {source}")]
    Memory {
        /// Name of the message.
        request: &'static str,
        /// What is wrong with them.
        source: MemoryError,
    },
    /// No memory is shared.
    #[error(
        "SET_MEM_TABLE: no region; the guest's memory must be shared (QEMU: memory-backend-memfd \
         or -file with share=on)"
    )]
    NoMemory,
    /// More memory than a front-end may share.
    #[error("{request}: {bytes:#x} bytes of memory, at most {MAX_MEMORY:#x} expected")]
    TooMuchMemory {
        /// Name of the message.
        request: &'static str,
        /// All regions together.
        bytes: u64,
    },
    /// All memory slots are taken.
    #[error("ADD_MEM_REG: all {MAX_SLOTS} memory slots are taken")]
    NoSlot,
    /// The region to remove is none of those that were shared.
    #[error("REM_MEM_REG: there is no region at guest address {guest_addr:#x} of {size:#x} bytes")]
    NoSuchRegion {
        /// Guest-physical address of the message.
        guest_addr: u64,
        /// Size of the message in bytes.
        size: u64,
    },
    /// A message of a post-copy migration, or another one meanwhile, at the wrong time.
    #[error("{request}: {expected}")]
    PostcopyOrder {
        /// Name of the message.
        request: &'static str,
        /// What should have been.
        expected: &'static str,
    },
    /// The device refuses it.
    #[error("{request}: the device refuses: {source}")]
    Backend {
        /// Name of the message.
        request: &'static str,
        /// What the device says.
        source: BackendError,
    },
}
