//! Who may connect to a socket in the file system: the group and the mode of its file.
//!
//! A process may connect if it may write to the file (unix(7)). The file is made for its owner
//! alone and opened to others before anybody can connect, without a moment at which it is open to
//! more than that; the process's file mode mask, which all threads share, is left alone.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The permissions of a socket that has a group and no mode of its own: it would be no use to the
/// group without the right to write.
const GROUP_MODE: u32 = 0o660;

/// The permission bits of a file's mode.
const PERMISSIONS: u32 = 0o777;

/// What was asked for; what is `None` is left as the system makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The group, by number.
    pub group: Option<u32>,
    /// The permissions, as in chmod(2). Where there is only a group: 0660.
    pub mode: Option<u32>,
}

/// What a socket's file has, and so who may connect: `user root and group kvm (mode 0660)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    owner: u32,
    group: u32,
    mode: u32,
}

impl Access {
    /// What is given here, and for the rest what `other` says. A group without a mode comes with
    /// its mode of 0660.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let here = self.mode.or(self.group.map(|_| GROUP_MODE));
        Self { group: self.group.or(other.group), mode: here.or(other.mode) }
    }

    fn is_asked_for(self) -> bool {
        self != Self::default()
    }

    /// To be called before the socket `socket` is bound: its file will be for its owner alone, if
    /// [`apply`](Self::apply) is to have a say in who else.
    ///
    /// # Errors
    /// What fchmod(2) says.
    pub fn prepare(self, socket: impl AsFd) -> Result<(), Errno> {
        if self.is_asked_for() {
            // The file that bind(2) makes has the mode of the socket, without what is in umask.
            rustix::fs::fchmod(socket, Mode::RUSR | Mode::WUSR)?;
        }
        Ok(())
    }

    /// To be called between bind(2) and listen(2), so that nobody can connect before it: gives the
    /// file at `path` its group and its mode, and tells what it has then.
    ///
    /// # Errors
    /// When there is something else at `path` by now, or this process may not give it that group
    /// ([`Errno::PERM`]: only root and members of the group may).
    pub fn apply(self, path: &Path) -> Result<Granted, Errno> {
        // What was looked at is what is changed, whoever may write to the directory.
        let file = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = rustix::fs::fstat(&file)?;
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        if !is_socket || stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::NOTSOCK);
        }
        if !self.is_asked_for() {
            return Ok(Granted::of(&stat));
        }
        if let Some(group) = self.group.filter(|group| *group != stat.st_gid) {
            let group = rustix::fs::Gid::from_raw(group);
            rustix::fs::chownat(&file, "", None, Some(group), AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = self.or(Self::default()).mode {
            // A file that is open as a path can be changed by this name only (open(2), O_PATH).
            let name = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            rustix::fs::chmod(name, Mode::from_raw_mode(mode & PERMISSIONS))?;
        }
        Ok(Granted::of(&rustix::fs::fstat(&file)?))
    }
}

impl Granted {
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode & PERMISSIONS }
    }

    /// The permissions, as in chmod(2).
    #[must_use]
    pub const fn mode(&self) -> u32 {
        self.mode
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let may = |bit: u32| self.mode & bit != 0;
        match (may(0o200), may(0o020), may(0o002)) {
            (_, _, true) => f.write_str("everyone")?,
            (_, true, _) => {
                write!(f, "user {} and group {}", user_name(self.owner), group_name(self.group))?;
            }
            (true, false, false) => {
                write!(f, "only user {}", user_name(self.owner))?;
                if self.owner != 0 {
                    f.write_str(" and root")?;
                }
            }
            (false, false, false) => f.write_str("only root")?,
        }
        write!(f, " (mode {:04o})", self.mode)
    }
}

fn user_name(id: u32) -> String {
    let user = User::from_uid(Uid::from_raw(id)).ok().flatten();
    user.map_or_else(|| id.to_string(), |user| user.name)
}

fn group_name(id: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(id)).ok().flatten();
    group.map_or_else(|| id.to_string(), |group| group.name)
}

/// The number of the process that has made the other end of a Unix socket, as the kernel tells it
/// (`SO_PEERCRED`, unix(7)): of the one that connected, or that listens. `None` where it does not
/// tell, as for one in a PID namespace that is not below ours.
#[must_use]
pub fn peer_process(socket: impl AsFd) -> Option<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, which is what `peer` has, and any of them
    // make a valid one, since it consists of integers.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if got == 0 { u32::try_from(peer.pid).ok().filter(|pid| *pid != 0) } else { None }
}

/// The permissions that `text` stands for in octal.
///
/// # Errors
/// When it is no such number; says what was expected.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let octal = text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= PERMISSIONS);
    mode.ok_or_else(|| format!("mode={text}: expected octal permissions, as in 0660"))
}

