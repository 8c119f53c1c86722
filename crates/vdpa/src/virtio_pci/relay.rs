//! The thread beside a running device: it hands the guest's notifications on to the device where
//! the guest cannot reach the doorbell itself, and serves shadow rings.
//!
//! The front-end has the guest's files, too, so kicks are edge-triggered and never read.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eal::channel::{Receiver, Sender, channel};
use eal::event::{Events, Interest};
use eal::{Epoll, EventFd, PeerEvent};
use virtio::device::RingLog;
use virtio::shadow::Relayed;
use virtio::{DirtyLog, ShadowRing};
use virtio_net::control::Kick;

use super::counters::{Counters, RingCounters};
use crate::device::DeviceError;

/// How long to wait for the thread to end: it waits for nothing that answers later.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long after the start to look into shadow rings even if nobody notifies, and how often: a
/// guest that had the device's doorbell before goes on writing to it until the front-end takes it
/// away, and then only the device hears of that.
const WATCH: Duration = Duration::from_secs(10);
const WATCH_PAUSE: Duration = Duration::from_millis(20);

/// Tokens of device interrupts are those of the kicks with this added.
const INTERRUPT: u64 = 1 << 32;
/// The token of the file that wakes the thread.
const WAKE: u64 = u64::MAX;

/// The file by which a guest hears of used chains; it can be replaced.
pub(super) type Call = Arc<Mutex<Option<PeerEvent>>>;

/// A ring's shadow, and what it takes to serve it.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) ring: ShadowRing,
    /// What the device signals.
    pub(super) interrupt: EventFd,
    pub(super) call: Call,
    /// Guest-physical address of the guest's used ring, or the device's event structure.
    pub(super) used: u64,
    pub(super) is_broken: bool,
}

/// A ring of the device.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) index: u16,
    pub(super) doorbell: Kick,
    pub(super) shadow: Option<Box<Shadow>>,
}

/// Something for the thread to do, which answers.
type Order = (Option<Arc<DirtyLog>>, Sender<()>);

/// Where a ring stood in the end, and what is to be known of its last moments.
pub(super) type Ended = (u16, u32, Relayed);

/// The thread.
#[derive(Debug)]
pub(super) struct Relay {
    epoll: Arc<Epoll>,
    wake: Arc<EventFd>,
    stopped: Arc<AtomicBool>,
    orders: Sender<Order>,
    ended: Receiver<Vec<Ended>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts the thread for `entries`. It looks into every ring at once.
    pub(super) fn start(
        name: &str,
        entries: Vec<Entry>,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let epoll = Arc::new(Epoll::new()?);
        let wake = Arc::new(EventFd::new()?);
        epoll.add(&*wake, WAKE, Interest::READ)?;
        for entry in &entries {
            if let Some(shadow) = &entry.shadow {
                epoll.add_edge(&shadow.interrupt, INTERRUPT | u64::from(entry.index))?;
            }
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let (sender, ended) = channel();
        let (orders, incoming) = channel();
        let server = Server {
            name: name.to_owned(),
            epoll: Arc::clone(&epoll),
            wake: Arc::clone(&wake),
            orders: incoming,
            stopped: Arc::clone(&stopped),
            entries,
            counters,
        };
        let thread = std::thread::Builder::new().name(format!("vdpa-{name}"));
        let thread = eal::thread::spawn(thread, move || server.serve(&sender))?;
        Ok(Self { epoll, wake, stopped, orders, ended, thread: Some(thread) })
    }

    /// Takes the file of ring `index` by which the guest notifies.
    pub(super) fn add_kick(&self, index: u16, kick: &PeerEvent) -> std::io::Result<()> {
        self.epoll.add_edge(kick.as_fd(), index.into())
    }

    /// Does not listen to this file any more.
    pub(super) fn remove_kick(&self, kick: &PeerEvent) {
        // It is not there where it could not be added.
        let _ = self.epoll.remove(kick.as_fd());
    }

    /// Has all shadow rings log what is written from now on, or not log any more.
    pub(super) fn set_log(&self, log: Option<Arc<DirtyLog>>) -> Result<(), DeviceError> {
        let (answer, done) = channel();
        let _ = self.orders.send((log, answer));
        let _ = self.wake.signal();
        done.recv_timeout(END_TIMEOUT)
            .map_err(|_| DeviceError("its relay is held up by the front-end's files".to_owned()))
    }

    /// Ends the thread, once the device has been reset; returns where the shadow rings stand.
    /// Nothing, where a file of the front-end holds the thread up.
    pub(super) fn end(mut self) -> Vec<Ended> {
        self.stopped.store(true, Relaxed);
        let _ = self.wake.signal();
        let Ok(ended) = self.ended.recv_timeout(END_TIMEOUT) else {
            tracing::error!("a vDPA relay thread is held up by the front-end's files; it is left");
            return Vec::new();
        };
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a vDPA relay thread has panicked");
        }
        ended
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        let _ = self.wake.signal();
    }
}

