//! Locks of the kernel that the attacker holds: a thread of its own waits in the middle of a system
//! call, for a page that never comes, and has what another call on the same file needs.

use std::ffi::c_void;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Case, Heard, May};
use crate::attack::{Attack, SIZE};
use crate::frontend::{RX, Setup, TX};
use crate::fuse::Never;
use crate::message::{feature, number, request};
use crate::ring::Format;

/// Most that wait for an eventfd.
const CROWD: usize = 250_000;

/// Runs `call` on a thread of its own and returns when that waits for the page.
fn hang(call: impl FnOnce() + Send + 'static) -> Result<()> {
    let (sender, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: it takes nothing and cannot fail.
        let _ = sender.send(unsafe { libc::gettid() });
        call();
    });
    let path = format!("/proc/self/task/{}/stat", started.recv()?);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        let stat = std::fs::read_to_string(&path)?;
        // FUSE waits so that signals reach it, or not: but for a page, it waits in a read.
        let wchan = std::fs::read_to_string(path.replace("/stat", "/wchan"))?;
        if stat.contains(") D ") || wchan.contains("request_wait_answer") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("nothing waits for the page");
}

/// A stream of which both ends are ours, one of which is being read by a thread that waits.
fn held_stream(never: &Never) -> Result<(UnixStream, UnixStream)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.write_all(&[0; 64])?;
    let (reader, page) = (theirs.try_clone()?, never.page(0));
    hang(move || {
        let page = page;
        // SAFETY: the page is ours, and nobody looks at what comes.
        unsafe { libc::recv(reader.as_raw_fd(), page as *mut c_void, 64, 0) };
    })?;
    Ok((ours, theirs))
}

/// A signalled eventfd that is in an epoll set of ours, which a thread waits in.
fn held_event(never: &Never, page: usize) -> Result<OwnedFd> {
    let event = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &event, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let page = never.page(page);
    hang(move || {
        // SAFETY: the page is ours, has room for one event, and nobody looks at what comes.
        unsafe { libc::epoll_wait(set.as_raw_fd(), page as *mut libc::epoll_event, 1, -1) };
    })?;
    Ok(event)
}

/// Has the back-end have the last copy of such an eventfd and then close it, in each place.
fn last_copies(attack: &Attack) -> Result<Heard> {
    let never = Never::new()?;
    let mut scene = attack.scene(&Setup::new(Format::Split, SIZE))?;
    let wire = &mut scene.frontend.wire;
    let places = [
        (request::SET_VRING_CALL, number(RX as u64)),
        (request::SET_VRING_CALL, number(TX as u64)),
        (request::SET_VRING_ERR, number(RX as u64)),
        (request::SET_LOG_FD, vec![]),
        (request::SET_VRING_KICK, number(TX as u64)),
    ];
    for (page, (request, payload)) in places.iter().enumerate() {
        let event = held_event(&never, page)?;
        wire.tell(*request, payload, &[event.as_fd()]);
        drop(event);
        let other = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        wire.tell(*request, payload, &[other.as_fd()]);
    }
    scene.dwell(attack.dwell / 2);
    Ok(Heard::on(&scene.frontend.wire))
}

/// Has as many wait for the call eventfds as this process may have files open.
fn crowd(attack: &Attack) -> Result<Heard> {
    // A service of systemd may have half a million.
    let most = Some(CROWD as u64 + 1000);
    if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_err() {
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    }
    let mut scene = attack.scene(&Setup::new(Format::Split, SIZE))?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut crowd = Vec::new();
    while crowd.len() < CROWD {
        let Ok(copy) = scene.frontend.rings[RX].call.try_clone() else { break };
        epoll::add(&set, &copy, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        crowd.push(copy);
    }
    for _ in 0..8 {
        for id in 8..200 {
            let buffer = scene.receive_buffer(id);
            scene.rx().offer_chain(&[buffer]);
        }
        for _ in 0..48 {
            scene.witness_sends(4);
            std::thread::sleep(Duration::from_millis(1));
        }
        while scene.rx().used().is_some() {}
    }
    Ok(Heard::on(&scene.frontend.wire))
}

pub const CASES: &[Case] = &[
    Case::wire("held/crowd", May::Serve, "250,000 wait for a call eventfd", crowd),
    Case::wire("held/channel", May::Serve, "a channel that another thread reads for ever", |a| {
        let never = Never::new()?;
        // A back-end that asks for translations wants answers; others need not read at all.
        let mut setup = Setup::new(Format::Split, SIZE);
        setup.features |= feature::ACCESS_PLATFORM;
        let mut frontend = a.with(&setup)?;
        // More often than a back-end may want to wait for.
        for _ in 0..6 {
            let (ours, theirs) = held_stream(&never)?;
            frontend.wire.tell(request::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]);
            std::thread::sleep(a.dwell / 8);
            drop(ours);
        }
        Ok(Heard::on(&frontend.wire))
    }),
    Case::wire("held/call-socket", May::Serve, "a call socket that is read for ever", |a| {
        let never = Never::new()?;
        let mut scene = a.scene(&Setup::new(Format::Split, SIZE))?;
        let (ours, theirs) = held_stream(&never)?;
        for ring in [RX, TX] {
            let payload = number(ring as u64);
            scene.frontend.wire.tell(request::SET_VRING_CALL, &payload, &[theirs.as_fd()]);
        }
        scene.dwell(a.dwell / 2);
        drop(ours);
        Ok(Heard::on(&scene.frontend.wire))
    }),
    Case::wire(
        "held/epoll",
        May::Serve,
        "eventfds in an epoll set that is waited in for ever",
        last_copies,
    ),
];
