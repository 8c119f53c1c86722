//! Whether a port's interface is there and up. A thread per port sleeps until the kernel says on
//! a netlink socket (rtnetlink(7)) that a link changed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use eal::EventFd;
use ethdev::{Link, PortEvent, PortEvents};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::interfaces::Interfaces;

/// Bytes of an Ethernet header and a VLAN tag.
pub(crate) const LINK_HEADERS: usize = 18;

/// What the queues of a port and its control side share.
#[derive(Debug)]
pub(crate) struct LinkState {
    /// Which driver's port it is, for the log.
    driver: &'static str,
    name: String,
    /// The port was closed, has failed, or its interface is gone.
    dead: AtomicBool,
    /// A reason for the end was given.
    ended: AtomicBool,
    up: AtomicBool,
    /// The interface's MTU, in bytes.
    mtu: AtomicU32,
    changes: AtomicU64,
    pub(crate) events: PortEvents,
}

impl LinkState {
    pub(crate) fn new(driver: &'static str, name: &str, up: bool, mtu: u16) -> Self {
        Self {
            driver,
            name: name.to_owned(),
            dead: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            up: AtomicBool::new(up),
            mtu: AtomicU32::new(u32::from(mtu)),
            changes: AtomicU64::new(0),
            events: PortEvents::new(),
        }
    }

    /// Whether the port is open and its interface there.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        !self.dead.load(Relaxed)
    }

    /// Whether the interface carries frames.
    #[inline]
    pub(crate) fn is_up(&self) -> bool {
        self.is_alive() && self.up.load(Relaxed)
    }

    pub(crate) fn link(&self) -> Link {
        Link { up: self.is_up(), speed_mbps: None, changes: self.changes.load(Relaxed) }
    }

    /// The port is being closed by its owner.
    pub(crate) fn close(&self) {
        self.dead.store(true, Relaxed);
    }

    /// The port ends for a reason that nobody asked for; says so once, however many notice.
    #[cold]
    pub(crate) fn end(&self, reason: &str) {
        let closed = self.dead.swap(true, Relaxed);
        if !self.ended.swap(true, Relaxed) && !closed {
            let (driver, name) = (self.driver, &self.name);
            tracing::warn!("{driver} port on interface '{name}' carries nothing more: {reason}");
            self.changes.fetch_add(u64::from(self.up.swap(false, Relaxed)), Relaxed);
            self.events.announce(PortEvent::Removed);
        }
    }

    /// The longest frame that the interface takes, in bytes: its MTU with an Ethernet header
    /// and a VLAN tag.
    #[inline]
    pub(crate) fn max_len(&self) -> usize {
        self.mtu.load(Relaxed) as usize + LINK_HEADERS
    }

    pub(crate) fn set_mtu(&self, mtu: u16) {
        self.mtu.store(u32::from(mtu), Relaxed);
    }

    fn set_up(&self, up: bool) {
        if self.up.swap(up, Relaxed) != up {
            self.changes.fetch_add(1, Relaxed);
            let (driver, name) = (self.driver, &self.name);
            let state = if up { "up" } else { "down" };
            tracing::info!("interface '{name}' of an {driver} port is {state}");
            self.events.announce(PortEvent::LinkChanged);
        }
    }
}

/// Whether interface flags say that frames can pass.
pub(crate) const fn carries(flags: i32) -> bool {
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    flags & wanted == wanted
}

/// The thread. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl LinkWatch {
    /// Watches interface `index` of the calling thread's network namespace. What happened
    /// before is not seen, so the caller looks at the interface afterwards.
    pub(crate) fn start(index: u32, state: Arc<LinkState>) -> io::Result<Self> {
        let messages = link_messages()?;
        let asker = Interfaces::new()?;
        let stop = EventFd::new()?;
        let stopped = stop.try_clone()?;
        let thread = thread::Builder::new().name(format!("link-{index}")).spawn(move || {
            while wait(&messages, &stopped) && !look(&messages, &asker, index, &state) {}
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        let signalled = self.stop.signal();
        if let Some(thread) = self.thread.take()
            && signalled.is_ok()
            // A listener that closes the port runs on the thread itself.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a thread that watches an interface has panicked");
        }
    }
}

/// A socket that gets a message for every change of any interface.
fn link_messages() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let group = u32::try_from(libc::RTMGRP_LINK).map_err(io::Error::other)?;
    bind(&socket, &SocketAddrNetlink::new(0, group))?;
    Ok(socket)
}

/// Sleeps until there are messages; `false` when it is time to stop.
fn wait(messages: &OwnedFd, stop: &EventFd) -> bool {
    let stop = stop.as_fd();
    let mut fds = [PollFd::new(messages, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
    loop {
        return match poll(&mut fds, None) {
            Ok(_) => fds.get(1).is_some_and(|stop| stop.revents().is_empty()),
            Err(Errno::INTR) => continue,
            Err(_) => false,
        };
    }
}

/// Reads all messages, asks the kernel how the interface is now, and returns whether it is gone.
///
/// The messages may be about anything, and some may be lost, so all that is taken from them is
/// that an interface of this number was deleted, or has left for another namespace.
fn look(messages: &OwnedFd, asker: &Interfaces, index: u32, state: &LinkState) -> bool {
    let mut buffer = vec![0; 16 << 10];
    let mut gone = false;
    loop {
        match recv(messages, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) if len > 0 => {
                gone |= tells_deletion(buffer.get(..len).unwrap_or_default(), index);
            }
            // The kernel had no room for some.
            Err(Errno::NOBUFS | Errno::INTR) => {}
            _ => break,
        }
    }
    let now = asker.name(index).and_then(|name| Ok((asker.flags(&name)?, asker.mtu(&name)?)));
    gone |= now.as_ref().is_err_and(|cause| cause.raw_os_error() == Some(libc::ENODEV));
    if gone {
        state.end("the interface was deleted or moved away");
    } else if let Ok((flags, mtu)) = now {
        state.set_mtu(mtu);
        state.set_up(carries(flags));
    }
    gone
}

/// Whether one of these messages says that interface `index` is deleted.
fn tells_deletion(mut messages: &[u8], index: u32) -> bool {
    // `struct nlmsghdr`: length, type, flags, sequence number, port. `struct ifinfomsg`: family,
    // padding, type, index, flags, change mask. All in the host's byte order.
    const HEADER: usize = 16;
    while let Some((header, body)) = messages.split_first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([t0, t1]);
        if let Some([family, _, _, _, i0, i1, i2, i3]) = body.first_chunk::<8>()
            && kind == libc::RTM_DELLINK
            // A bridge that loses a port says so with a family of its own.
            && i32::from(*family) == libc::AF_UNSPEC
            && u32::from_ne_bytes([*i0, *i1, *i2, *i3]) == index
            && len >= HEADER + 8
        {
            return true;
        }
        let next = len.max(HEADER).checked_next_multiple_of(4);
        let Some(rest) = next.and_then(|next| messages.get(next..)) else { break };
        messages = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut bytes = 32_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn the_deletion_of_the_interface_is_found_among_other_messages() {
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        let mut all = message(libc::RTM_NEWLINK, 0, 7);
        all.extend(message(libc::RTM_DELLINK, 0, 8));
        all.extend(message(libc::RTM_DELLINK, bridge, 7));
        assert!(!tells_deletion(&all, 7));
        assert!(tells_deletion(&all, 8));
        all.extend(message(libc::RTM_DELLINK, 0, 7));
        assert!(tells_deletion(&all, 7));
        assert!(!tells_deletion(&all[..all.len() - 12], 7), "cut short");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = tells_deletion(&bytes, 1);
        }
    }
}
