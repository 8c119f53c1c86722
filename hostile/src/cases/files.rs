use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{Mode, OFlags, fcntl_setfl, inotify, open};
use rustix::net::sockopt::set_socket_linger;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::{Case, Heard, May};
use crate::attack::{Attack, SIZE, Scene};
use crate::frontend::{RX, Setup, TX, whole};
use crate::message::{inflight, number, numbers, request, slot, table};
use crate::ring::{Format, fill};

fn plain(setup: Setup) -> Setup {
    setup
}

/// A file to hand over, and what has to be kept for it.
type Odd = (OwnedFd, Box<dyn std::any::Any>);

fn odd(file: impl Into<OwnedFd>) -> Result<Odd> {
    Ok((file.into(), Box::new(())))
}

/// Hands a file over in every place where a descriptor is expected, has frames pass, and goes
/// away: the back-end's is then the last copy, and closing it may take its time.
fn everywhere(attack: &Attack, make: fn() -> Result<Odd>) -> Result<Heard> {
    let mut heard = Heard(String::new());
    for place in 0..9 {
        let mut scene = attack.scene(&Setup::new(Format::Split, SIZE))?;
        for id in 8..40 {
            let buffer = scene.receive_buffer(id);
            scene.rx().offer_chain(&[buffer]);
        }
        let (file, kept) = make()?;
        let wire = &mut scene.frontend.wire;
        let (request, payload) = match place {
            0 => (request::SET_VRING_CALL, number(RX as u64)),
            1 => (request::SET_VRING_KICK, number(TX as u64)),
            2 => (request::SET_VRING_ERR, number(TX as u64)),
            3 => (request::SET_LOG_FD, vec![]),
            4 => (request::SET_LOG_BASE, numbers(&[1 << 20, 0])),
            5 => (request::SET_BACKEND_REQ_FD, vec![]),
            6 => (request::SET_INFLIGHT_FD, inflight(1 << 16, 0, 2, SIZE)),
            7 => (
                request::ADD_MEM_REG,
                slot(&crate::message::Region { guest: 1 << 40, user: 1 << 40, ..whole() }),
            ),
            _ => (request::SET_MEM_TABLE, table(1, &[whole()])),
        };
        wire.tell(request, &payload, &[file.as_fd()]);
        // Where the back-end has let go of it already, it is this process that waits.
        std::thread::spawn(move || drop(file));
        scene.dwell(attack.dwell / 16);
        heard = Heard::on(&scene.frontend.wire);
        drop(scene);
        std::thread::sleep(attack.dwell / 16);
        drop(kept);
    }
    Ok(heard)
}

/// A stream that takes nothing more, and whose close waits for a minute.
fn lingering() -> Result<Odd> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let other = listener.accept()?;
    stream.set_nonblocking(true)?;
    while (&stream).write(&[0; 65_536]).is_ok() {}
    stream.set_nonblocking(false)?;
    set_socket_linger(&stream, Some(Duration::from_secs(60)))?;
    Ok((stream.into(), Box::new((listener, other))))
}

/// A pipe's end for writing that is full, and whose writers wait.
fn full_pipe() -> Result<Odd> {
    let (reader, writer) = std::io::pipe()?;
    fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    while (&writer).write(&[0; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty())?;
    Ok((writer.into(), Box::new(reader)))
}

/// A stream socket that is full, and whose writers wait.
fn full_stream() -> Result<Odd> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    while (&theirs).write(&[0; 4096]).is_ok() {}
    theirs.set_nonblocking(false)?;
    Ok((theirs.into(), Box::new(ours)))
}

fn terminal() -> Result<Odd> {
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR)?;
    odd(master)
}

fn userfault() -> Result<Odd> {
    let flags = rustix::mm::UserfaultfdFlags::CLOEXEC;
    // SAFETY: no memory is registered with it.
    odd(unsafe { rustix::mm::userfaultfd(flags)? })
}

/// Fills an eventfd that the back-end has, and clears its O_NONBLOCK.
fn block(event: &OwnedFd) {
    fill(event);
    let _ = fcntl_setfl(event, OFlags::empty());
}

/// Receive buffers, and frames that come for them: each is a notification.
fn notify(scene: &mut Scene) {
    for id in 8..200 {
        let buffer = scene.receive_buffer(id);
        scene.rx().offer_chain(&[buffer]);
    }
    scene.witness_sends(32);
}

