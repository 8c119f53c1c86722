use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::image::kept;
use crate::migration::{announce, wait_completed};
use crate::qemu::Vm;

/// Boots a machine by `start`, unless `state` has its snapshot already.
pub(crate) fn keep(state: &Path, start: impl FnOnce() -> Result<Vm>) -> Result<()> {
    kept(state, |part| {
        let mut vm = start()?;
        vm.wait_boot()?;
        vm.qmp("stop", &json!({}))?;
        announce(&mut vm)?;
        // As fast as can be.
        vm.qmp("migrate-set-parameters", &json!({ "max-bandwidth": 0 }))?;
        vm.qmp("migrate", &uri(part))?;
        wait_completed(&mut vm)
    })
    .context("a snapshot of a guest that has booted")
}

/// Has a machine that waits for a guest take that of a snapshot, which stands still.
pub(crate) fn restore(vm: &mut Vm, state: &Path) -> Result<()> {
    announce(vm)?;
    // Nobody has moved: QEMU would send RARP frames for network devices that are plugged in then, to
    // guests that cannot receive yet.
    vm.qmp("migrate-set-parameters", &json!({ "announce-rounds": 0 }))?;
    vm.qmp("migrate-incoming", &uri(state))?;
    wait_completed(vm).with_context(|| format!("{}: {}", state.display(), vm.state()))
}

fn uri(state: &Path) -> Value {
    json!({ "uri": format!("file:{}", state.display()) })
}
