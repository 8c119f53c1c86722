//! The way to the starter, and connections that are handed over.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use crate::order::{self, Side};
use crate::process;
use crate::session::FOUND;
use crate::settings::Settings;
use crate::watch::Watch;

/// The longest that is said of how a connection ended.
const WORDS: usize = 64 << 10;

/// The longest of it that is for people.
const TEXT: usize = 400;

/// How a certificate begins, as text.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// How it ends: one that did not fit in what is said of a connection does not.
const END: &[u8] = b"-----END CERTIFICATE-----";

/// The way to the processes that have connections secured. Dropping it ends those, and all of these.
#[derive(Debug)]
pub struct Speaker {
    socket: OwnedFd,
}

impl Speaker {
    /// Starts them. This is to be done before the process has given up to start others.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn start() -> std::io::Result<(Self, Watch)> {
        let (socket, news, starter) = process::start()?;
        Ok((Self { socket }, Watch::new(news, &starter)))
    }

    /// One whose work is done by whoever has the other end: a test.
    #[must_use]
    pub const fn of(socket: OwnedFd) -> Self {
        Self { socket }
    }

    fn wrap(&self, socket: &OwnedFd, side: Side, settings: &Settings) -> Result<Tunnel, String> {
        let opened = settings.open(side)?;
        let failed = |error: Errno| match error {
            Errno::AGAIN => "too many connections wait for TLS".to_owned(),
            Errno::MSGSIZE => format!(
                "protocols, ciphers and ciphersuites have more than {} bytes: shorten their lists",
                order::BYTES
            ),
            error => format!("the process that speaks TLS cannot be told ({error})"),
        };
        let pair = |kind| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socketpair(AddressFamily::UNIX, kind, flags, None).map_err(failed)
        };
        let (plain, theirs) = pair(SocketType::STREAM)?;
        let (verdict, told) = pair(SocketType::SEQPACKET)?;
        let sockets = [told.as_fd(), socket.as_fd(), theirs.as_fd()];
        let files = opened.files.iter().map(|file| file.as_fd());
        let files: Vec<BorrowedFd<'_>> = sockets.into_iter().chain(files).collect();
        order::send(&self.socket, &opened.order, &files).map_err(failed)?;
        Ok(Tunnel { plain, verdict: Verdict { socket: verdict, bootstrap: opened.bootstrap } })
    }
}

/// Who we are, and who secures connections.
#[derive(Clone, Debug)]
pub struct Identity {
    speaker: Arc<Speaker>,
    settings: Settings,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && Arc::ptr_eq(&self.speaker, &other.speaker)
    }
}

impl Eq for Identity {}

impl Identity {
    /// One with these keys.
    #[must_use]
    pub const fn new(speaker: Arc<Speaker>, settings: Settings) -> Self {
        Self { speaker, settings }
    }

    /// The same with other keys. Versions, ciphers and certificates for peers that `settings` do not say are as
    /// they were.
    #[must_use]
    pub fn with(&self, settings: Settings) -> Self {
        Self { settings: settings.or(&self.settings), speaker: Arc::clone(&self.speaker) }
    }

    /// Has a connection be secured: what is to be read and written in its place. Nothing of it waits; what
    /// is written before the handshake is done is said afterwards.
    ///
    /// # Errors
    /// In words: a file cannot be opened, or the process is not there.
    pub fn wrap(&self, socket: &OwnedFd, side: Side) -> Result<Tunnel, String> {
        self.speaker.wrap(socket, side, &self.settings)
    }
}

/// A connection that is secured.
#[derive(Debug)]
pub struct Tunnel {
    /// What is read and written in its place; it does not block.
    pub plain: OwnedFd,
    /// How it ended, once it has.
    pub verdict: Verdict,
}

/// How a connection ended.
#[derive(Debug)]
pub struct Verdict {
    socket: OwnedFd,
    /// The file for the authority of the peer, if it is to be made.
    bootstrap: Option<PathBuf>,
}

impl Verdict {
    /// Why it ended; `None` if one of the two sides has just closed it, or it has not.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let mut bytes = vec![MaybeUninit::<u8>::uninit(); WORDS];
        let said = match recv(&self.socket, bytes.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok(((said, _), _)) => said,
            Err(_) => return None,
        };
        let (how, said) = said.split_first()?;
        Some(match &self.bootstrap {
            Some(file) if *how == FOUND => save(file, said),
            _ => {
                let text = String::from_utf8_lossy(said);
                text.chars().filter(|char| !char.is_control()).take(TEXT).collect()
            }
        })
    }
}

/// Makes the file of authorities; gives what to say of it. A file that is made is whole: it is never made
/// again.
fn save(path: &PathBuf, certificate: &[u8]) -> String {
    let shown = path.display();
    if !certificate.starts_with(CERTIFICATE) || !certificate.trim_ascii_end().ends_with(END) {
        return "what the peer has for a CA certificate is none".to_owned();
    }
    let written =
        OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
            let written = file.write_all(certificate);
            if written.is_err() {
                let _ = std::fs::remove_file(path);
            }
            written
        });
    match written {
        Ok(()) => format!("the peer's CA certificate is in '{shown}' and believed from now on"),
        Err(error) => format!("CA certificate '{shown}' cannot be made: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_did_not_fit_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole) = (dir.path().join("found"), include_bytes!("tests/ca.pem"));
        let cut = whole.get(..whole.len() - END.len()).unwrap();
        for wrong in [&b""[..], b"nonsense", cut] {
            assert_eq!(save(&path, wrong), "what the peer has for a CA certificate is none");
            assert!(!path.exists());
        }
        assert!(save(&path, whole).contains("believed from now on"));
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        // One that is there is never written over.
        assert!(save(&path, whole).contains("cannot be made"));
    }
}
