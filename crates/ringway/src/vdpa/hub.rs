//! The vDPA devices of this process, on their sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use eal::Access;
use vdpa::{AttachOptions, Attached, State, Status, VdpaDevice};
use vhost::SocketOptions;

use super::placement::Placement;
use super::report::feature_names;
use crate::control::protocol;
use crate::exit::Failure;

/// How long a device may take to be opened or to stop. Whoever asks for that serves others, too,
/// and a program behind VDUSE may take as long as it likes.
const PATIENCE: Duration = Duration::from_secs(3);

/// The devices, by name.
#[derive(Debug, Default)]
pub struct Hub {
    entries: BTreeMap<String, Entry>,
    /// Who may connect to sockets that do not say it themselves.
    access: Access,
}

/// A device on its socket.
#[derive(Debug)]
struct Entry {
    device: String,
    client: bool,
    attached: Attached,
}

impl Hub {
    /// No devices; `access` is who may connect to sockets that do not say it themselves.
    pub fn new(access: Access) -> Self {
        Self { entries: BTreeMap::new(), access }
    }

    /// Opens the device of `placement` and attaches it as `name`.
    ///
    /// # Errors
    /// When the name is taken, the device cannot be opened, or the socket cannot be used.
    pub fn open(&mut self, name: &str, placement: Placement) -> Result<(), Failure> {
        let Placement { device, text, socket, client, access } = placement;
        self.check_name(name)?;
        let opened = within(PATIENCE, move || vdpa::open_spec(device));
        let device = opened.ok_or_else(|| {
            Failure::runtime(format!(
                "vDPA device {text}: no answer within {} s, from the device or the program behind \
                 it (VDUSE)",
                PATIENCE.as_secs()
            ))
        })??;
        self.attach(name, &text, &socket, client, access.or(self.access), device)
    }

    /// Attaches an open device, which `text` stands for, as `name`.
    fn attach(
        &mut self,
        name: &str,
        text: &str,
        socket: &Path,
        client: bool,
        access: Access,
        device: Box<dyn VdpaDevice>,
    ) -> Result<(), Failure> {
        self.check_name(name)?;
        let options = AttachOptions { client, socket: SocketOptions { access, events: None } };
        let attached = vdpa::attach(socket, options, device)
            .map_err(|error| Failure::runtime(format!("vDPA device {text}: {error}")))?;
        let entry = Entry { device: text.to_owned(), client, attached };
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), Failure> {
        if self.has(name) {
            return Err(Failure::runtime(format!("a vDPA device '{name}' exists already")));
        }
        Ok(())
    }

