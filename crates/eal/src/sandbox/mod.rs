//! Giving up what the process does not need, so that whoever takes it over gets little.
//!
//! What it needs is added up first ([`Needs`]), then everything else is given up at once and for
//! good ([`enter`]), before there are threads: each of these holds for a thread and for those that
//! it starts.
//!
//! - capabilities, from all sets, and `no_new_privs`
//! - files ([`paths`]): only what is named can be opened, made or removed (Landlock)
//! - system calls ([`calls`]): only those of a list (seccomp). Another one is refused (EPERM), which
//!   is told once on standard error
//!
//! Files that are open already stay usable, as do those that peers send.

pub mod calls;
mod capabilities;
pub mod paths;
mod refused;

use std::io;
use std::path::{Path, PathBuf};

use litemap::LiteMap;

pub use calls::Calls;
pub use paths::Reach;
pub use rustix::thread::CapabilitySet;

use crate::confine;
use crate::mem::file;

/// What a process, or a part of it, needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    capabilities: CapabilitySet,
    /// Capabilities that are good to have.
    wishes: CapabilitySet,
    paths: LiteMap<PathBuf, Reach>,
    calls: Calls,
    /// Whether it connects by TCP, or listens.
    tcp: bool,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Entered {
    /// What the process has from now on.
    needs: Needs,
    /// What it had of capabilities before.
    had: CapabilitySet,
    /// Whether there is Landlock here.
    pub files: bool,
    /// Whether there is seccomp here.
    pub calls: bool,
}

/// Why nothing could be given up.
#[derive(Debug, thiserror::Error)]
#[error("sandbox: cannot {action}: {source}")]
pub struct SandboxError {
    action: &'static str,
    source: io::Error,
}

impl SandboxError {
    fn new(action: &'static str, source: impl Into<io::Error>) -> Self {
        Self { action, source: source.into() }
    }
}

impl Default for Needs {
    fn default() -> Self {
        Self::new()
    }
}

impl Needs {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        let none = CapabilitySet::empty();
        let paths = LiteMap::new();
        Self { capabilities: none, wishes: none, paths, calls: Calls::empty(), tcp: false }
    }

    /// What a socket at `path` needs: to be made and removed, or, with `connects`, to be connected to.
    #[must_use]
    pub fn of_socket(path: &Path, connects: bool) -> Self {
        let needs = Self::new().folder_of(path, Reach::SOCKETS);
        let right = CapabilitySet::DAC_OVERRIDE;
        // A link may lead to where looking it up waits for whoever has made it.
        let is_there = || path.symlink_metadata().is_ok_and(|found| !found.is_symlink());
        if connects && !is_there() {
            // Whoever makes it may keep it to themselves, and root connects all the same.
            return needs.wish(right);
        }
        let checked = if connects { Some(path) } else { path.parent() };
        let checked = checked.filter(|path| !path.as_os_str().is_empty());
        match paths::overrides_permissions(checked) {
            Ok(true) => needs.capabilities(right),
            _ => needs,
        }
    }

    /// This and `capabilities`, as far as the process has them.
    #[must_use]
    pub fn capabilities(mut self, capabilities: CapabilitySet) -> Self {
        self.capabilities |= capabilities;
        self
    }

    /// This and `capabilities`, without which it may do, too.
    #[must_use]
    pub fn wish(mut self, capabilities: CapabilitySet) -> Self {
        self.wishes |= capabilities;
        self
    }

    /// This and a file, or a folder with all that is in it.
    #[must_use]
    pub fn path(mut self, path: impl Into<PathBuf>, reach: Reach) -> Self {
        *self.paths.entry(path.into()).or_default() |= reach;
        self
    }

    /// This and the folder that `file` is in.
    #[must_use]
    pub fn folder_of(self, file: impl AsRef<Path>, reach: Reach) -> Self {
        let parent = file.as_ref().parent().filter(|parent| !parent.as_os_str().is_empty());
        self.path(parent.unwrap_or(Path::new(".")), reach)
    }

    /// This and the device nodes of `folder` that there are and that begin with `prefix`.
    #[must_use]
    pub fn nodes(self, folder: &str, prefix: &str) -> Self {
        nodes(folder, prefix).into_iter().fold(self, |needs, node| needs.path(node, Reach::DEVICE))
    }

    /// This and system calls.
    #[must_use]
    pub fn calls(mut self, calls: Calls) -> Self {
        self.calls |= calls;
        self
    }

    /// This and connections by TCP, of both directions.
    #[must_use]
    pub const fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// This and `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.capabilities |= other.capabilities;
        self.wishes |= other.wishes;
        self.calls |= other.calls;
        self.tcp |= other.tcp;
        other.paths.into_iter().fold(self, |needs, (path, reach)| needs.path(path, reach))
    }
}

