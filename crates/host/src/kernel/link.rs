//! Whether a port's interface is there and up. A thread per port sleeps until the kernel says on
//! a netlink socket (rtnetlink(7)) that a link changed.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use eal::EventFd;
use eal::time::{Alarm, Time};
use ethdev::{Link, PortEvent, PortEvents};
use packet::LINK_HEADERS;
use packet::headers::ethernet::{HEADER_LEN, TAG_LEN};

use super::news::News;

/// What all interfaces take beside their MTU.
const ONE_TAG: usize = HEADER_LEN + TAG_LEN;

/// What the queues of a port and its control side share.
#[derive(Debug)]
pub(crate) struct LinkState {
    /// Which driver's port it is, for the log.
    driver: &'static str,
    name: String,
    /// The port was closed, has failed, or its interface is not there.
    dead: AtomicBool,
    /// The port was closed, which is for good.
    closed: AtomicBool,
    up: AtomicBool,
    /// The interface's MTU, in bytes.
    mtu: AtomicU32,
    /// What a frame may have beside the MTU, in bytes.
    headers: AtomicUsize,
    changes: AtomicU64,
    /// Wakes the thread that watches the interface, once there is one.
    watch: OnceLock<Arc<EventFd>>,
    pub(crate) events: PortEvents,
}

impl LinkState {
    /// Of a port whose interface is not there.
    pub(crate) fn new(driver: &'static str, name: &str) -> Self {
        Self {
            driver,
            name: name.to_owned(),
            dead: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            up: AtomicBool::new(false),
            mtu: AtomicU32::new(1500),
            headers: AtomicUsize::new(ONE_TAG),
            changes: AtomicU64::new(0),
            watch: OnceLock::new(),
            events: PortEvents::new(),
        }
    }

    /// Of a port whose interface is there.
    #[cfg(test)]
    pub(crate) fn attached(driver: &'static str, name: &str, up: bool, mtu: u16) -> Self {
        let state = Self::new(driver, name);
        state.attach(up, mtu);
        state
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
        self.closed.store(true, Relaxed);
        self.dead.store(true, Relaxed);
    }

    /// The port has its interface, from now on.
    pub(crate) fn attach(&self, up: bool, mtu: u16) {
        self.set_mtu(mtu);
        self.dead.store(self.closed.load(Relaxed), Relaxed);
        self.count(up);
    }

    /// The port is opened with its link as it is now: changes are counted from here on.
    pub(crate) fn open(&self) {
        self.changes.store(0, Relaxed);
    }

    /// The port has no interface any more.
    pub(crate) fn detach(&self) {
        self.dead.store(true, Relaxed);
        self.count(false);
    }

    /// The queues carry nothing more, for a reason that nobody asked for, until the port gets its
    /// interface anew; says so once, however many notice.
    #[cold]
    pub(crate) fn end(&self, reason: &str) {
        if !self.dead.swap(true, Relaxed) {
            let (driver, name) = (self.driver, &self.name);
            tracing::warn!("{driver} port on interface '{name}' carries nothing more: {reason}");
            self.count(false);
            self.events.announce(PortEvent::Removed);
        }
    }

    /// A queue has found that the interface is gone: has the thread that watches it look, which
    /// hears of it by no message where the interface was in another network namespace.
    #[cold]
    pub(crate) fn lose(&self) {
        self.end("the interface was deleted");
        if let Some(watch) = self.watch.get() {
            // It fails when the counter is full, and the thread is woken then.
            let _ = watch.signal();
        }
    }

    /// The longest frame that the interface takes, in bytes: its MTU with an Ethernet header and
    /// VLAN tags.
    #[inline]
    pub(crate) fn max_len(&self) -> usize {
        self.mtu.load(Relaxed) as usize + self.headers.load(Relaxed)
    }

    /// Whether the interface takes a second tag beside its MTU. Those of network cards do. Where the
    /// kernel itself hands frames on, as between the ends of a virtual cable, it counts the second
    /// tag against the MTU (Linux: `is_skb_forwardable`), and what is longer is lost uncounted.
    pub(crate) fn set_two_tags(&self, two: bool) {
        self.headers.store(if two { LINK_HEADERS } else { ONE_TAG }, Relaxed);
    }

    pub(crate) fn set_mtu(&self, mtu: u16) {
        self.mtu.store(u32::from(mtu), Relaxed);
    }

    /// The interface has gone up or down, or it has not.
    pub(crate) fn set_up(&self, up: bool) {
        if self.count(up) {
            let (driver, name) = (self.driver, &self.name);
            let state = if up { "up" } else { "down" };
            tracing::info!("interface '{name}' of an {driver} port is {state}");
        }
    }

