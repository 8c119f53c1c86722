//! AF_XDP sockets: one per queue pair, with memory and rings of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_xdp_rx_ring_size, set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size,
    set_xdp_umem_fill_ring_size, set_xdp_umem_reg, xdp_mmap_offsets, xdp_options,
};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XdpOptionsFlags, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::ring::{Chunk, Consumer, Descriptor, Offsets, Producer};
use super::umem::{CHUNK, Umem};
use crate::kernel::interface::{NotOpened, socket_refused};
use crate::kernel::socket::{enlarge_send_buffer, set_number};

/// Frames of a burst that busy polling takes from the driver at once (`SO_BUSY_POLL_BUDGET`).
const BUSY_POLL_BUDGET: i32 = 64;

/// Microseconds that the kernel may poll in a sleeping call (`SO_BUSY_POLL`).
const BUSY_POLL_TIME: i32 = 20;

/// How long to wait for what a former owner of a queue leaves behind: the kernel takes its
/// sockets down some time after the process has ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(10);

/// How frames get from the device to the socket's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// Without a copy where the driver can, otherwise by the kernel's copy.
    Any,
    /// By the kernel's copy.
    Copy,
    /// Without a copy.
    ZeroCopy,
}

/// What a socket is to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) ifindex: u32,
    pub(super) queue: u32,
    /// Chunks and ring entries in each direction, a power of two.
    pub(super) size: u32,
    pub(super) transfer: Transfer,
    pub(super) busy_poll: bool,
    /// How long to wait for what a former owner of the queue leaves behind.
    pub(super) patience: Duration,
}

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) umem: Arc<Umem>,
    pub(super) fill: Producer<Chunk>,
    pub(super) completion: Consumer<Chunk>,
    pub(super) rx: Consumer<Descriptor>,
    pub(super) tx: Producer<Descriptor>,
    /// Frames pass without a copy by the kernel.
    pub(super) zero_copy: bool,
    /// Frames may have several pieces.
    pub(super) multi_buffer: bool,
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub(super) struct Failure {
    /// What was being done.
    step: &'static str,
    cause: io::Error,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |cause| Failure { step, cause: cause.into() }
}

/// What [`Failure::step`] is when there can be no AF_XDP socket at all.
const OPENING: &str = "open";
/// As above, when the memory could not be registered.
const REGISTERING: &str = "register memory for frames";
/// As above, when the socket could not be bound to the queue.
const BINDING: &str = "bind to the queue";

impl Failure {
    /// For people: what to do about it.
    pub(super) fn explain(&self, plan: &Plan) -> NotOpened {
        let Self { step, cause } = self;
        let (queue, size) = (plan.queue, plan.size);
        NotOpened::Refused(match (*step, cause.raw_os_error()) {
            (BINDING, Some(libc::ENODEV | libc::ENXIO)) => return NotOpened::Gone,
            (OPENING, _) => socket_refused(cause, "AF_XDP", "CAP_NET_RAW"),
            (REGISTERING, Some(libc::ENOBUFS | libc::ENOMEM)) => {
                let kib = 2 * u64::from(size) * CHUNK as u64 / 1024;
                format!(
                    "queue {queue} needs {kib} KiB of locked memory, which is more than this \
                 process may have; raise the limit (ulimit -l), or use a smaller queue_size"
                )
            }
            (BINDING, Some(libc::EBUSY)) => {
                format!("queue {queue} is in use by another AF_XDP socket; end its process")
            }
            (BINDING, Some(libc::EINVAL)) => {
                format!("the interface has no queue {queue}; use queues={queue}, or fewer")
            }
            (BINDING, Some(libc::EOPNOTSUPP)) if plan.transfer == Transfer::ZeroCopy => {
                "its driver cannot do zero-copy; use mode=copy or mode=auto".to_owned()
            }
            _ => format!("cannot {step} of queue {queue}: {cause}"),
        })
    }
}

/// A socket that is not bound as yet.
fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::XDP, SocketType::RAW, flags, None)?)
}

/// Whether this process may open AF_XDP sockets; the error is the reason.
pub(super) fn check_rights() -> Result<(), String> {
    unbound().map(drop).map_err(|cause| socket_refused(&cause, "AF_XDP", "CAP_NET_RAW"))
}

/// Whether a socket that was bound still is: the kernel unbinds it when the interface is deleted
/// or leaves for another network namespace, should it come back or not.
pub(super) fn is_bound(fd: BorrowedFd<'_>) -> bool {
    // There is never anything to read; kernels before 5.11 say no more than that.
    recv(fd, &mut [0_u8; 0], RecvFlags::DONTWAIT) != Err(Errno::NXIO)
}

