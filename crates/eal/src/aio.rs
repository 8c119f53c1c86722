//! Asynchronous I/O (io_setup(2)), of which one thing is used: the kernel signals an eventfd when a
//! request has ended, and does so without waiting, whatever the eventfd's flags and count are.
//!
//! The request is a read of no bytes from `/dev/null`, which ends before `io_submit` returns.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Requests that a context is asked to have room for. The system has room for 65,536 of all
/// processes (`fs.aio-max-nr`); the kernel rounds up to what a page holds without counting that.
const ROOM: libc::c_uint = 16;

/// Results that are taken at once: more than a page holds.
const RESULTS: usize = 128;

/// Attempts to submit: each but the first comes after room was made. Threads that share a context
/// may take it away from each other.
const ATTEMPTS: usize = 8;

/// Why there is no asynchronous I/O.
#[derive(Debug, thiserror::Error)]
#[error("a peer's eventfd cannot be signalled without waiting: {step}: {source}; {advice}")]
pub struct AioError {
    /// The call that failed.
    step: &'static str,
    /// What the system says.
    source: io::Error,
    /// What to do about it.
    advice: &'static str,
}

impl AioError {
    fn new(step: &'static str, source: io::Error) -> Self {
        let advice = match source.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => {
                "the kernel needs CONFIG_AIO, and the seccomp profile of a container has to permit \
                 io_setup, io_submit, io_getevents and io_destroy"
            }
            Some(libc::EAGAIN) => "raise the system's limit: sysctl fs.aio-max-nr",
            Some(libc::EMFILE | libc::ENFILE) => {
                "raise the limit of open files: ulimit -n, LimitNOFILE= of a systemd unit"
            }
            _ => "/dev/null has to be there, and the kernel to have CONFIG_AIO",
        };
        Self { step, source, advice }
    }
}

