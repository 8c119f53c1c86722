use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::qemu::Vm;

/// How long a migration may take: a guest under emulation that shares two cores with its test.
const LIMIT: Duration = Duration::from_secs(120);

/// Slow enough for the guest to change memory that was copied already, so that there are several
/// rounds.
const BYTES_PER_SECOND: u64 = 30 << 20;

/// So slow that most of a minute goes by before the memory of a guest that has some 100 MiB in use has
/// followed it. What the guest asks for meanwhile has to fit in, too: slower, and it would stand still.
const LATE_BYTES_PER_SECOND: u64 = 2 << 20;

/// What QEMU tells of a migration.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// How long the guest stood still.
    pub downtime: Duration,
    /// From the command to the end.
    pub total: Duration,
    /// Rounds in which changed pages were copied.
    pub rounds: u64,
    /// Pages that were asked for when they were needed, by post-copy.
    pub late: u64,
}

/// Moves a running guest from `from` to `to`, which was started as
/// [`incoming`](crate::Qemu::incoming) with the same devices, over a Unix socket at `socket`.
/// What the guest was told to do through `from` is answered through `to`.
///
/// # Errors
/// When one of the two does not want to, or it takes too long.
pub fn migrate(from: &mut Vm, to: &mut Vm, socket: &Path) -> Result<Migration> {
    let migration = copy(from, to, socket)?;
    resume(to)?;
    Ok(migration)
}

/// Moves a guest by post-copy: it runs at `to`, which was started as
/// [`incoming_by_postcopy`](crate::Qemu::incoming_by_postcopy), before most of its memory is there.
/// `meanwhile` is called then, and the rest arrives when it is done.
///
/// # Errors
/// As [`migrate`], when `meanwhile` fails, and when the memory was there before it was done.
pub fn migrate_by_postcopy(
    from: &mut Vm,
    to: &mut Vm,
    socket: &Path,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Migration> {
    let uri = json!({ "uri": format!("unix:{}", socket.display()) });
    let capabilities = json!({ "capabilities": [
        { "capability": "events", "state": true },
        { "capability": "postcopy-ram", "state": true },
    ] });
    let rates = json!({
        "max-bandwidth": LATE_BYTES_PER_SECOND,
        "max-postcopy-bandwidth": LATE_BYTES_PER_SECOND,
    });
    from.qmp("migrate-set-capabilities", &capabilities)?;
    from.qmp("migrate-set-parameters", &rates)?;
    to.qmp("migrate-set-capabilities", &capabilities)?;
    to.qmp("migrate-incoming", &uri)?;
    from.qmp("migrate", &uri)?;
    wait_status(from, "active")?;
    from.qmp("migrate-start-postcopy", &json!({}))?;
    wait_status(from, "postcopy-active")?;
    to.wait_event("RESUME", LIMIT)?;
    meanwhile()?;
    let now = report(from)?;
    ensure!(now["status"] == "postcopy-active", "it was over before: {now}");
    // From here on nothing depends on when the rest comes.
    from.qmp("migrate-set-parameters", &json!({ "max-postcopy-bandwidth": 0 }))?;
    wait_completed(from)?;
    wait_completed(to)?;
    Migration::read(from)
}

/// As [`migrate`], but the guest stands still on both sides until [`resume`].
///
/// # Errors
/// As [`migrate`].
pub fn copy(from: &mut Vm, to: &mut Vm, socket: &Path) -> Result<Migration> {
    let uri = json!({ "uri": format!("unix:{}", socket.display()) });
    announce(from)?;
    from.qmp("migrate-set-parameters", &json!({ "max-bandwidth": BYTES_PER_SECOND }))?;
    announce(to)?;
    to.qmp("migrate-incoming", &uri)?;
    from.qmp("migrate", &uri)?;
    wait_completed(from)?;
    wait_completed(to)?;
    Migration::read(from)
}

impl Migration {
    /// What the QEMU that the guest has left tells.
    fn read(from: &mut Vm) -> Result<Self> {
        let report = report(from)?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        Ok(Self {
            downtime: Duration::from_millis(number(&report["downtime"])),
            total: Duration::from_millis(number(&report["total-time"])),
            rounds: number(&report["ram"]["dirty-sync-count"]),
            late: number(&report["ram"]["postcopy-requests"]),
        })
    }
}

/// Has QEMU tell how migrations go.
fn announce(vm: &mut Vm) -> Result<()> {
    let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    vm.qmp("migrate-set-capabilities", &events).map(drop)
}

pub(crate) fn wait_completed(vm: &mut Vm) -> Result<()> {
    wait_status(vm, "completed")
}

fn wait_status(vm: &mut Vm, status: &str) -> Result<()> {
    loop {
        let event = vm.wait_event("MIGRATION", LIMIT)?;
        match event["data"]["status"].as_str() {
            Some(now) if now == status => return Ok(()),
            Some("failed" | "cancelled") => bail!("migration: {}", report(vm)?),
            _ => {}
        }
    }
}

/// Lets the guest run after [`copy`].
///
/// # Errors
/// When QEMU does not.
pub fn resume(vm: &mut Vm) -> Result<()> {
    vm.qmp("cont", &json!({}))?;
    vm.wait_event("RESUME", LIMIT)?;
    Ok(())
}

/// Compares the memory of a guest that stands still on both sides: gives the addresses, in QEMU's
/// file, of all pages that differ.
///
/// # Errors
/// When it cannot be read.
pub fn different_pages(from: &Vm, to: &Vm) -> Result<Vec<u64>> {
    const PAGE: usize = 4096;
    let (from, to) = (from.memory()?, to.memory()?);
    let len = from.metadata()?.len();
    ensure!(to.metadata()?.len() == len, "the two have different sizes of memory");
    let [mut left, mut right] = [(); 2].map(|()| vec![0; 256 * PAGE]);
    let mut different = Vec::new();
    for start in (0..len).step_by(left.len()) {
        from.read_exact_at(&mut left, start)?;
        to.read_exact_at(&mut right, start)?;
        let pages = (start..).step_by(PAGE).zip(left.chunks(PAGE).zip(right.chunks(PAGE)));
        different.extend(pages.filter(|(_, (left, right))| left != right).map(|(at, _)| at));
    }
    Ok(different)
}

fn report(vm: &mut Vm) -> Result<Value> {
    vm.qmp("query-migrate", &json!({}))
}
