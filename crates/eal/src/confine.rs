//! Giving up system calls, for processes that do one thing (seccomp(2)): one touches pages for another
//! process, one passes on what is said over sockets that it was given.

use std::io;

use libc::c_long;
use ordered::Gather as _;
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// Allowed with all arguments to both: letting go of memory and files, waiting for other threads, saying
/// something, and ending.
const BOTH: &[c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_write,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The same to the one that touches pages, which sends files along.
const PAGES: &[c_long] = &[libc::SYS_sendmsg, libc::SYS_fstatfs];

/// The same to the one that has sockets: what is said, files that come along, waiting with epoll(7), and what a
/// library for cryptography asks for. Nothing that is told a path or an address, nothing that makes another
/// descriptor, and no fcntl(2): by `F_SETOWN` the system sends signals on one's behalf.
const SOCKETS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_pread64,
    libc::SYS_mremap,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
];

/// What an argument is compared with.
type Condition = (u8, SeccompCmpOp, u64);

/// Of memory that is mapped or changed: it is not to be executed.
const NOT_EXECUTED: Condition = (2, MaskedEq(libc::PROT_EXEC as u64), 0);

/// Lets no thread of this process do more than touch memory: map files that it is sent, register
/// that with a userfaultfd, and tell. Everything else is refused (EPERM) from now on. Where the
/// kernel has no seccomp, nothing is given up.
///
/// # Errors
///
/// When the filter is not accepted.
pub fn to_touching_pages() -> io::Result<()> {
    apply(&touching_pages().map_err(io::Error::other)?)
}

/// Lets no thread of this process do more than read and write by sockets that it has or is sent, and read
/// files that come with them. Everything else is refused, as above.
///
/// # Errors
///
/// As above.
pub fn to_sockets() -> io::Result<()> {
    apply(&sockets().map_err(io::Error::other)?)
}

fn apply(filter: &BpfProgram) -> io::Result<()> {
    match apply_filter_all_threads(filter) {
        Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
            if error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(())
        }
        other => other.map_err(io::Error::other),
    }
}

type Program = Result<BpfProgram, seccompiler::BackendError>;

/// What arguments are allowed, of calls that are not with all.
type Rules = Vec<(c_long, Vec<SeccompRule>)>;

/// Files are mapped shared; memory of the process's own is private, which counts as its data and
/// has a limit. None is to be executed.
fn touching_pages() -> Program {
    let [shared, anonymous] = [libc::MAP_SHARED, libc::MAP_ANONYMOUS].map(bits);
    let files = [NOT_EXECUTED, (3, MaskedEq(shared | anonymous), shared)];
    let register = [(1, Eq, crate::userfault::REGISTER.into())];
    let maps = vec![rule(&files)?, own_memory()?];
    program(PAGES, vec![(libc::SYS_mmap, maps), (libc::SYS_ioctl, vec![rule(&register)?])])
}

/// What is sent has no address: a connection that is closed would be made anew by one (`MSG_FASTOPEN`).
fn sockets() -> Program {
    let not_to_block = [(1, Eq, libc::FIONBIO)];
    let unaddressed = SeccompCondition::new(4, SeccompCmpArgLen::Qword, Eq, 0)?;
    let rules = vec![
        (libc::SYS_mmap, vec![own_memory()?]),
        (libc::SYS_ioctl, vec![rule(&not_to_block)?]),
        (libc::SYS_sendto, vec![SeccompRule::new(vec![unaddressed])?]),
    ];
    program(SOCKETS, rules)
}

fn bits(flag: i32) -> u64 {
    u64::from(flag.unsigned_abs())
}

fn own_memory() -> Result<SeccompRule, seccompiler::BackendError> {
    let [shared, private] = [libc::MAP_SHARED, libc::MAP_PRIVATE].map(bits);
    rule(&[NOT_EXECUTED, (3, MaskedEq(shared | private), private)])
}

/// Allows [`BOTH`], `more`, and what `rules` say.
fn program(more: &[c_long], mut rules: Rules) -> Program {
    rules.push((libc::SYS_mprotect, vec![rule(&[NOT_EXECUTED])?]));
    let all = BOTH.iter().chain(more).map(|call| (*call, Vec::new()));
    let rules: std::collections::BTreeMap<_, _> = all.chain(rules).gather();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()
}

/// A rule that all of `conditions` have to hold for.
fn rule(conditions: &[Condition]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions.iter().map(|(argument, operator, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_built() {
        assert!(touching_pages().unwrap().len() > BOTH.len() + PAGES.len());
        assert!(sockets().unwrap().len() > BOTH.len() + SOCKETS.len());
    }
}
