//! System calls, by seccomp(2): a list of those that are allowed.
//!
//! The list is what Ringway and the libraries that it rests on call (the C library, the allocator,
//! name look-ups), found by running all tests under it. What is new in a C library fails with ENOSYS
//! if it is in [`UNKNOWN`], as in an older kernel, and is refused otherwise.

use std::collections::BTreeMap;

use bitflags::bitflags;
use libc::c_long;
use ordered::Gather as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::SandboxError;

bitflags! {
    /// System calls that only some need.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Calls: u8 {
        /// bpf(2).
        const BPF = 1;
        /// Sockets of the families AF_PACKET and AF_XDP.
        const RAW_SOCKETS = 1 << 1;
    }
}

/// Always allowed, with all arguments.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // Memory.
    libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_msync,
    libc::SYS_mincore, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock, libc::SYS_membarrier,
    libc::SYS_memfd_create, libc::SYS_fallocate, libc::SYS_ftruncate, libc::SYS_userfaultfd,
    // Files.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2,
    libc::SYS_lseek, libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3,
    libc::SYS_fcntl, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_openat, libc::SYS_newfstatat,
    libc::SYS_fstat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs, libc::SYS_readlinkat,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_unlinkat, libc::SYS_getdents64,
    libc::SYS_getcwd, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchownat, libc::SYS_umask,
    libc::SYS_flock, libc::SYS_pipe2,
    // Sockets; socket(2) itself is below.
    libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_connect, libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_setsockopt,
    libc::SYS_getsockopt, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_shutdown,
    // Waiting and signalling.
    libc::SYS_eventfd2, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime, libc::SYS_io_setup, libc::SYS_io_submit,
    libc::SYS_io_getevents, libc::SYS_io_cancel, libc::SYS_io_destroy,
    // Threads, and processes that were started before.
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq,
    libc::SYS_set_tid_address, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity, libc::SYS_sched_getscheduler, libc::SYS_sched_getparam,
    libc::SYS_getcpu, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_exit,
    libc::SYS_exit_group, libc::SYS_prctl, libc::SYS_capget, libc::SYS_capset, libc::SYS_tgkill, libc::SYS_kill,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_wait4, libc::SYS_waitid,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Who and when.
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getgroups,
    libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_clock_gettime, libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep, libc::SYS_nanosleep, libc::SYS_gettimeofday, libc::SYS_getrandom,
    libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_prlimit64, libc::SYS_getrlimit,
    libc::SYS_getrusage, libc::SYS_get_mempolicy,
];

/// The same of those that newer architectures do not have.
#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_readlink, libc::SYS_access,
    libc::SYS_unlink, libc::SYS_chmod, libc::SYS_dup2, libc::SYS_poll, libc::SYS_select,
    libc::SYS_epoll_wait, libc::SYS_epoll_create, libc::SYS_pipe, libc::SYS_arch_prctl,
    libc::SYS_time, libc::SYS_getdents,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// Calls that libraries try first and do without: their arguments are out of a filter's sight, as
/// the flags of clone3(2) are, or nobody needs what they do.
const UNKNOWN: &[c_long] = &[libc::SYS_clone3, libc::SYS_openat2];

/// Calls that start processes and programs. They fail with EPERM without the signal that tells of
/// it: the C library blocks all signals meanwhile, and a blocked one would end the process.
#[cfg(target_arch = "x86_64")]
const STARTING: &[c_long] =
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve, libc::SYS_execveat];
#[cfg(not(target_arch = "x86_64"))]
const STARTING: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// The flags that arguments are made of, as a filter sees them.
#[allow(non_camel_case_types, reason = "the C type that stands for")]
type c_flags = u64;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allows the calls of the list and `more`. Returns whether the system can do that.
pub(super) fn restrict(more: Calls) -> Result<bool, SandboxError> {
    let allowed = program(rules(more)?, SeccompAction::Trap, SeccompAction::Allow)?;
    let unknown = program(listed(UNKNOWN), SeccompAction::Allow, refusal(libc::ENOSYS))?;
    let mut starting = listed(STARTING);
    starting.insert(libc::SYS_clone, vec![no_thread()?]);
    let starting = program(starting, SeccompAction::Allow, refusal(libc::EPERM))?;
    // The list of calls allows what the other filters refuse in their own ways. It comes last, as it
    // allows no further filter.
    for filter in [unknown, starting, allowed] {
        match apply_filter_all_threads(&filter) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error))
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(true)
}

/// All of `calls`, with all arguments.
fn listed(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).gather()
}

fn refusal(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

fn rules(more: Calls) -> Result<Rules, SandboxError> {
    let mut rules = Rules::new();
    for calls in [ALLOWED, ALLOWED_OLD, UNKNOWN, STARTING, &[libc::SYS_clone]] {
        rules.append(&mut listed(calls));
    }
    if more.contains(Calls::BPF) {
        rules.insert(libc::SYS_bpf, Vec::new());
    }
    rules.insert(libc::SYS_socket, families(more)?);
    // Nobody types into a terminal on the user's behalf.
    rules.insert(libc::SYS_ioctl, vec![rule(&[(1, SeccompCmpOp::Ne, libc::TIOCSTI)])?]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, not_both_written_and_executed()?);
    }
    Ok(rules)
}

/// Sockets: local ones, netlink, and what interfaces are asked about with.
fn families(more: Calls) -> Result<Vec<SeccompRule>, SandboxError> {
    let families = [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_INET, libc::AF_INET6];
    let raw = [libc::AF_PACKET, libc::AF_XDP];
    let raw = raw.iter().filter(|_| more.contains(Calls::RAW_SOCKETS));
    let all = families.iter().chain(raw);
    all.map(|family| rule(&[(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()))])).collect()
}

/// clone(2) that makes a process, not a thread.
fn no_thread() -> Result<SeccompRule, SandboxError> {
    rule(&[(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as c_flags), 0)])
}

/// Memory is written to or executed, not both. (Libraries that look up names are loaded late.)
fn not_both_written_and_executed() -> Result<Vec<SeccompRule>, SandboxError> {
    let (write, exec) = (libc::PROT_WRITE as c_flags, libc::PROT_EXEC as c_flags);
    let either = SeccompCmpOp::MaskedEq(write | exec);
    [0, write, exec].into_iter().map(|prot| rule(&[(2, either.clone(), prot)])).collect()
}

/// A rule that all of `conditions` have to hold for: argument, comparison, value of 32 bits.
fn rule(conditions: &[(u8, SeccompCmpOp, c_flags)]) -> Result<SeccompRule, SandboxError> {
    let conditions = conditions.iter().map(|(argument, operator, value)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
    });
    let conditions = conditions.collect::<Result<_, _>>();
    conditions.and_then(SeccompRule::new).map_err(failed)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let filter = SeccompFilter::new(rules, otherwise, listed, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> SandboxError {
    SandboxError::new("restrict system calls", std::io::Error::other(error.to_string()))
}