impl From<AioError> for io::Error {
    fn from(error: AioError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// What signals eventfds. There is one for the process; whoever has it knows that it works.
#[derive(Debug)]
pub(crate) struct Aio {
    /// For threads that cannot have a context of their own.
    shared: Context,
    null: OwnedFd,
}

static AIO: OnceLock<Aio> = OnceLock::new();

thread_local! {
    /// A context for each thread, so that threads do not meet at its locks.
    static OWN: OnceCell<Option<Context>> = const { OnceCell::new() };
}

impl Aio {
    /// The process's, which is made by the first who asks.
    pub(crate) fn get() -> Result<&'static Self, AioError> {
        if let Some(aio) = AIO.get() {
            return Ok(aio);
        }
        let made = Self::new()?;
        Ok(AIO.get_or_init(|| made))
    }

    fn new() -> Result<Self, AioError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty())
            .map_err(|errno| AioError::new("opening /dev/null", errno.into()))?;
        let shared = Context::new().map_err(|source| AioError::new("io_setup", source))?;
        let aio = Self { shared, null };
        // A seccomp filter may permit one of the calls and not the other.
        let event = crate::EventFd::new().map_err(|source| AioError::new("eventfd", source))?;
        let mut request = Request::signal(aio.null.as_fd(), event.as_fd());
        let submitted = aio.shared.submit(&mut request);
        submitted.map_err(|errno| AioError::new("io_submit", errno.into()))?;
        aio.shared.take_results().map_err(|source| AioError::new("io_getevents", source))?;
        match event.drain() {
            Ok(true) => Ok(aio),
            _ => Err(AioError::new("io_submit", io::ErrorKind::Unsupported.into())),
        }
    }

    /// Adds 1 to the count of `event`, or nothing where it is at its end, and wakes who waits for
    /// it. `EINVAL`: it is no eventfd.
    #[inline]
    pub(crate) fn signal(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.submit(&mut Request::signal(self.null.as_fd(), event))?)
    }

    /// Whether `fd` is an eventfd. It is not signalled.
    pub(crate) fn is_event(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        // The kernel looks at the eventfd first, and then refuses to read to that address.
        match self.submit(&mut Request::probe(self.null.as_fd(), fd)) {
            Err(Errno::FAULT) => Ok(true),
            Err(Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno.into()),
            Ok(()) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn submit(&self, request: &mut Request) -> Result<(), Errno> {
        let own = OWN.try_with(|own| {
            let own = own.get_or_init(|| Context::new().ok()).as_ref();
            own.map(|context| context.submit(request))
        });
        match own {
            Ok(Some(done)) => done,
            _ => self.shared.submit(request),
        }
    }
}

/// A queue of requests and their results in the kernel.
#[derive(Debug)]
struct Context(libc::c_ulong);

impl Context {
    fn new() -> io::Result<Self> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes one `aio_context_t`, an unsigned long, which must be 0 before.
        match unsafe { libc::syscall(libc::SYS_io_setup, ROOM, &raw mut id) } {
            0 => Ok(Self(id)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Has the kernel carry out `request`.
    fn submit(&self, request: &mut Request) -> Result<(), Errno> {
        for _ in 0..ATTEMPTS {
            match self.try_submit(request) {
                // Results lie where there has to be room for the next ones.
                Err(Errno::AGAIN) => drop(self.take_results()),
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    fn try_submit(&self, request: &mut Request) -> Result<(), Errno> {
        let one: libc::c_long = 1;
        let mut list = [std::ptr::from_mut(request)];
        // SAFETY: the list has one request, which the kernel reads, and in which it writes the
        // key, before this returns. The request itself reads nothing into memory: see its makers.
        let done = unsafe { libc::syscall(libc::SYS_io_submit, self.0, one, list.as_mut_ptr()) };
        if done == 1 {
            return Ok(());
        }
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }

    /// Takes the results that there are, which nobody wants to know. It does not wait.
    fn take_results(&self) -> io::Result<()> {
        let mut results = [Done::default(); RESULTS];
        let (least, most): (libc::c_long, libc::c_long) = (0, RESULTS as libc::c_long);
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: there is room for as many results as are asked for, and the time is a valid one.
        let taken = unsafe {
            let to = results.as_mut_ptr();
            libc::syscall(libc::SYS_io_getevents, self.0, least, most, to, &raw mut now)
        };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and nobody uses it after this.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// A request: `struct iocb` of `linux/aio_abi.h`.
#[repr(C)]
#[derive(Debug, Default)]
struct Request {
    data: u64,
    /// Key and flags, in an order that depends on the machine's; both are 0.
    key_and_flags: [u32; 2],
    /// 0 is to read at an offset.
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event: u32,
}

/// `event` is to be signalled at the end (`IOCB_FLAG_RESFD`).
const WITH_EVENT: u32 = 1;

impl Request {
    /// Reads no bytes from `file`, and signals `event` then.
    fn signal(file: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Self {
        // Descriptors are never negative.
        let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX);
        let (file, event) = (number(file), number(event));
        Self { file, event, flags: WITH_EVENT, ..Self::default() }
    }

    /// Is refused, for the event if that is none, else for the address, which is nobody's.
    fn probe(file: BorrowedFd<'_>, event: BorrowedFd<'_>) -> Self {
        Self { buffer: u64::MAX, bytes: 1, ..Self::signal(file, event) }
    }
}

const _: () = assert!(size_of::<Request>() == 64, "struct iocb has 64 bytes");

/// A result: `struct io_event` of `linux/aio_abi.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Done {
    data: u64,
    request: u64,
    results: [i64; 2],
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::EventFd;

    #[test]
    fn there_is_room_for_ever() {
        let (aio, event) = (Aio::get().unwrap(), EventFd::new().unwrap());
        for _ in 0..1000 {
            aio.signal(event.as_fd()).unwrap();
            assert!(event.drain().unwrap());
        }
    }

    #[test]
    fn threads_may_share_a_context() {
        const EACH: u64 = 2000;
        let (aio, event) = (Aio::get().unwrap(), EventFd::new().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut request = Request::signal(aio.null.as_fd(), event.as_fd());
                        aio.shared.submit(&mut request).unwrap();
                    }
                });
            }
        });
        let mut count = [0; 8];
        rustix::io::read(&event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 4 * EACH);
    }

    #[test]
    fn what_to_do_is_told() {
        let advice =
            |number| AioError::new("io_setup", io::Error::from_raw_os_error(number)).to_string();
        assert!(advice(libc::ENOSYS).contains("CONFIG_AIO"));
        assert!(advice(libc::EAGAIN).contains("fs.aio-max-nr"));
        assert!(advice(libc::EMFILE).contains("LimitNOFILE"));
    }
}
