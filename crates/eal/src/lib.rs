//! Environment: workers on cores, clock, shared memory, and what they need from the kernel.
//!
//! ```
//! use eal::Workers;
//!
//! let mut workers = Workers::new()?;
//! workers.start("poller", None, |context| {
//!     let mut rounds = 0_u64;
//!     while !context.should_stop() {
//!         rounds += 1; // Poll queues here.
//!     }
//!     assert!(rounds > 0);
//! })?;
//! # std::thread::sleep(std::time::Duration::from_millis(10));
//! workers.stop();
//! assert!(workers.join().iter().all(|exit| exit.panic.is_none()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`access`]: who may connect to a socket in the file system
//! - `aio`: signalling an eventfd without waiting, by asynchronous I/O
//! - [`channel`](mod@channel): channels between control threads
//! - [`clock`]: time-stamp counter, calibrated, and its conversions
//! - [`closer`]: closing files and mappings that a peer has had a hand in
//! - [`companion`]: this program, started once more beside itself
//! - [`confine`](mod@confine): giving up system calls, for processes that do one thing
//! - [`cores`]: core lists and pinning
//! - [`counter`]: single-writer counters and cache-line alignment
//! - [`dma`]: memory that devices reach, and where they find it
//! - [`event`]: eventfd and epoll
//! - [`files`]: how many files the process may have open
//! - [`foreign`]: memory of a peer process, mapped and guarded
//! - [`handover`]: the place where a queue passes between a control thread and its worker
//! - [`htb`]: how the kernel shapes what goes out on an interface
//! - [`huge`]: huge pages for large tables on the heap
//! - [`machine`]: by what the machine is known
//! - [`mem`]: memory of our own that a peer may map
//! - [`pci`]: PCI devices, driven from user space
//! - [`peer_event`]: eventfds that another process has, too
//! - [`routing`]: the addresses and routes of the host
//! - [`sandbox`]: giving up what the process does not need
//! - [`sigbus`]: what happens when a peer takes mapped memory away
//! - [`signals`]: signals as file descriptors
//! - [`sync`]: what threads share, or its stand-in in models
//! - [`thread`]: starting threads
//! - [`time`]: the time of control threads, which tests can stop and move
//! - [`unix`]: Unix sockets in the file system, listened on and connected to
//! - [`userfault`]: memory whose missing pages another process provides
//! - [`worker`]: named threads pinned to cores

pub mod access;
mod aio;
pub mod channel;
pub mod clock;
pub mod closer;
pub mod companion;
pub mod confine;
pub mod cores;
pub mod counter;
pub mod dma;
pub mod event;
pub mod files;
pub mod foreign;
pub mod handover;
pub mod htb;
pub mod huge;
pub mod machine;
pub mod mem;
pub mod netlink;
pub mod pci;
pub mod peer_event;
mod ringer;
pub mod routing;
pub mod sandbox;
pub mod sigbus;
pub mod signals;
pub mod sync;
pub mod thread;
pub mod time;
pub mod unix;
pub mod userfault;
pub mod worker;

pub use access::Access;
pub use aio::AioError;
pub use closer::{Closer, PeerFd};
pub use cores::CoreList;
pub use counter::{CacheAligned, Counter};
pub use dma::{DmaArena, DmaBuffer, DmaMapping, DmaMemory, DmaPart, DmaSlice, DmaSpace};
pub use event::{Epoll, EventFd};
pub use foreign::{Mapping, file_name};
pub use handover::Handover;
pub use huge::huge_vec;
pub use mem::{MemError, SharedMemory};
pub use peer_event::PeerEvent;
pub use worker::{WorkerContext, Workers};
