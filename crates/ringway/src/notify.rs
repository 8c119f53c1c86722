//! What the service manager is told: that the program is ready, reads its configuration again, or
//! ends (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long the service manager may take to have room for a message.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the service manager, if one has started the program and wants to know.
#[derive(Debug, Default)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// The one that the environment names (`NOTIFY_SOCKET`). The socket is opened at once: later it
    /// may be out of reach.
    pub fn of_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        Self::connect(&name).unwrap_or_else(|error| {
            tracing::warn!("service manager at {}: {error}", name.display());
            Self(None)
        })
    }

    /// A name that begins with `@` is one of the abstract namespace (unix(7)).
    fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Some(socket)))
    }

    /// It is ready, or done with reading its configuration; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What people are told has changed.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// It reads its configuration again, until it is [ready](Self::ready).
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, nanos) = (now.tv_sec, now.tv_nsec);
        let now = seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=ending");
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!("cannot tell the service manager: {error}");
        }
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_of_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        notifier.ready("2 ports\nMAINPID=1");
        assert_eq!(next(&manager), "READY=1\nSTATUS=2 ports MAINPID=1");
        notifier.reloading();
        let text = next(&manager);
        let (first, second) = text.split_once('\n').unwrap();
        assert_eq!(first, "RELOADING=1");
        assert!(second.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
        notifier.stopping();
        assert_eq!(next(&manager), "STOPPING=1\nSTATUS=ending");
    }

    #[test]
    fn a_manager_may_have_an_abstract_name() {
        let name = format!("ringway-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::connect(OsStr::new(&format!("@{name}"))).unwrap();
        notifier.status("1 port");
        assert_eq!(next(&manager), "STATUS=1 port");
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        assert!(Notifier::connect(OsStr::new("/nonexistent/notify")).is_err());
        Notifier::default().ready("");
    }
}
