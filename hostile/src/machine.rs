//! Who runs where: the back-end on the first CPU, the pair before all others on the last one,
//! where the attacker is, too. On a host it is the same: a guest has CPUs of its own and takes
//! none of the switch's.

use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The CPU of the back-end's polling thread.
pub const BACK_END_CPU: usize = 0;

/// Has this thread stay away from the back-end's CPU.
pub fn stay_away() {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus > 1 {
        let mut set = CpuSet::new();
        (0..cpus).filter(|cpu| *cpu != BACK_END_CPU).for_each(|cpu| set.set(cpu));
        // Without it the judgement is less certain, not wrong: what is found is tried again.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Has this thread run whenever it wants to, if the system allows it.
pub fn go_first() {
    stay_away();
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: of this thread (0), with parameters that live until the call is over.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
}

/// Has all threads of a process run before those of other programs, if the system allows it, so
/// that the machine's other work is not taken for the back-end's fault.
pub fn prefer(process: u32) {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return };
    for thread in threads.flatten() {
        let id = thread.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            // The kernel takes the id of a thread for that of a process here.
            let _ = setpriority_process(Some(id), -15);
        }
    }
}
