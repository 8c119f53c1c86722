use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::peers::workspace;

/// Packages with models.
const PACKAGES: [&str; 2] = ["ringway-eal", "ringway-fdb"];

/// Where their models are.
const MODELS: [&str; 3] = ["handover::models::", "worker::models::", "table::models::"];

/// A package without a library, so without a test here: together with what it needs, the packages of
/// others have the features that the other builds ask for, and need not be compiled for these alone.
const BESIDE: [&str; 2] = ["--package", "xtask"];

/// The compiler of these, which has them use the atomics of loom.
const COMPILER: &str = "xtask/loom-rustc";

/// Runs the models of what threads share. They are compiled with atomics of loom: for them the crates
/// of the workspace are compiled once more, and no others.
pub fn run() -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&program)
        .current_dir(workspace())
        .args(["test", "--lib"])
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        .args(BESIDE)
        .arg("--")
        .args(MODELS)
        .env("RUSTC_WORKSPACE_WRAPPER", workspace().join(COMPILER))
        .output()
        .context("cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "models: {}\n{log}", output.status);
    for models in MODELS {
        ensure!(text.contains(&format!("test {models}")), "there are no models at {models}");
    }
    Ok(())
}
