//! Giving up system calls, for a process that touches pages for another one and does nothing else
//! (seccomp(2)).

use std::io;

use libc::c_long;
use ordered::Gather as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Allowed with all arguments: talking over sockets that are there, letting go of memory and files,
/// waiting for other threads, saying a last word, and ending.
const ALLOWED: &[c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_write,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What arguments are compared with.
type Conditions<'c> = &'c [(u8, SeccompCmpOp, u64)];

/// Lets no thread of this process do more than touch memory: map files that it is sent, register
/// that with a userfaultfd, and tell. Everything else is refused (EPERM) from now on. Where the
/// kernel has no seccomp, nothing is given up.
///
/// # Errors
///
/// When the filter is not accepted.
pub fn to_touching_pages() -> io::Result<()> {
    match apply_filter_all_threads(&program().map_err(io::Error::other)?) {
        Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
            if error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(())
        }
        other => other.map_err(io::Error::other),
    }
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let [exec, shared, private, anonymous] =
        [libc::PROT_EXEC, libc::MAP_SHARED, libc::MAP_PRIVATE, libc::MAP_ANONYMOUS]
            .map(|flag| u64::from(flag.unsigned_abs()));
    // Files are mapped shared; memory of the process's own is private, which counts as its data and
    // has a limit. None is to be executed.
    let not_executed = |argument| (argument, MaskedEq(exec), 0);
    let files = [not_executed(2), (3, MaskedEq(shared | anonymous), shared)];
    let own = [not_executed(2), (3, MaskedEq(shared | private), private)];
    let register = [(1, Eq, crate::userfault::REGISTER.into())];
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).gather();
    rules.insert(libc::SYS_mmap, vec![rule(&files)?, rule(&own)?]);
    rules.insert(libc::SYS_mprotect, vec![rule(&[not_executed(2)])?]);
    rules.insert(libc::SYS_ioctl, vec![rule(&register)?]);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()
}

/// A rule that all of `conditions` have to hold for.
fn rule(conditions: Conditions<'_>) -> Result<SeccompRule, seccompiler::BackendError> {
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
    fn the_filter_can_be_built() {
        assert!(program().unwrap().len() > ALLOWED.len());
    }
}
