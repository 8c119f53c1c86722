//! The control socket's file: made so that only those may connect who are to, removed at the end.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use eal::Access;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::path::MAX_SOCKET_PATH;
use crate::exit::Failure;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening control socket; dropping it removes its file.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file: nobody else's is removed.
    identity: (u64, u64),
}

impl Listener {
    /// Makes the socket at `path` for those whom `access` lets in, in place of one that a dead
    /// process left there.
    pub fn bind(path: &Path, access: Access) -> Result<Self, Failure> {
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH {
            return Err(Failure::usage(format!(
                "control socket {}: the path has {length} bytes, a Unix socket's may have at most \
                 {MAX_SOCKET_PATH}; give a shorter one with --control",
                path.display()
            )));
        }
        remove_stale(path)?;
        let failed = |errno: Errno| failure(path, &errno.into());
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        );
        let socket = socket.map_err(failed)?;
        access.prepare(&socket).map_err(failed)?;
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        rustix::net::bind(&socket, &address).map_err(failed)?;
        let metadata = std::fs::symlink_metadata(path).map_err(|error| failure(path, &error))?;
        let identity = (metadata.dev(), metadata.ino());
        let listener = Self { socket: socket.into(), path: path.to_owned(), identity };
        let granted = access.apply(path).map_err(|errno| refused(path, access, errno))?;
        rustix::net::listen(&listener.socket, BACKLOG).map_err(failed)?;
        tracing::debug!(socket = %path.display(), may_connect = %granted, "control socket");
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

/// Why the file cannot be opened to those who are to connect.
fn refused(path: &Path, access: Access, errno: Errno) -> Failure {
    match (errno, access.group) {
        (Errno::PERM, Some(group)) => Failure::runtime(format!(
            "control socket {}: no permission to give it to group {group}; have the switch's user \
             be in that group, or choose another with --control-group",
            path.display()
        )),
        _ => failure(path, &errno.into()),
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

    fn bind(path: &Path) -> Result<Listener, Failure> {
        Listener::bind(path, Access { group: None, mode: Some(0o600) })
    }

    #[test]
    fn only_those_may_connect_who_are_to_and_the_file_goes_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = bind(&path).unwrap();
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
        let first = bind(&path).unwrap();
        let message = bind(&path).unwrap_err().to_string();
        assert!(message.contains("a running process listens there"), "{message}");
        assert!(UnixStream::connect(&first.path).is_ok());
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(matches!(bind(&path), Err(Failure::Runtime(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn anothers_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // Keep the first inode in use, or the file system may give it out again.
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_long_path_is_refused_with_its_length() {
        let path = PathBuf::from("/tmp").join("x".repeat(200));
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, Failure::Usage(_)));
        assert!(error.to_string().contains("205 bytes"), "{error}");
    }
}
