//! Files and folders, by Landlock (landlock(7)).

use std::path::{Path, PathBuf};

use bitflags::bitflags;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use litemap::LiteMap;
use rustix::fs::{Access, AtFlags, CWD};

use super::{SandboxError, capabilities};

/// The version of the interface whose rights are all denied but for what is allowed: with Linux 6.10
/// that includes ioctl(2) on devices. Older kernels deny what they know of it.
const VERSION: ABI = ABI::V5;

bitflags! {
    /// What can be done with a file, or with those in a folder.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Reach: u8 {
        /// Read files and list folders.
        const READ = 1;
        /// Write to files that are there.
        const WRITE = 1 << 1;
        /// Read, write and control device nodes.
        const DEVICE = 1 << 2;
        /// Make sockets, and remove them.
        const SOCKETS = 1 << 3;
        /// Make files, and write them.
        const FILES = 1 << 4;
        /// Remove empty folders.
        const FOLDERS = 1 << 5;
        /// Remove files.
        const REMOVE = 1 << 6;
    }
}

impl Reach {
    fn rights(self) -> BitFlags<AccessFs> {
        let mut rights = BitFlags::empty();
        let table = [
            (Self::READ, AccessFs::ReadFile | AccessFs::ReadDir),
            // Whoever opens a file to write it all anew says so, in sysfs, too.
            (Self::WRITE, AccessFs::WriteFile | AccessFs::Truncate),
            (Self::DEVICE, AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev),
            (Self::SOCKETS, AccessFs::MakeSock | AccessFs::RemoveFile),
            (Self::FILES, AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::Truncate),
            (Self::FOLDERS, AccessFs::RemoveDir.into()),
            (Self::REMOVE, AccessFs::RemoveFile.into()),
        ];
        table.iter().filter(|(flag, _)| self.contains(*flag)).for_each(|(_, add)| rights |= *add);
        rights
    }
}

/// Whether root needs the right to pass over permissions to do in these folders what `paths` says.
///
/// # Errors
///
/// When that cannot be found out.
pub fn overrides_permissions<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
) -> Result<bool, SandboxError> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    capabilities::as_owner(|| {
        folders.into_iter().any(|folder| {
            let missing = std::fs::symlink_metadata(folder)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
            !missing && rustix::fs::accessat(CWD, folder, wanted, AtFlags::EACCESS).is_err()
        })
    })
}

/// Allows what `paths` says and nothing else, and with `tcp` connections by that. What is not there is
/// left out. Returns whether the system can do that.
pub(super) fn restrict(paths: &LiteMap<PathBuf, Reach>, tcp: bool) -> Result<bool, SandboxError> {
    let failed = |error| SandboxError::new("restrict files", std::io::Error::other(error));
    let failed = |error: landlock::RulesetError| failed(error.to_string());
    let handled = Ruleset::default().handle_access(AccessFs::from_all(VERSION));
    let handled = match tcp {
        true => handled,
        false => handled.and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(VERSION))),
    };
    let mut ruleset = handled.and_then(Ruleset::create).map_err(failed)?;
    for (path, reach) in paths {
        let Ok(file) = PathFd::new(path) else { continue };
        let mut rights = reach.rights();
        if !path.is_dir() {
            rights &= AccessFs::from_file(VERSION);
        }
        ruleset = ruleset.add_rule(PathBeneath::new(file, rights)).map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Whether one of `paths` has `reach` over `path`, or over what that is a link to.
pub(super) fn covers(paths: &LiteMap<PathBuf, Reach>, path: &Path, reach: Reach) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    // What is not there is for whoever opens it to tell.
    let Some(path) = real(path) else { return true };
    let over =
        paths.iter().filter(|(folder, _)| real(folder).is_some_and(|it| path.starts_with(it)));
    over.fold(Reach::empty(), |sum, (_, reach)| sum | *reach).contains(reach)
}
