//! What becomes of a system call that is not on the list: it fails with EPERM, and standard error
//! tells which it was, once for each.

use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libc::{c_int, c_void, siginfo_t};

/// Numbers of system calls that are kept account of.
const NUMBERS: usize = 512;

/// `SYS_SECCOMP`: the signal comes from a filter.
const FROM_FILTER: c_int = 1;

/// Calls that were told of, a bit for each.
static TOLD: [AtomicU64; NUMBERS / 64] = [const { AtomicU64::new(0) }; NUMBERS / 64];

/// The fields of `siginfo_t` for SIGSYS (`_sigsys` in the kernel's `siginfo.h`, 64 bit).
#[repr(C)]
struct SysInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    _pad: c_int,
    address: *const c_void,
    number: c_int,
    arch: u32,
}

/// Has refused calls fail with EPERM from now on, whichever thread makes them.
pub(super) fn install() -> io::Result<()> {
    // SAFETY: all zeroes are a valid sigaction, `handle` has the signature that SA_SIGINFO asks for
    // and does only what a signal handler may: see there.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Only atomics, the stack and write(2).
extern "C" fn handle(_: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a `siginfo_t`, of which this is the part for SIGSYS.
    let info = unsafe { &*info.cast::<SysInfo>() };
    if info.code != FROM_FILTER {
        // Somebody has sent it. It would have ended the process, and means nothing here.
        return;
    }
    // SAFETY: the third argument is a `ucontext_t`, the state that the thread goes on with.
    fail_with_eperm(unsafe { &mut *context.cast::<libc::ucontext_t>() });
    if let Ok(number) = usize::try_from(info.number) {
        tell(number);
    }
}

#[cfg(target_arch = "x86_64")]
fn fail_with_eperm(context: &mut libc::ucontext_t) {
    if let Some(result) = context.uc_mcontext.gregs.get_mut(libc::REG_RAX as usize) {
        *result = -i64::from(libc::EPERM);
    }
}

#[cfg(target_arch = "aarch64")]
fn fail_with_eperm(context: &mut libc::ucontext_t) {
    let [result, ..] = &mut context.uc_mcontext.regs;
    *result = (-i64::from(libc::EPERM)).cast_unsigned();
}

fn tell(number: usize) {
    let Some(word) = TOLD.get(number / 64) else { return };
    let bit = 1_u64 << (number % 64);
    if word.fetch_or(bit, Relaxed) & bit != 0 {
        return;
    }
    let name = syscalls::Sysno::new(number).map_or("unknown", |call| call.name());
    let mut line = [0_u8; 160];
    let mut rest = line.as_mut_slice();
    let whole = writeln!(
        rest,
        "ringway: the sandbox refused the system call {name} ({number}); --sandbox off permits it"
    );
    let left = rest.len();
    let Some(text) = line.get(..line.len() - left).filter(|_| whole.is_ok()) else { return };
    // SAFETY: the number is that of standard error; if it is closed, write(2) says so.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let _ = rustix::io::write(stderr, text);
}
