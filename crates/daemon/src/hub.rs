//! The vDPA devices of this process, on their sockets.

use std::time::Duration;

use ::vdpa::{AttachOptions, Attached, Status, VdpaDevice};
use eal::Access;
use eal::channel::channel;
use eal::time::Time;
use litemap::LiteMap;
use vhost::SocketOptions;

use crate::error::Error;
use crate::vdpa::Vdpa;

/// How long a device may take to be opened or to stop, by the system's clock. Whoever asks for that serves others, too,
/// and a program behind VDUSE may take as long as it likes.
const PATIENCE: Duration = Duration::from_secs(3);

/// The devices, by name.
#[derive(Debug, Default)]
pub struct Hub {
    entries: LiteMap<String, Entry>,
    /// Who may connect to sockets that do not say it themselves.
    access: Access,
    time: Time,
}

/// A device on its socket.
#[derive(Debug)]
struct Entry {
    device: Vdpa,
    attached: Attached,
}

/// A device at one moment.
#[derive(Debug)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// The device and its socket, as it was asked for.
    pub device: Vdpa,
    /// Number of queue pairs that it has.
    pub queue_pairs: u16,
    /// Features that front-ends are offered.
    pub offered_features: u64,
    /// Its state and counters.
    pub status: Status,
}

impl Hub {
    /// No devices; `access` is who may connect to sockets that do not say it themselves, and `time`
    /// the clock by which those that connect try again.
    #[must_use]
    pub const fn new(access: Access, time: Time) -> Self {
        Self { entries: LiteMap::new(), access, time }
    }

    /// Opens a device and attaches it to its socket, as `name`.
    ///
    /// # Errors
    /// When the name is taken, the device cannot be opened, or the socket cannot be used.
    pub fn open(&mut self, name: &str, device: &Vdpa) -> Result<(), Error> {
        self.check_name(name)?;
        let spec = device.spec().map_err(|error| Error::invalid(format!("vdpa.{name}"), error))?;
        let opened = within(PATIENCE, move || ::vdpa::open_spec(spec));
        let no_answer = || {
            let seconds = PATIENCE.as_secs();
            let reason = "from the device or the program behind it (VDUSE)";
            failed(device, format!("no answer within {seconds} s, {reason}"))
        };
        let opened = opened.ok_or_else(no_answer)?.map_err(|error| match error {
            ethdev::Error::Spec { .. } => Error::invalid(format!("vdpa.{name}"), error),
            error => failed(device, error.to_string()),
        })?;
        self.attach(name, device, opened)
    }

    /// Attaches an open device as `name`.
    pub(crate) fn attach(
        &mut self,
        name: &str,
        device: &Vdpa,
        open: Box<dyn VdpaDevice>,
    ) -> Result<(), Error> {
        self.check_name(name)?;
        let socket = SocketOptions { access: device.access().or(self.access), events: None };
        let options = AttachOptions { client: device.client, socket, time: self.time.clone() };
        let attached = ::vdpa::attach(&device.socket, options, open);
        let attached = attached.map_err(|error| failed(device, error.to_string()))?;
        self.entries.insert(name.to_owned(), Entry { device: device.clone(), attached });
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), Error> {
        if self.has(name) {
            let reason = format!("a vDPA device '{name}' exists already");
            return Err(Error::invalid(format!("vdpa.{name}"), reason));
        }
        Ok(())
    }

    /// Whether there is a device of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Detaches a device; returns whether there was one of this name. Its rings are stopped when
    /// this returns, unless the device does not answer.
    pub fn remove(&mut self, name: &str) -> bool {
        self.entries.remove(name).map(|entry| detach(name, entry)).is_some()
    }

    /// Number of devices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All devices with their state and counters.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        self.entries.iter().map(|(name, entry)| report(name, entry)).collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for (name, entry) in std::mem::take(&mut self.entries) {
            detach(&name, entry);
        }
    }
}

fn detach(name: &str, entry: Entry) {
    if within(PATIENCE, move || drop(entry)).is_none() {
        tracing::warn!(device = name, "the vDPA device does not stop; it is left to itself");
    }
}

/// What `work` gives, on a thread of its own; `None` when that takes longer than `limit`, or there
/// can be no more threads. It goes on then, for nobody.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, ended) = channel();
    let thread = std::thread::Builder::new().name("vdpa-wait".into());
    let work = move || {
        // An error says that nobody waits any more.
        let _ = done.send(work());
    };
    eal::thread::spawn(thread, work).ok()?;
    ended.recv_timeout(limit).ok()
}

fn report(name: &str, entry: &Entry) -> Report {
    Report {
        name: name.to_owned(),
        device: entry.device.clone(),
        queue_pairs: entry.attached.queue_pairs(),
        offered_features: entry.attached.offered_features(),
        status: entry.attached.status(),
    }
}

fn failed(device: &Vdpa, reason: String) -> Error {
    Error::Vdpa { device: device.device.clone(), reason }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use ::vdpa::State;
    use vhost::frontend::Frontend;

    use super::*;
    use crate::testing::{Idle, hub_with_idle, idle_at};

    #[test]
    fn devices_come_are_reported_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = hub_with_idle(dir.path()).unwrap();
        let socket = dir.path().join("a");
        let device = hub.report().remove(0);
        assert_eq!((device.name.as_str(), device.status.state), ("a", State::Waiting));
        assert_eq!((device.queue_pairs, device.status.statistics[1].value), (2, 7));
        assert_ne!(device.offered_features & 1 << 32, 0);
        let stream = UnixStream::connect(&socket).unwrap().into();
        let mut front = Frontend::new(stream, "a", Duration::from_secs(10), None).unwrap();
        front.handshake().unwrap();
        assert_eq!(hub.report()[0].status.state, State::Connected);
        let twice = hub.attach("a", &idle_at(&dir.path().join("b")), Box::new(Idle));
        assert!(twice.unwrap_err().to_string().contains("'a' exists already"));
        assert!(hub.has("a") && hub.remove("a") && !hub.remove("a"));
        assert!(!socket.exists());
        let nowhere = idle_at(&dir.path().join("none/a"));
        let failed = hub.attach("b", &nowhere, Box::new(Idle)).unwrap_err();
        assert!(failed.to_string().starts_with("vDPA device test:idle: "), "{failed}");
        assert!(hub.is_empty());
    }

    #[test]
    fn what_takes_too_long_is_left_to_itself() {
        let limit = Duration::from_secs(10);
        assert_eq!(within(limit, || 7), Some(7));
        let (go_on, wait) = channel::<()>();
        let (tell, ended) = channel();
        let slow = move || {
            let _ = wait.recv();
            let _ = tell.send(());
        };
        assert_eq!(within(Duration::from_millis(10), slow), None);
        drop(go_on);
        ended.recv_timeout(limit).unwrap();
    }
}