impl Socket {
    /// Opens a socket and binds it to a queue. All its receive chunks are with the kernel then.
    pub(super) fn open(plan: &Plan) -> Result<Self, Failure> {
        let fd = unbound().map_err(failed(OPENING))?;
        let umem = Umem::new(plan.size).map_err(failed("allocate memory for frames"))?;
        register(fd.as_fd(), &umem).map_err(failed(REGISTERING))?;
        // The kernel tells of a frame before it tells that it took its chunk from the fill
        // ring, so for a moment a chunk may seem to be in there although it is ours again.
        let fill_size = plan.size.saturating_mul(2);
        set_sizes(fd.as_fd(), plan.size, fill_size).map_err(failed("size the rings"))?;
        let mut socket =
            Self::map(fd, umem, plan.size, fill_size).map_err(failed("map the rings"))?;
        socket.fill_all();
        if plan.busy_poll {
            busy_poll(socket.fd.as_fd()).map_err(failed("set busy polling"))?;
        }
        enlarge_send_buffer(socket.fd.as_fd());
        socket.multi_buffer = bind_patiently(&socket.fd, plan).map_err(failed(BINDING))?;
        let options = xdp_options(&socket.fd).unwrap_or(XdpOptionsFlags::empty());
        socket.zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        Ok(socket)
    }

    fn map(fd: OwnedFd, umem: Umem, size: u32, fill_size: u32) -> io::Result<Self> {
        let offsets = xdp_mmap_offsets(&fd)?;
        let [rx, tx] = [&offsets.rx, &offsets.tx].map(places);
        let [fill, completion] = [&offsets.fr, &offsets.cr].map(places);
        let tx_at = u64::try_from(libc::XDP_PGOFF_TX_RING).map_err(io::Error::other)?;
        Ok(Self {
            rx: Consumer::map(fd.as_fd(), 0, &rx?, size)?,
            tx: Producer::map(fd.as_fd(), tx_at, &tx?, size)?,
            fill: Producer::map(fd.as_fd(), libc::XDP_UMEM_PGOFF_FILL_RING, &fill?, fill_size)?,
            completion: Consumer::map(
                fd.as_fd(),
                libc::XDP_UMEM_PGOFF_COMPLETION_RING,
                &completion?,
                size,
            )?,
            fd: Arc::new(fd),
            umem: Arc::new(umem),
            zero_copy: false,
            multi_buffer: false,
        })
    }

    /// Gives all receive chunks to the kernel.
    fn fill_all(&mut self) {
        let count = self.umem.count();
        for number in 0..count {
            self.fill.write(number, Umem::receive_address(number));
        }
        self.fill.submit(count);
    }
}

/// Places in a ring; kernels before 5.4 have no flags, and no need-wakeup.
fn places(offsets: &XdpRingOffset) -> io::Result<Offsets> {
    let flags = offsets.flags.ok_or_else(|| io::Error::other("Linux 5.4 or later is needed"))?;
    let (producer, consumer) = (offsets.producer, offsets.consumer);
    Ok(Offsets { producer, consumer, flags, entries: offsets.desc })
}

fn register(fd: BorrowedFd<'_>, umem: &Umem) -> io::Result<()> {
    let (addr, len) = umem.range();
    let chunk_size = u32::try_from(CHUNK).map_err(io::Error::other)?;
    let flags = XdpUmemRegFlags::empty();
    // The kernel keeps the pages, so nothing happens to them when they are unmapped first.
    set_xdp_umem_reg(
        fd,
        XdpUmemReg { addr, len, chunk_size, headroom: 0, flags, tx_metadata_len: 0 },
    )?;
    Ok(())
}

fn set_sizes(fd: BorrowedFd<'_>, size: u32, fill_size: u32) -> io::Result<()> {
    set_xdp_umem_fill_ring_size(fd, fill_size)?;
    set_xdp_umem_completion_ring_size(fd, size)?;
    set_xdp_rx_ring_size(fd, size)?;
    set_xdp_tx_ring_size(fd, size)?;
    Ok(())
}

fn busy_poll(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_number(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
    set_number(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, BUSY_POLL_TIME)?;
    set_number(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, BUSY_POLL_BUDGET)
}

/// Binds the socket, and returns whether frames may have several pieces.
fn bind_patiently(fd: &OwnedFd, plan: &Plan) -> io::Result<bool> {
    let wanted = match plan.transfer {
        Transfer::Any => SocketAddrXdpFlags::empty(),
        Transfer::Copy => SocketAddrXdpFlags::XDP_COPY,
        Transfer::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
    } | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    let pieces = SocketAddrXdpFlags::XDP_USE_SG;
    let bind_with = |flags| {
        let address = SocketAddrXdp::new(flags, plan.ifindex, plan.queue);
        patiently(plan.patience, |cause| *cause == Errno::BUSY, || bind(fd, &address))
    };
    match bind_with(wanted | pieces) {
        Ok(()) => Ok(true),
        // Before Linux 6.6, or a driver that cannot.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(bind_with(wanted).map(|()| false)?),
        Err(error) => Err(error.into()),
    }
}

/// Tries again for a while where an error says that something is in use: what a process that was killed
/// has left goes away by itself.
pub(super) fn patiently<T, E>(
    patience: Duration,
    is_busy: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}
