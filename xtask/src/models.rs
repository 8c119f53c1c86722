use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::peers::{target_dir, workspace};

/// Packages with models, and where those are.
const MODELS: [(&str, &str); 3] = [
    ("ringway-eal", "handover::models"),
    ("ringway-eal", "worker::models"),
    ("ringway-switch", "fdb::table::models"),
];

/// Runs the models of what threads share. They are compiled with atomics of loom, so their build
/// is one of its own.
pub fn run() -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for (package, models) in MODELS {
        let output = Command::new(&program)
            .current_dir(workspace())
            .args(["test", "--package", package, "--lib", models])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", target_dir().with_file_name("loom"))
            .output()
            .context("cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "models of {package}: {}\n{log}", output.status);
        ensure!(!text.contains(" 0 passed"), "{package} has no models at {models}");
    }
    Ok(())
}
