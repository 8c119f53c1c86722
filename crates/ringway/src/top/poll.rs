//! The thread that asks the switch, so that a switch that does not answer stops no key.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use eal::channel::{Receiver, Sender, channel};
use eal::event::EventFd;

use super::sample::Sample;
use crate::control::client::Client;
use crate::exit::Failure;

/// Time before the second sample, which has the first rates.
const FIRST: Duration = Duration::from_millis(300);

/// Least time between two attempts to reach a switch that is gone.
const RETRY: Duration = Duration::from_millis(500);

/// What the thread tells.
#[derive(Debug)]
pub enum Report {
    /// The switch has answered.
    Sample(Box<Sample>),
    /// It does not, for this reason; it is asked again.
    Lost(String),
}

/// The thread's other end. It ends when this is dropped, once the switch has answered.
#[derive(Debug)]
pub struct Poller {
    interval: Sender<Duration>,
    reports: Receiver<Report>,
    ready: Arc<EventFd>,
}

impl Poller {
    /// Asks the switch at the other end of `client` every `interval`.
    ///
    /// # Errors
    /// When there can be no more threads or files.
    pub fn start(client: Client, interval: Duration) -> Result<Self, Failure> {
        let ready = Arc::new(EventFd::new().map_err(Failure::runtime)?);
        let (commands, intervals) = channel();
        let (sender, reports) = channel();
        let asker = Asker {
            path: client.path().to_owned(),
            client: Some(client),
            interval,
            intervals,
            reports: sender,
            ready: Arc::clone(&ready),
        };
        eal::thread::spawn(thread::Builder::new().name("top-poll".to_owned()), move || asker.run())
            .map_err(|error| Failure::runtime(format!("no thread to ask the switch: {error}")))?;
        Ok(Self { interval: commands, reports, ready })
    }

    /// Signalled when there is something to [`take`](Self::take).
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Has it ask at once, and then every `interval`.
    pub fn set_interval(&self, interval: Duration) {
        // Where it has ended, `take` tells.
        let _ = self.interval.send(interval);
    }

    /// What it has to tell, if anything.
    ///
    /// # Errors
    /// When it has ended, by a panic.
    pub fn take(&self) -> Result<Option<Report>, Failure> {
        match self.reports.try_recv() {
            Ok(report) => Ok(Some(report)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(Failure::runtime("the thread that asks the switch has ended; see the log"))
            }
        }
    }
}

struct Asker {
    path: PathBuf,
    client: Option<Client>,
    interval: Duration,
    intervals: Receiver<Duration>,
    reports: Sender<Report>,
    ready: Arc<EventFd>,
}

impl Asker {
    fn run(mut self) {
        let mut first = true;
        loop {
            let report = match self.ask() {
                Ok(sample) => Report::Sample(Box::new(sample)),
                Err(failure) => {
                    self.client = None;
                    Report::Lost(failure.to_string())
                }
            };
            let lost = matches!(report, Report::Lost(_));
            if self.reports.send(report).is_err() || self.ready.signal().is_err() {
                return;
            }
            let pause = match (lost, first) {
                (true, _) => self.interval.max(RETRY),
                (false, true) => self.interval.min(FIRST),
                (false, false) => self.interval,
            };
            first = false;
            match self.intervals.recv_timeout(pause) {
                Ok(interval) => self.interval = interval,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ask(&mut self) -> Result<Sample, Failure> {
        let client = match &mut self.client {
            Some(client) => client,
            // The same switch again, or the one that has been started in its place; no other.
            None => self.client.insert(Client::connect(Some(self.path.clone()))?),
        };
        Sample::take(client)
    }
}