pub const CASES: &[Case] = &[
    Case::rings("eventfd/call-full", May::Serve, "call eventfds full and waiting", plain, |s| {
        block(&s.frontend.rings[RX].call);
        block(&s.frontend.rings[TX].call);
        notify(s);
    }),
    Case::rings("eventfd/kick-full", May::Serve, "kick eventfds full and waiting", plain, |s| {
        block(&s.frontend.rings[RX].kick);
        block(&s.frontend.rings[TX].kick);
        notify(s);
    }),
    Case::rings("eventfd/kick-empty", May::Serve, "kick eventfds empty and waiting", plain, |s| {
        for ring in [RX, TX] {
            let kick = &s.frontend.rings[ring].kick;
            let _ = rustix::io::read(kick, &mut [0_u8; 8]);
            let _ = fcntl_setfl(kick, OFlags::empty());
        }
        // Emptied again whenever the rings are kicked.
        let kick = s.frontend.rings[TX].kick.try_clone();
        std::thread::spawn(move || {
            while kick.as_ref().is_ok_and(|kick| rustix::io::read(kick, &mut [0_u8; 8]).is_ok()) {}
        });
        notify(s);
    }),
    Case::rings(
        "eventfd/error-full",
        May::Serve,
        "an error eventfd full, and a broken ring",
        plain,
        |s| {
            if let Ok(event) = eventfd(0, EventfdFlags::CLOEXEC) {
                block(&event);
                for ring in [RX as u64, TX as u64] {
                    s.frontend.wire.send(request::SET_VRING_ERR, &number(ring), &[event.as_fd()]);
                }
                s.frontend.wire.settle();
            }
            let idx = s.tx().idx();
            s.tx().publish_idx(idx.wrapping_add(0x8000));
            s.tx().kick();
        },
    ),
    Case::rings(
        "eventfd/one-for-all",
        May::Serve,
        "one eventfd as kick, call and error",
        plain,
        |s| {
            if let Ok(event) = eventfd(0, EventfdFlags::CLOEXEC) {
                for ring in [RX as u64, TX as u64] {
                    for request in
                        [request::SET_VRING_CALL, request::SET_VRING_ERR, request::SET_VRING_KICK]
                    {
                        s.frontend.wire.send(request, &number(ring), &[event.as_fd()]);
                    }
                }
                s.frontend.wire.settle();
            }
            notify(s);
        },
    ),
    Case::wire(
        "file/tcp-linger",
        May::Refuse,
        "a full TCP socket that lingers for a minute",
        |a| everywhere(a, lingering),
    ),
    Case::wire("file/pipe-full", May::Refuse, "a full pipe", |a| everywhere(a, full_pipe)),
    Case::wire("file/pipe-read", May::Refuse, "the reading end of an empty pipe", |a| {
        everywhere(a, || {
            let (reader, writer) = std::io::pipe()?;
            Ok((reader.into(), Box::new(writer)))
        })
    }),
    Case::wire("file/stream-full", May::Refuse, "a full Unix stream socket", |a| {
        everywhere(a, full_stream)
    }),
    Case::wire("file/datagram", May::Refuse, "a Unix datagram socket", |a| {
        everywhere(a, || odd(UnixDatagram::unbound()?))
    }),
    Case::wire("file/listener", May::Refuse, "a socket that listens", |a| {
        everywhere(a, || {
            use std::os::linux::net::SocketAddrExt;
            // The one before may still be open.
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ringway-hostile-{}-{next}", std::process::id());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            odd(UnixListener::bind_addr(&address)?)
        })
    }),
    Case::wire("file/udp", May::Refuse, "a UDP socket", |a| {
        everywhere(a, || odd(UdpSocket::bind("127.0.0.1:0")?))
    }),
    Case::wire("file/null", May::Refuse, "/dev/null", |a| {
        everywhere(a, || odd(File::options().read(true).write(true).open("/dev/null")?))
    }),
    Case::wire("file/zero", May::Refuse, "/dev/zero", |a| {
        everywhere(a, || odd(File::options().read(true).write(true).open("/dev/zero")?))
    }),
    Case::wire("file/directory", May::Refuse, "a directory", |a| {
        everywhere(a, || odd(File::open("/")?))
    }),
    Case::wire("file/path-only", May::Refuse, "a file opened with O_PATH", |a| {
        everywhere(a, || {
            Ok((open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?, Box::new(())))
        })
    }),
    Case::wire("file/epoll", May::Refuse, "an epoll set", |a| {
        everywhere(a, || odd(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }),
    Case::wire("file/userfaultfd", May::Refuse, "a userfaultfd", |a| everywhere(a, userfault)),
    Case::wire("file/timerfd", May::Refuse, "a timerfd", |a| {
        everywhere(a, || odd(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?))
    }),
    Case::wire("file/inotify", May::Refuse, "an inotify file", |a| {
        everywhere(a, || odd(inotify::init(inotify::CreateFlags::CLOEXEC)?))
    }),
    Case::wire("file/semaphore", May::Refuse, "an eventfd that is a semaphore", |a| {
        everywhere(a, || odd(eventfd(0, EventfdFlags::SEMAPHORE | EventfdFlags::CLOEXEC)?))
    }),
    Case::wire("file/terminal", May::Refuse, "a pseudo-terminal", |a| everywhere(a, terminal)),
    Case::wire("file/memory-of-a-process", May::Refuse, "/proc/self/mem", |a| {
        everywhere(a, || odd(File::options().read(true).write(true).open("/proc/self/mem")?))
    }),
    Case::wire("file/fuse", May::Refuse, "a file whose reads and whose close wait for ever", |a| {
        everywhere(a, || {
            let (file, kept) = crate::fuse::file()?;
            Ok((file, Box::new(kept)))
        })
    }),
    Case::wire("file/on-disk", May::Refuse, "a file on a disk", |a| {
        everywhere(a, || {
            let file = tempfile::tempfile()?;
            file.set_len(8 << 20)?;
            odd(file)
        })
    }),
];
