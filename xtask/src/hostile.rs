use std::process::Command;

use anyhow::{Context, Result};
use e2e::peers::workspace;

/// Builds the attacking program and runs it with these arguments; gives whether all that is ours
/// survived.
pub fn run(arguments: &[String]) -> Result<bool> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .current_dir(workspace())
        .args(["run", "--quiet", "--package", "ringway-hostile", "--"])
        .args(arguments)
        .status()
        .context("cargo")?;
    Ok(status.success())
}
