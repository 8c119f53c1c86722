use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::kept;
use crate::memory;
use crate::migration::wait_completed;
use crate::qemu::Vm;

/// A machine that has booted, in two files: its memory, which another one has for its own from the
/// start, and the state of all else, which QEMU takes as that of a guest that is migrated.
#[derive(Debug)]
pub(crate) struct Snapshot {
    memory: PathBuf,
    state: PathBuf,
}

impl Snapshot {
    /// The one in files of this name.
    pub(crate) fn at(path: &Path) -> Self {
        let with = |what| PathBuf::from(format!("{}.{what}", path.display()));
        Self { memory: with("memory"), state: with("state") }
    }

    /// What a machine must have for its memory to be [restored](Self::restore).
    pub(crate) fn memory(&self) -> &Path {
        &self.memory
    }

    /// Boots a machine by `start`, unless there is a snapshot of it.
    pub(crate) fn keep(&self, start: impl FnOnce() -> Result<Vm>) -> Result<()> {
        kept(&self.state, |state| {
            let mut vm = start()?;
            vm.wait_boot()?;
            vm.qmp("stop", &json!({}))?;
            leave_memory_out(&mut vm, true)?;
            // As fast as can be.
            vm.qmp("migrate-set-parameters", &json!({ "max-bandwidth": 0 }))?;
            vm.qmp("migrate", &uri(state))?;
            wait_completed(&mut vm)?;
            // There is no state without it.
            let memory = File::create(&self.memory)?;
            memory::copy(&vm.memory()?, &memory)?;
            Ok(())
        })
        .context("a snapshot of a guest that has booted")
    }

    /// Has a machine that waits for a guest take this one, which stands still.
    pub(crate) fn restore(&self, vm: &mut Vm) -> Result<()> {
        leave_memory_out(vm, true)?;
        // Nobody has moved: QEMU would send RARP frames for network devices that are plugged in then,
        // to guests that cannot receive yet.
        vm.qmp("migrate-set-parameters", &json!({ "announce-rounds": 0 }))?;
        vm.qmp("migrate-incoming", &uri(&self.state))?;
        wait_completed(vm).with_context(|| format!("{}: {}", self.state.display(), vm.state()))?;
        // Where it moves to from here it takes its memory along.
        leave_memory_out(vm, false)
    }
}

/// Has QEMU tell how migrations go, and says whether it is to leave memory to others that they share.
fn leave_memory_out(vm: &mut Vm, out: bool) -> Result<()> {
    let capability = |what: &str, state: bool| json!({ "capability": what, "state": state });
    let both = [capability("events", true), capability("x-ignore-shared", out)];
    vm.qmp("migrate-set-capabilities", &json!({ "capabilities": both })).map(drop)
}

fn uri(state: &Path) -> Value {
    json!({ "uri": format!("file:{}", state.display()) })
}