/// What the thread has.
struct Server {
    name: String,
    epoll: Arc<Epoll>,
    wake: Arc<EventFd>,
    orders: Receiver<Order>,
    stopped: Arc<AtomicBool>,
    entries: Vec<Entry>,
    counters: Arc<Counters>,
}

impl Server {
    fn serve(mut self, ended: &Sender<Vec<Ended>>) {
        let mut events = Events::new();
        let mut busy = vec![true; self.entries.len()];
        // Whatever has been in the rings since before the start is to be noticed.
        self.entries.iter().for_each(|entry| entry.doorbell.signal(0));
        let has_shadows = self.entries.iter().any(|entry| entry.shadow.is_some());
        let mut watched = has_shadows.then(|| Instant::now() + WATCH);
        while !self.stopped.load(Relaxed) {
            let mut any_busy = false;
            for (entry, busy) in self.entries.iter_mut().zip(&mut busy) {
                *busy = *busy && entry.relay(&self.name, &self.counters);
                any_busy |= *busy;
            }
            let timeout = any_busy.then_some(Duration::ZERO).or(watched.map(|_| WATCH_PAUSE));
            if self.epoll.wait(&mut events, timeout).is_err() {
                break;
            }
            if watched.is_some() && events.as_slice().is_empty() {
                busy.fill(true);
                watched = watched.filter(|end| Instant::now() < *end);
            }
            self.take_orders();
            for event in events.iter().filter(|event| event.token != WAKE) {
                let index = event.token & !INTERRUPT;
                let is_kick = event.token & INTERRUPT == 0;
                let entries = self.entries.iter_mut().zip(&mut busy);
                for (entry, busy) in entries.filter(|(entry, _)| u64::from(entry.index) == index) {
                    *busy |= entry.shadow.is_some();
                    if is_kick {
                        entry.kicked(&self.counters);
                    }
                }
            }
        }
        let ends = std::mem::take(&mut self.entries).into_iter().filter_map(Entry::end);
        let _ = ended.send(ends.collect());
    }

    /// Switches logging as it was told.
    fn take_orders(&mut self) {
        let Ok((log, answer)) = self.orders.try_recv() else { return };
        let _ = self.wake.drain();
        for shadow in self.entries.iter_mut().filter_map(|entry| entry.shadow.as_mut()) {
            shadow.set_log(log.clone());
        }
        let _ = answer.send(());
    }
}

impl Entry {
    /// The guest has notified: the device hears of it at once where it serves the ring itself.
    fn kicked(&self, counters: &Counters) {
        if self.shadow.is_none() {
            self.doorbell.signal(0);
        }
        if let Some(counters) = counters.ring(self.index) {
            counters.kicks.fetch_add(1, Relaxed);
        }
    }

    /// Serves the shadow ring for a while; returns whether there may be more to do.
    fn relay(&mut self, name: &str, counters: &Counters) -> bool {
        let Some(shadow) = self.shadow.as_mut().filter(|shadow| !shadow.is_broken) else {
            return false;
        };
        match shadow.ring.relay() {
            Ok(relayed) => {
                if relayed.notify {
                    self.doorbell.signal(shadow.ring.position());
                }
                shadow.account(relayed, counters.ring(self.index));
                relayed.again
            }
            Err(error) => {
                let index = self.index;
                shadow.is_broken = true;
                tracing::error!("{name}: ring {index} is left alone: {error}");
                counters.broken_rings.fetch_add(1, Relaxed);
                false
            }
        }
    }

    fn end(self) -> Option<Ended> {
        let shadow = *self.shadow?;
        let (base, relayed) = shadow.ring.end();
        if relayed.call {
            signal(&shadow.call);
        }
        Some((self.index, base, relayed))
    }
}

impl Shadow {
    /// Logs what is written, or nothing any more.
    pub(super) fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.ring.set_log(log.map(|log| RingLog::new(log, Some(self.used))));
    }

    /// Counts, and tells the guest of what came back.
    fn account(&self, relayed: Relayed, counters: Option<&RingCounters>) {
        if relayed.call {
            signal(&self.call);
        }
        if let Some(counters) = counters {
            counters.shadow_given.fetch_add(relayed.given.into(), Relaxed);
            counters.shadow_returned.fetch_add(relayed.returned.into(), Relaxed);
            counters.bad_chains.fetch_add(relayed.bad.into(), Relaxed);
        }
    }
}

fn signal(call: &Call) {
    let event = call.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(event) = event {
        let _ = event.signal();
    }
}
