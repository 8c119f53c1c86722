use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::peers::{SKIPPED, workspace};
use e2e::ringway::BINARY;

use crate::{instructions, models, setup};

/// How `cargo xtask test` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// Leave out the tests on real peers
    #[arg(long)]
    quick: bool,
    /// Run only the steps whose name contains NAME (see the table of a whole run); may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Install and set up nothing
    #[arg(long)]
    no_setup: bool,
}

/// One row of the table at the end.
struct Step {
    name: String,
    result: Result<(), String>,
    time: Duration,
}

/// Runs the steps one by one and gives whether all succeeded.
pub fn run(options: &Options) -> Result<bool> {
    let skipped = tempfile::NamedTempFile::new()?;
    let binary = release_binary();
    let mut steps = Vec::new();
    let mut step = |name: &str, needed: bool, body: &mut dyn FnMut() -> Result<()>| {
        let asked = options.only.is_empty() || options.only.iter().any(|part| name.contains(part));
        if !asked && !needed {
            return;
        }
        println!("\n=== {name}");
        let start = Instant::now();
        let result = body().map_err(|error| format!("{error:#}"));
        if let Err(error) = &result {
            println!("=== {name} FAILED: {error}");
        }
        steps.push(Step { name: name.to_owned(), result, time: start.elapsed() });
    };

    let e2e = e2e_tests()?;
    let e2e: Vec<_> = e2e.iter().filter(|_| !options.quick).collect();
    let hostile_asked = !options.quick
        && (options.only.is_empty()
            || options.only.iter().any(|part| "hostile".contains(part.as_str())));
    let peers_asked = e2e.iter().any(|name| {
        let name = format!("e2e {name}");
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part))
    });
    if !options.no_setup && !options.quick {
        step("setup", peers_asked, &mut || {
            // What is missing is counted when a test needs it.
            setup::run().map(drop)
        });
    }
    step("fmt", false, &mut || cargo(&["fmt", "--all", "--check"], &[]));
    step("clippy", false, &mut || {
        let lint = ["--workspace", "--all-targets", "--features", "ringway-e2e/peers"];
        cargo(&[&["clippy"], &lint[..], &["--", "-D", "warnings"]].concat(), &[])
    });
    let built = Cell::new(false);
    step("build", peers_asked || hostile_asked, &mut || {
        // What an earlier build has left must never be tested in place of what does not build.
        if let Err(error) = fs::remove_file(&binary) {
            ensure!(error.kind() == ErrorKind::NotFound, "{}: {error}", binary.display());
        }
        // Both programs at once: what takes longest, linking, takes one CPU for each.
        let counted = ["--package", "ringway-benches", "--bin", "instructions"];
        let counted = if options.quick { &[][..] } else { &counted[..] };
        let program = ["build", "--release", "--package", "ringway", "--bin", "ringway"];
        cargo(&[&program[..], counted].concat(), &[])?;
        ensure!(binary.exists(), "the build made no {}", binary.display());
        built.set(true);
        Ok(())
    });
    if !options.quick {
        step("instructions", false, &mut || {
            ensure!(instructions::run(&instructions::Options::default())?, "counts have changed");
            Ok(())
        });
    }
    step("unit", false, &mut || {
        cargo(&["test", "--workspace"], &[(BINARY, binary.as_os_str().to_owned())])
    });
    step("loom", false, &mut models::run);
    if !options.quick {
        step("hostile", false, &mut || {
            ensure!(built.get(), "not run: the step build failed");
            let attack = ["run", "--quiet", "--package", "ringway-hostile", "--", "--fast"];
            cargo(&attack, &[(BINARY, binary.as_os_str().to_owned())])
        });
    }
    for name in e2e {
        step(&format!("e2e {name}"), false, &mut || {
            ensure!(built.get(), "not run: the step build failed");
            let test = ["test", "--package", "ringway-e2e", "--features", "peers", "--test", name];
            let environment = [
                (BINARY, binary.as_os_str().to_owned()),
                (SKIPPED, skipped.path().as_os_str().to_owned()),
            ];
            cargo(&[&test[..], &["--", "--test-threads=1"]].concat(), &environment)
        });
    }
    ensure!(!steps.is_empty(), "no step has a name that contains {:?}", options.only);
    Ok(report(&steps, &fs::read_to_string(skipped.path())?))
}

fn cargo(arguments: &[&str], environment: &[(&str, OsString)]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .current_dir(workspace())
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        // The errors of the harness say what happened; their call stacks are noise.
        .env("RUST_LIB_BACKTRACE", "0")
        .status()
        .context("cargo")?;
    ensure!(status.success(), "cargo {}: {status}", arguments.join(" "));
    Ok(())
}

/// Where `cargo build --release` puts the binary.
fn release_binary() -> PathBuf {
    e2e::peers::target_dir().with_file_name("release").join("ringway")
}

/// The end-to-end test programs: the harness first, since the others stand on it.
fn e2e_tests() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    names.sort_by_key(|name| (name != "harness", name.clone()));
    Ok(names)
}

/// Prints the table of steps and the tests skipped; gives whether all succeeded.
fn report(steps: &[Step], skipped: &str) -> bool {
    println!("\n{:<24} {:>8}  result", "step", "seconds");
    for Step { name, result, time } in steps {
        let result =
            result.as_ref().map_or_else(|error| format!("FAILED: {error}"), |()| "ok".into());
        println!("{name:<24} {:>8.1}  {result}", time.as_secs_f64());
    }
    let total: Duration = steps.iter().map(|step| step.time).sum();
    println!("{:<24} {:>8.1}", "total", total.as_secs_f64());
    for line in skipped.lines() {
        println!("skipped: {line}");
    }
    let failed = steps.iter().filter(|step| step.result.is_err()).count();
    match (failed, skipped.lines().count()) {
        (0, 0) => println!("all tests passed"),
        (0, n) => println!("all tests passed that could be run; {n} skipped"),
        (failed, _) => println!("{failed} of {} steps failed", steps.len()),
    }
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_to_end_test_is_a_step_and_the_harness_is_first() {
        let names = e2e_tests().unwrap();
        assert_eq!(names.first().map(String::as_str), Some("harness"));
        assert!(workspace().join("tests/tests/harness.rs").exists());
    }

    #[test]
    fn one_failed_step_fails_the_run() {
        let step = |result| Step { name: "x".into(), result, time: Duration::ZERO };
        assert!(report(&[step(Ok(()))], "a::b: no guest\n"));
        assert!(!report(&[step(Ok(())), step(Err("bad".into()))], ""));
    }
}
