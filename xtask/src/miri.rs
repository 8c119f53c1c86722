use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::peers::{target_dir, workspace};

/// How `cargo xtask miri` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// Run the tests of these packages only, as in packet
    #[arg(value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Cases of each property
    #[arg(long, value_name = "N", default_value_t = 2)]
    cases: u32,
}

/// The tests of a package that Miri can run.
struct Part {
    package: &'static str,
    /// Names that have one of these in them; all, if there are none.
    only: &'static [&'static str],
    /// Names that have none of these in them.
    skip: &'static [&'static str],
}

/// What is left out needs what Miri does not have: files that are read and written beside their
/// mappings, processes, signals, devices; or it would take hours. docs/decisions/0012-fuzzing.md has
/// the list for people.
const PARTS: [Part; 3] = [
    Part {
        package: "eal",
        only: &["counter::", "dma::", "handover::", "worker::"],
        skip: &["a_reader_never", "never_in_two_places"],
    },
    Part {
        package: "packet",
        only: &["frame::", "pool::", "owned::", "copy::"],
        skip: &["pool_costs", "cross_threads"],
    },
    Part {
        package: "virtio",
        only: &["driver::split", "device::tests", "iotlb"],
        skip: &["whatever_happens", "oldest_makes_room"],
    },
];

/// Runs the tests that Miri can run; gives whether it has found nothing.
pub fn run(options: &Options) -> Result<bool> {
    let known: Vec<&str> = PARTS.iter().map(|part| part.package).collect();
    if let Some(name) = options.packages.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("Miri runs no tests of {name}; expected one of: {}", known.join(", "));
    }
    install()?;
    let asked = |part: &&Part| {
        options.packages.is_empty() || options.packages.iter().any(|name| name == part.package)
    };
    let mut good = true;
    for part in PARTS.iter().filter(asked) {
        println!("\n=== {}", part.package);
        good &= interpret(part, options.cases)?;
    }
    Ok(good)
}

/// A nightly cargo: Miri comes with nightly toolchains only.
fn nightly() -> Command {
    // That of this process is stable, and says so to its children.
    let mut command = Command::new("rustup");
    command.current_dir(workspace()).args(["run", "nightly", "cargo"]);
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}

/// Installs Miri where it is missing.
fn install() -> Result<()> {
    let there = nightly().args(["miri", "--version"]).output();
    if there.as_ref().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    println!("installing a nightly toolchain with Miri");
    let components = ["--component", "miri", "--component", "rust-src"];
    let status = Command::new("rustup")
        .args(["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"])
        .args(components)
        .status()
        .context("rustup, which installs the nightly toolchain that Miri comes with")?;
    ensure!(status.success(), "Miri cannot be installed: rustup says {status}");
    Ok(())
}

/// Runs the tests of one package.
fn interpret(part: &Part, cases: u32) -> Result<bool> {
    let mut command = nightly();
    command
        .args(["miri", "test", "--package", &format!("ringway-{}", part.package), "--lib", "--"])
        .args(part.only);
    for name in part.skip {
        command.args(["--skip", name]);
    }
    let status = command
        .env("CARGO_TARGET_DIR", target_dir().with_file_name("miri"))
        // Files of the system that are read, as the list of users; random numbers and time.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", cases.to_string())
        .status()
        .context("cargo miri")?;
    Ok(status.success())
}