    /// Whether there is a device of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Detaches a device; returns whether there was one of this name. Its rings are stopped when
    /// this returns, unless the device does not answer.
    pub fn remove(&mut self, name: &str) -> bool {
        self.entries.remove(name).map(|entry| detach(name, entry)).is_some()
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// All devices with their state and counters.
    pub fn report(&self) -> Vec<protocol::VdpaDevice> {
        self.entries.iter().map(|(name, entry)| report(name, entry)).collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        while let Some((name, entry)) = self.entries.pop_first() {
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
    let (done, ended) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("vdpa-wait".into());
    thread.spawn(move || done.send(work())).ok()?;
    ended.recv_timeout(limit).ok()
}

fn report(name: &str, entry: &Entry) -> protocol::VdpaDevice {
    let attached = &entry.attached;
    let Status { state, rings, mapped_doorbells, features, statistics } = attached.status();
    let (state, reason) = match state {
        State::Waiting => ("waiting", None),
        State::Connected => ("connected", None),
        State::Running => ("running", None),
        State::Failed(reason) => ("failed", Some(reason)),
        State::Busy => ("busy", Some("the device has not answered for a while".to_owned())),
    };
    protocol::VdpaDevice {
        name: name.to_owned(),
        device: entry.device.clone(),
        socket: attached.path().display().to_string(),
        role: if entry.client { "client" } else { "server" }.to_owned(),
        state: state.to_owned(),
        reason,
        queue_pairs: attached.queue_pairs(),
        rings,
        mapped_doorbells,
        offered_features: feature_names(attached.offered_features()),
        features: feature_names(features),
        statistics: statistics
            .into_iter()
            .map(|statistic| (statistic.name, statistic.value))
            .collect(),
    }
}

#[cfg(test)]
pub mod tests {
    use std::os::unix::net::UnixStream;

    use eal::PeerEvent;
    use vdpa::{DeviceError, Setup, Statistic};
    use vhost::frontend::Frontend;

    use super::*;

    /// A device that does nothing.
    #[derive(Debug)]
    pub struct Idle;

    impl VdpaDevice for Idle {
        fn name(&self) -> &'static str {
            "idle"
        }

        fn queue_pairs(&self) -> u16 {
            2
        }

        fn features(&self) -> u64 {
            1 << 32
        }

        fn start(&mut self, _setup: Setup) -> Result<(), DeviceError> {
            Ok(())
        }

        fn stop(&mut self) -> Vec<(u16, u32)> {
            Vec::new()
        }

        fn is_running(&self) -> bool {
            true
        }

        fn set_ring_enabled(&mut self, _: u16, _: bool) -> Result<(), DeviceError> {
            Ok(())
        }

        fn set_ring_kick(&mut self, _: u16, _: Option<PeerEvent>) -> Result<(), DeviceError> {
            Ok(())
        }

        fn set_ring_call(&mut self, _: u16, _: Option<PeerEvent>) -> Result<(), DeviceError> {
            Ok(())
        }

        fn read_config(&self, _: u32, _: &mut [u8]) -> Result<(), DeviceError> {
            Ok(())
        }

        fn write_config(&mut self, _: u32, _: &[u8]) -> Result<(), DeviceError> {
            Ok(())
        }

        fn statistics(&self) -> Vec<Statistic> {
            let count = |name: &str, value| Statistic { name: name.to_owned(), value };
            vec![count("device_starts", 3), count("rx0_kicks", 7), count("tx1_kicks", 9)]
        }
    }

    impl Hub {
        /// A hub with an idle device `a` at a socket in `dir`.
        pub fn with_idle(dir: &Path) -> Self {
            let mut hub = Self::default();
            let socket = dir.join("a");
            hub.attach("a", "test:idle", &socket, false, Access::default(), Box::new(Idle))
                .unwrap();
            hub
        }
    }

    #[test]
    fn devices_come_are_reported_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = Hub::with_idle(dir.path());
        let socket = dir.path().join("a");
        let device = hub.report().remove(0);
        assert_eq!((device.name.as_str(), device.state.as_str()), ("a", "waiting"));
        assert_eq!(device.offered_features, ["vhost_user_protocol", "version_1"]);
        assert_eq!((device.queue_pairs, device.statistics["rx0_kicks"]), (2, 7));
        let stream = UnixStream::connect(&socket).unwrap().into();
        let mut front = Frontend::new(stream, "a", Duration::from_secs(10), None).unwrap();
        front.handshake().unwrap();
        assert_eq!(hub.report()[0].state, "connected");
        let twice =
            hub.attach("a", "x", &dir.path().join("b"), false, Access::default(), Box::new(Idle));
        assert!(twice.unwrap_err().to_string().contains("'a' exists already"));
        assert!(hub.has("a") && hub.remove("a") && !hub.remove("a"));
        assert!(!socket.exists());
        let nowhere = dir.path().join("none/a");
        let failed = hub
            .attach("b", "test:b", &nowhere, false, Access::default(), Box::new(Idle))
            .unwrap_err();
        assert!(failed.to_string().starts_with("vDPA device test:b: "), "{failed}");
        assert_eq!(hub.len(), 0);
    }

    #[test]
    fn what_takes_too_long_is_left_to_itself() {
        let limit = Duration::from_secs(10);
        assert_eq!(within(limit, || 7), Some(7));
        let (go_on, wait) = mpsc::channel::<()>();
        let (tell, ended) = mpsc::channel();
        let slow = move || {
            let _ = wait.recv();
            let _ = tell.send(());
        };
        assert_eq!(within(Duration::from_millis(10), slow), None);
        drop(go_on);
        ended.recv_timeout(limit).unwrap();
    }
}