/// The files of `folder` whose names begin with `prefix`.
pub(crate) fn nodes(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
}

/// What any process of ours needs, and the libraries that it uses: a look at itself and at the
/// machine, names of users and groups, zeroes and random numbers.
#[must_use]
pub fn any_process() -> Needs {
    let read = [
        "/proc/self",
        "/sys/devices/system",
        "/sys/kernel/mm",
        "/sys/fs/cgroup",
        "/etc/passwd",
        "/etc/group",
        "/etc/nsswitch.conf",
        "/etc/localtime",
        "/etc/ld.so.cache",
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/dev/urandom",
    ];
    let needs = Needs::new().path("/dev/null", Reach::DEVICE);
    let needs = read.iter().fold(needs, |needs, path| needs.path(path, Reach::READ));
    // Others keep theirs there, so not without need.
    let needs = match file::is_memfd_refused() {
        true => needs.path(file::TMPFS, Reach::READ | Reach::FILES),
        false => needs,
    };
    match std::env::current_exe() {
        // For the names in a backtrace.
        Ok(program) => needs.path(program, Reach::READ),
        Err(_) => needs,
    }
}

/// Gives up everything but `needs`. The process has one thread when it calls this.
///
/// Where the system has no Landlock or no seccomp, the rest is given up all the same; what came of
/// it is in the result.
///
/// # Errors
///
/// When capabilities or `no_new_privs` cannot be set, or one of the mechanisms fails that is there.
pub fn enter(needs: Needs) -> Result<Entered, SandboxError> {
    refused::install().map_err(|error| SandboxError::new("catch SIGSYS", error))?;
    let (had, kept, files) = give_up_rights(&needs)?;
    let calls = calls::restrict(needs.calls)?;
    Ok(Entered { needs: Needs { capabilities: kept, ..needs }, had, files, calls })
}

/// Gives up everything but what is said over sockets that are there or come, as [`confine::to_sockets`] has it.
///
/// # Errors
///
/// As [`enter`].
pub fn enter_to_sockets() -> Result<(), SandboxError> {
    give_up_rights(&Needs::new())?;
    confine::to_sockets().map_err(|error| SandboxError::new("restrict system calls", error))
}

/// Gives up everything but `needs` of capabilities, files and TCP: what capabilities there were and are, and
/// whether the system can do without the files.
fn give_up_rights(needs: &Needs) -> Result<(CapabilitySet, CapabilitySet, bool), SandboxError> {
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| SandboxError::new("set no_new_privs", errno))?;
    let (had, kept) = capabilities::keep(needs.capabilities | needs.wishes)?;
    Ok((had, kept, paths::restrict(&needs.paths, needs.tcp)?))
}

impl Entered {
    /// Whether what `needs` names is still there.
    ///
    /// # Errors
    ///
    /// The first thing that was given up.
    pub fn permits(&self, needs: &Needs) -> Result<(), Missing> {
        let gone = needs.capabilities & self.had & !self.needs.capabilities;
        if let Some((name, _)) = gone.iter_names().next() {
            return Err(Missing::Capability(name));
        }
        if self.calls && !self.needs.calls.contains(needs.calls) {
            return Err(Missing::Calls);
        }
        let mut paths = needs.paths.iter().filter(|_| self.files);
        match paths.find(|(path, reach)| !paths::covers(&self.needs.paths, path, **reach)) {
            Some((path, _)) => Err(Missing::Path(path.clone())),
            None => Ok(()),
        }
    }

    /// The names of the capabilities that are left, as libcap writes them (`cap_net_raw`), `none` where
    /// there are none. Scripts that look for `ERR` in a log are not to find `OVERRIDE`.
    #[must_use]
    pub fn capabilities(&self) -> String {
        let names = self.needs.capabilities.iter_names();
        let names: Vec<String> =
            names.map(|(name, _)| format!("cap_{}", name.to_ascii_lowercase())).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    }
}

/// What was given up and is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// A capability.
    #[error("the capability CAP_{0}")]
    Capability(&'static str),
    /// System calls.
    #[error("system calls")]
    Calls,
    /// A file or folder.
    #[error("the path '{}'", .0.display())]
    Path(PathBuf),
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
