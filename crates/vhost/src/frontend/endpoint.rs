//! How a front-end finds its back-end: it connects to a socket, or listens on one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use eal::Access;
use eal::unix::{self, Listener, SocketError};

use super::error::FrontendError;

/// One side of a Unix socket path. No call ever waits.
#[derive(Debug)]
pub struct Endpoint {
    path: String,
    /// There in server mode only.
    listener: Option<Listener>,
}

impl Endpoint {
    /// The side that connects to the back-end's socket at `path`.
    ///
    /// # Errors
    /// When the path cannot be a socket's.
    pub fn client(path: &str) -> Result<Self, FrontendError> {
        unix::check_path(Path::new(path))?;
        Ok(Self { path: path.to_owned(), listener: None })
    }

    /// The side that listens at `path`, for a back-end that `access` lets in to connect. A socket file that nobody
    /// listens on any more is replaced; the file is removed in the end.
    ///
    /// # Errors
    /// When the path is too long, taken by a live process, or cannot be made or given its group.
    pub fn server(path: &str, access: Access) -> Result<Self, FrontendError> {
        // There is one back-end.
        let listener = Listener::bind(Path::new(path), access, 1)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener) })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What becomes readable when a back-end connects, in server mode.
    #[must_use]
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// A connection to a back-end; `None` in server mode while none has come.
    ///
    /// # Errors
    /// In client mode when there is nobody to connect to; try again later.
    pub fn open(&self) -> Result<Option<OwnedFd>, FrontendError> {
        let Some(listener) = &self.listener else { return self.connect().map(Some) };
        listener.accept().map_err(|errno| FrontendError::Accept {
            socket: self.path.clone(),
            source: eal::files::explain(errno),
        })
    }

    fn connect(&self) -> Result<OwnedFd, FrontendError> {
        unix::connect(Path::new(&self.path)).map_err(|error| match error {
            SocketError::Nobody { .. } => FrontendError::NoBackend(error),
            other => other.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_finds_a_server_and_the_file_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock").to_str().unwrap().to_owned();
        let client = Endpoint::client(&path).unwrap();
        let error = client.open().unwrap_err().to_string();
        assert!(error.contains(&path) && error.contains("is the back-end running"), "{error}");

        let server = Endpoint::server(&path, Access::default()).unwrap();
        assert!(server.open().unwrap().is_none());
        let _stream = client.open().unwrap().unwrap();
        assert!(server.open().unwrap().is_some());
        let error = Endpoint::server(&path, Access::default()).unwrap_err().to_string();
        assert!(error.contains("a live process"), "{error}");
        drop(server);
        assert!(!Path::new(&path).exists());
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for path in [String::new(), "x".repeat(108), "a\0b".to_owned()] {
            let error = Endpoint::client(&path).unwrap_err();
            assert!(matches!(error, FrontendError::Socket(_)), "{error}");
        }
    }
}