/// The number of the group that `text` names, or is the number of.
///
/// # Errors
/// When there is no such group; says what was expected.
pub fn parse_group(text: &str) -> Result<u32, String> {
    // The largest number stands for no group at all (chown(2)).
    if let Ok(id) = text.parse::<u32>()
        && id != u32::MAX
    {
        return Ok(id);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!(
            "group={text}: there is no such group; expected one that 'getent group' lists, or its \
             number"
        )),
        Err(error) => Err(format!("group={text}: cannot look for it: {error}; give its number")),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

    use super::*;

    /// Binds a socket at `path` as a listener does; returns what its file had before
    /// [`Access::apply`], and what was granted.
    fn make(access: Access, path: &Path) -> (u32, Result<Granted, Errno>) {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        access.prepare(&socket).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        let before = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        (before, access.apply(path))
    }

    #[test]
    fn the_other_end_of_a_socket_is_known() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert_eq!(peer_process(&here), Some(std::process::id()));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_process(file), None);
    }

    #[test]
    fn the_file_is_its_owners_alone_until_it_is_opened_to_others() {
        let dir = tempfile::tempdir().unwrap();
        for (number, mode) in [0o660, 0o666, 0o600, 0o777, 0].into_iter().enumerate() {
            let path = dir.path().join(number.to_string());
            let (before, granted) = make(Access { group: None, mode: Some(mode) }, &path);
            assert_eq!(before & !0o600, 0, "mode {before:o} before {mode:o}");
            assert_eq!(granted.unwrap().mode(), mode);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_group_gets_the_right_to_write_unless_a_mode_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let own = rustix::process::getegid().as_raw();
        // Root may give a file to every group, others to their own.
        let group = if rustix::process::geteuid().is_root() { 4711 } else { own };
        let path = dir.path().join("s");
        let (before, granted) = make(Access { group: Some(group), mode: None }, &path);
        assert_eq!(before & !0o600, 0);
        let granted = granted.unwrap();
        assert_eq!((granted.mode(), granted.group), (0o660, group));
        assert_eq!(std::fs::metadata(&path).unwrap().gid(), group);
        let path = dir.path().join("t");
        let (_, granted) = make(Access { group: Some(group), mode: Some(0o640) }, &path);
        assert_eq!(granted.unwrap().mode(), 0o640);
    }

    #[test]
    fn what_is_nearer_wins() {
        let access = |group, mode| Access { group, mode };
        let general = access(Some(1), Some(0o666));
        assert_eq!(access(None, None).or(general), general);
        assert_eq!(access(None, Some(0o600)).or(general), access(Some(1), Some(0o600)));
        assert_eq!(access(Some(2), None).or(general), access(Some(2), Some(0o660)));
        assert_eq!(access(None, None).or(Access::default()), Access::default());
    }

    #[test]
    fn what_somebody_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (target, path) = (dir.path().join("target"), dir.path().join("s"));
        std::fs::write(&target, "").unwrap();
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let access = Access { group: None, mode: Some(0o666) };
        assert!(access.apply(&path).is_err(), "a symbolic link");
        assert!(access.apply(&target).is_err(), "a file");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(access.apply(&dir.path().join("none")), Err(Errno::NOENT));
    }

    #[test]
    fn what_the_file_of_a_listener_has_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let granted = Access { group: None, mode: Some(0o600) }.apply(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok(), "the owner");
        assert_eq!(granted, Access::default().apply(&path).unwrap(), "nothing asked for");
        drop(listener);
    }

    #[test]
    fn who_may_connect_is_told() {
        let told = |owner, mode| Granted { owner, group: 4711, mode }.to_string();
        assert_eq!(told(0, 0o755), "only user root (mode 0755)");
        assert_eq!(told(4712, 0o600), "only user 4712 and root (mode 0600)");
        assert_eq!(told(0, 0o660), "user root and group 4711 (mode 0660)");
        assert_eq!(told(0, 0o666), "everyone (mode 0666)");
        assert_eq!(told(4712, 0o400), "only root (mode 0400)");
    }

    #[test]
    fn modes_and_groups_are_read() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("7"), Ok(7));
        for wrong in ["", "999", "1777", "rw-", "-1", "+7", "0o660"] {
            assert!(parse_mode(wrong).unwrap_err().contains("octal permissions"), "{wrong}");
        }
        assert_eq!(parse_group("0"), Ok(0));
        assert_eq!(parse_group("root"), Ok(0));
        for wrong in ["", "no-such-group", "-1", "4294967295", "a\0b"] {
            assert!(parse_group(wrong).unwrap_err().contains("group="), "{wrong}");
        }
    }
}
