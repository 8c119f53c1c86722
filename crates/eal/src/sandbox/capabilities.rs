//! Capabilities (capabilities(7)).

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::SandboxError;

/// Keeps those of `wanted` that this thread has, and gives up all others, for good. Returns what it
/// had and what it has.
pub(super) fn keep(wanted: CapabilitySet) -> Result<(CapabilitySet, CapabilitySet), SandboxError> {
    let failed = |errno| SandboxError::new("give up capabilities", errno);
    let had = capabilities(None).map_err(failed)?.permitted;
    let kept = had & wanted;
    // What a program could gain that this process starts. That takes a capability itself, and whoever
    // has none could start none that gains one: no_new_privs is set.
    if had.contains(CapabilitySet::SETPCAP) {
        for (_, one) in (!kept).iter_names() {
            match remove_capability_from_bounding_set(one) {
                // The kernel has not heard of it.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    set_capabilities(None, sets).map_err(failed)?;
    Ok((had, kept))
}

/// Calls `action` without the rights of root over other users' files.
pub(super) fn as_owner<R>(action: impl FnOnce() -> R) -> Result<R, SandboxError> {
    let failed = |errno| SandboxError::new("look at capabilities", errno);
    let before = capabilities(None).map_err(failed)?;
    let rights = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    if !before.effective.intersects(rights) {
        return Ok(action());
    }
    set_capabilities(None, CapabilitySets { effective: before.effective & !rights, ..before })
        .map_err(failed)?;
    let result = action();
    set_capabilities(None, before).map_err(failed)?;
    Ok(result)
}
