//! A file with the number of this process, locked as long as it runs: by the lock others know that
//! the number is not that of a process that has ended (ovs-appctl(8)).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::exit::Failure;

/// The file; it goes when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Its lock ends with it.
    _file: File,
}

impl PidFile {
    /// Makes it at `path`, in place of one of a process that has ended, or of any if `overwrite`.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::runtime(format!("pid file {}: {error}", path.display()))
        };
        if !overwrite && let Some(pid) = holder(path) {
            let hint = "end that process, or give --overwrite-pidfile";
            return Err(failed(&format!("process {pid} is running already; {hint}")));
        }
        // Whoever reads it finds it whole: under its name it is written and locked already.
        let fresh = path.with_extension(format!("pid.{}", std::process::id()));
        let mut file = File::create(&fresh).map_err(|error| failed(&error))?;
        let made = (|| {
            writeln!(file, "{}", std::process::id())?;
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
            std::fs::rename(&fresh, path)
        })();
        if let Err(error) = made {
            let _ = std::fs::remove_file(&fresh);
            return Err(failed(&error));
        }
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("pid file {}: cannot remove it: {error}", self.path.display());
        }
    }
}

/// The process that has the file at `path` locked, by what is in it.
fn holder(path: &Path) -> Option<String> {
    let mut file = File::options().read(true).write(true).open(path).ok()?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN | Errno::ACCESS) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Some(text.trim().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_number_and_goes_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        std::fs::write(&path, "12345\n").unwrap();
        let file = PidFile::create(&path, false).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        assert!(PidFile::create(Path::new("/nonexistent/a.pid"), false).is_err());
    }
}
