//! The port's thread: it hears of link changes, wakes workers where all share the line, adds up
//! the device's counters before they overflow, and notices when the device is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eal::EventFd;
use eal::time::{Alarm, Time};

use super::interrupts::LinkSource;
use super::port::Shared;
use super::registers::{ICR, IMC, Registers, cause};

/// How often to look at the device in any case: its byte counters overflow after minutes, and a
/// link that changes without an interrupt (on a device that has none) is noticed after this time.
pub(super) const PERIOD: Duration = Duration::from_millis(500);

/// The port's thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start<R: Registers>(
        shared: Arc<Shared<R>>,
        source: LinkSource,
        time: &Time,
    ) -> io::Result<Self> {
        let stop = EventFd::new()?;
        let task = Task { shared, source, stop: stop.try_clone()?, alarm: time.alarm()? };
        let name = format!("igb-{}", task.shared.name);
        let thread = std::thread::Builder::new().name(name);
        let thread = eal::thread::spawn(thread, move || task.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.stop.signal();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of an igb port has panicked");
        }
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// The port is closed.
    Stop,
    /// The kernel wants the device back.
    Requested,
    Interrupt,
    Timeout,
}

/// What the thread has.
struct Task<R: Registers> {
    shared: Arc<Shared<R>>,
    source: LinkSource,
    stop: EventFd,
    alarm: Alarm,
}

impl<R: Registers> Task<R> {
    fn run(mut self) {
        let mut next = self.alarm.now() + PERIOD;
        loop {
            match self.wait(next) {
                Woken::Stop => return,
                Woken::Requested => self.shared.remove("is to be given back"),
                Woken::Interrupt => self.handle(),
                Woken::Timeout => {}
            }
            self.shared.update_link();
            if self.alarm.now() >= next {
                self.shared.collect();
                next = self.alarm.now() + PERIOD;
            }
            if self.shared.is_gone() {
                return;
            }
        }
    }

    /// Waits until `deadline` at most.
    fn wait(&self, deadline: Instant) -> Woken {
        let files = [Some(self.stop.as_fd()), self.shared.pci.release_request(), self.interrupt()];
        // What fails here (no memory) is tried again by the caller's loop.
        match self.alarm.wait(&files, Some(deadline)) {
            Ok(Some(0)) => Woken::Stop,
            Ok(Some(1)) => Woken::Requested,
            Ok(Some(_)) => Woken::Interrupt,
            Ok(None) | Err(_) => Woken::Timeout,
        }
    }

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            LinkSource::Vector(event) => Some(event.as_fd()),
            LinkSource::Line => self.shared.pci.line_interrupt(),
            LinkSource::Nothing => None,
        }
    }

    fn handle(&mut self) {
        match &self.source {
            LinkSource::Nothing => {}
            LinkSource::Vector(event) => {
                let _ = event.drain();
                // Reading clears the cause, so that the next one interrupts.
                let _ = self.shared.hardware.read(ICR);
            }
            LinkSource::Line => {
                let causes = self.shared.hardware.read(ICR);
                if causes & cause::RXDW != 0 {
                    self.wake_workers();
                }
                if let Err(error) = self.shared.pci.unmask_line_interrupt() {
                    let what = self.shared.what();
                    tracing::warn!("{what}: {error}; its link is polled from now on");
                    self.source = LinkSource::Nothing;
                }
            }
        }
    }

    /// Wakes the workers of all queues: the line does not tell them apart. They ask for the next
    /// interrupt when they sleep again.
    fn wake_workers(&self) {
        self.shared.hardware.write(IMC, cause::RXDW);
        for notify in self.shared.lanes.rx.iter().filter_map(|lane| lane.notify.as_ref()) {
            let _ = notify.event.signal();
        }
    }
}
