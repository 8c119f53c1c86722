use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::qemu::Vm;

/// How long a migration may take: a guest under emulation that shares two cores with its test.
const LIMIT: Duration = Duration::from_secs(120);

/// Slow enough for the guest to change memory that was copied already, so that there are several
/// rounds.
const BYTES_PER_SECOND: u64 = 30 << 20;

/// What QEMU tells of a migration.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// How long the guest stood still.
    pub downtime: Duration,
    /// From the command to the end.
    pub total: Duration,
    /// Rounds in which changed pages were copied.
    pub rounds: u64,
}

/// Moves a running guest from `from` to `to`, which was started as
/// [`incoming`](crate::Qemu::incoming) with the same devices, over a Unix socket at `socket`.
/// What the guest was told to do through `from` is answered through `to`.
///
/// # Errors
/// When one of the two does not want to, or it takes too long.
pub fn migrate(from: &mut Vm, to: &mut Vm, socket: &Path) -> Result<Migration> {
    let uri = json!({ "uri": format!("unix:{}", socket.display()) });
    let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    from.qmp("migrate-set-capabilities", &events)?;
    from.qmp("migrate-set-parameters", &json!({ "max-bandwidth": BYTES_PER_SECOND }))?;
    to.qmp("migrate-incoming", &uri)?;
    from.qmp("migrate", &uri)?;
    loop {
        let event = from.wait_event("MIGRATION", LIMIT)?;
        let status = event["data"]["status"].as_str().unwrap_or_default();
        ensure!(!["failed", "cancelled"].contains(&status), "migration: {}", report(from)?);
        if status == "completed" {
            break;
        }
    }
    to.wait_event("RESUME", LIMIT)?;
    let report = report(from)?;
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    Ok(Migration {
        downtime: Duration::from_millis(number(&report["downtime"])),
        total: Duration::from_millis(number(&report["total-time"])),
        rounds: number(&report["ram"]["dirty-sync-count"]),
    })
}

fn report(vm: &mut Vm) -> Result<Value> {
    vm.qmp("query-migrate", &json!({}))
}