    /// Counts a change, if it is one, which is to be announced when no lock is held.
    fn count(&self, up: bool) -> bool {
        let changed = self.up.swap(up, Relaxed) != up;
        self.changes.fetch_add(u64::from(changed), Relaxed);
        changed
    }
}

/// Whether interface flags say that frames can pass.
pub(crate) const fn carries(flags: i32) -> bool {
    let wanted = libc::IFF_UP | libc::IFF_RUNNING;
    flags & wanted == wanted
}

/// How long to wait where something is to be tried again, or is nothing that the kernel tells of.
const AGAIN: Duration = Duration::from_secs(1);

/// When to look at an interface next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// When the kernel tells of a change.
    AtChange,
    /// After a while, and not before: looking may itself be what the kernel tells of.
    Later,
    /// When the kernel tells of a change, and after a while.
    Soon,
}

/// The thread. Dropping this ends it.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    stopped: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl LinkWatch {
    /// Has `look` called whenever something has changed about an interface of the calling thread's
    /// network namespace, and once at the start, since what happened before is not seen. The
    /// thread has that namespace too. `time` is the clock by which it looks again.
    pub(crate) fn start(
        state: &LinkState,
        time: &Time,
        mut look: impl FnMut() -> Next + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, alarm) = (News::of_links()?, time.alarm()?);
        let wake = Arc::new(EventFd::new()?);
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, woken) = (Arc::clone(&stopped), Arc::clone(&wake));
        let name = format!("link-{}", state.name);
        let thread = eal::thread::spawn(thread::Builder::new().name(name), move || {
            while !stop.load(Relaxed) {
                let next = look();
                if !wait(&messages, &woken, &alarm, next) {
                    break;
                }
                messages.drain();
            }
        })?;
        // A port has one watch.
        let _ = state.watch.set(Arc::clone(&wake));
        Ok(Self { stopped, wake, thread: Some(thread) })
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        let signalled = self.wake.signal();
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

/// Sleeps until it is time to look; `false` when that cannot be.
fn wait(messages: &News, wake: &EventFd, alarm: &Alarm, next: Next) -> bool {
    let due = (next != Next::AtChange).then(|| alarm.now() + AGAIN);
    let news = (next != Next::Later).then_some(messages.as_fd());
    alarm.wait(&[Some(wake.as_fd()), news], due).is_ok() && wake.drain().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::PATIENCE;

    #[test]
    fn a_port_that_gets_its_interface_again_carries_frames_unless_it_was_closed() {
        let state = LinkState::new("AF_XDP", "test0");
        assert!(!state.is_alive() && !state.link().up);
        state.attach(true, 9000);
        assert!(state.is_up());
        state.open();
        assert_eq!((state.max_len(), state.link().changes), (9018, 0));
        state.set_two_tags(true);
        assert_eq!(state.max_len(), 9022);
        state.end("a reason");
        state.end("a second one");
        assert_eq!((state.is_alive(), state.link().changes), (false, 1));
        state.attach(true, 1500);
        state.set_up(true);
        assert_eq!((state.is_up(), state.link().changes), (true, 2));
        state.detach();
        state.close();
        state.attach(true, 1500);
        assert!(!state.is_alive());
    }

    #[test]
    fn the_watch_looks_at_once_and_whenever_a_queue_loses_the_interface() {
        let state = LinkState::attached("TAP", "test0", true, 1500);
        let (sender, looks) = std::sync::mpsc::channel();
        let watch = LinkWatch::start(&state, &Time::system(), move || {
            sender.send(()).unwrap();
            Next::AtChange
        });
        let watch = watch.unwrap();
        looks.recv_timeout(PATIENCE).unwrap();
        state.lose();
        assert!(!state.is_alive());
        looks.recv_timeout(PATIENCE).unwrap();
        drop(watch);
        // The thread is gone, and what it holds with it.
        looks.iter().for_each(drop);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_looked_at_again_when_it_is_time() {
        for next in [Next::Later, Next::Soon] {
            let time = Time::stopped();
            let state = LinkState::attached("TAP", "test0", true, 1500);
            let (sender, looks) = std::sync::mpsc::channel();
            let watch = LinkWatch::start(&state, &time, move || {
                sender.send(()).unwrap();
                next
            });
            looks.recv_timeout(PATIENCE).unwrap();
            for _ in 0..3 {
                // Time may go on before the thread waits, and has to go on afterwards then.
                let looked = (0..20_000).any(|_| {
                    time.warp(AGAIN);
                    looks.recv_timeout(Duration::from_millis(1)).is_ok()
                });
                assert!(looked, "{next:?}");
            }
            drop(watch);
        }
    }
}
