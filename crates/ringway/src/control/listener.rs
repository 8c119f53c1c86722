//! The control socket's file: made so that only its owner may connect, removed at the end.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::path::MAX_SOCKET_PATH;
use crate::exit::Failure;

/// A listening control socket; dropping it removes its file.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file: nobody else's is removed.
    identity: (u64, u64),
}

impl Listener {
    /// Makes the socket at `path`, mode 0600, in place of one that a dead process left there.
    ///
    /// It sets the process's file mode mask for a moment, so it comes before other threads.
    pub fn bind(path: &Path) -> Result<Self, Failure> {
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH {
            return Err(Failure::usage(format!(
                "control socket {}: the path has {length} bytes, a Unix socket's may have at most \
                 {MAX_SOCKET_PATH}; give a shorter one with --control",
                path.display()
            )));
        }
        remove_stale(path)?;
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(mask);
        let socket = bound.map_err(|error| failure(path, &error))?;
        let metadata = std::fs::symlink_metadata(path).map_err(|error| failure(path, &error))?;
        let identity = (metadata.dev(), metadata.ino());
        let listener = Self { socket, path: path.to_owned(), identity };
        listener.socket.set_nonblocking(true).map_err(|error| failure(path, &error))?;
        Ok(listener)
    }

    /// The socket that clients connect to; it does not block.
    pub const fn socket(&self) -> &UnixListener {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("control socket {}: cannot remove it: {error}", self.path.display());
        }
    }
}

/// Removes a socket that nobody listens on; refuses anything else.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failure(path, &error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Failure::runtime(format!(
            "control socket {}: there is a file of another kind at this path; remove it or give \
             another path with --control",
            path.display()
        )));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(Failure::runtime(format!(
            "control socket {}: a running process listens there, probably another switch; stop \
             it or give another path with --control",
            path.display()
        ))),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| failure(path, &error))
        }
        Err(error) => Err(failure(path, &error)),
    }
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "; give a path that you may write with --control",
        ErrorKind::NotFound => "; its directory must exist",
        _ => "",
    };
    Failure::runtime(format!("control socket {}: {error}{hint}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_the_owner_may_connect_and_the_file_goes_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = Listener::bind(&path).unwrap();
        let message = Listener::bind(&path).unwrap_err().to_string();
        assert!(message.contains("a running process listens there"), "{message}");
        assert!(UnixStream::connect(&first.path).is_ok());
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(Listener::bind(&path), Err(Failure::Runtime(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn anothers_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = Listener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // Keep the first inode in use, or the file system may give it out again.
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_long_path_is_refused_with_its_length() {
        let path = PathBuf::from("/tmp").join("x".repeat(200));
        let error = Listener::bind(&path).unwrap_err();
        assert!(matches!(error, Failure::Usage(_)));
        assert!(error.to_string().contains("205 bytes"), "{error}");
    }
}
