use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::peers::{target_dir, workspace};

/// How `cargo xtask fuzz` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// Fuzz only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long to fuzz each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Print the targets and how many inputs are kept for each
    #[arg(long)]
    list: bool,
    /// Play this input only, with all that the target prints; needs one TARGET
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Find accesses outside of heap and stack, too (AddressSanitizer); slower
    #[arg(long)]
    asan: bool,
}

/// The architecture is named so that build scripts and macros are not instrumented.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What libFuzzer needs the compiler to add: counters of edges, where they are, and what is
/// compared with what. All of these options are stable.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Longest input that is made, in bytes.
const MAX_INPUT: usize = 4096;

/// Fuzzes the targets one by one; gives whether all inputs went well.
pub fn run(options: &Options) -> Result<bool> {
    let fuzzer = build(options.asan)?;
    let known = fuzzer.targets()?;
    if options.list {
        for (name, about) in &known {
            println!("{name:<16} {:>4} inputs  {about}", inputs(&kept(name))?.len());
        }
        return Ok(true);
    }
    let targets = asked(&options.targets, &known)?;
    if let Some(input) = &options.input {
        let [target] = targets[..] else { bail!("--input needs one TARGET") };
        return Ok(fuzzer.command(target).arg(input).status().context("fuzzer")?.success());
    }
    let mut found = Vec::new();
    for target in targets {
        println!("\n=== {target}");
        if !fuzzer.fuzz(target, options.seconds)? {
            found.push(target);
            continue;
        }
        fuzzer.keep(target)?;
    }
    for target in &found {
        println!("{target}: an input failed; it is in {}", work(target)?.display());
    }
    Ok(found.is_empty())
}

/// The program that has all targets.
struct Fuzzer {
    program: PathBuf,
}

/// Compiles it with coverage. AddressSanitizer is the one part that is not stable, so only with it
/// the compiler is told to take such options nevertheless.
fn build(asan: bool) -> Result<Fuzzer> {
    let directory = target_dir().with_file_name(if asan { "fuzz-asan" } else { "fuzz" });
    let mut flags = COVERAGE.to_vec();
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    if asan {
        flags.push("-Zsanitizer=address");
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    let status = cargo
        .current_dir(workspace())
        .args(["build", "--profile", "fuzz", "--package", "ringway-fuzz", "--bin", "ringway-fuzz"])
        .args(["--features", "libfuzzer", "--target", TRIPLE])
        .env("RUSTFLAGS", flags.join(" "))
        .env("CARGO_TARGET_DIR", &directory)
        .status()
        .context("cargo")?;
    ensure!(status.success(), "the targets do not build: {status}");
    Ok(Fuzzer { program: directory.join(TRIPLE).join("fuzz/ringway-fuzz") })
}

impl Fuzzer {
    /// The names of all targets, and what each plays.
    fn targets(&self) -> Result<Vec<(String, String)>> {
        let output = Command::new(&self.program).output().context("fuzzer")?;
        ensure!(output.status.success(), "the list of targets: {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let line = |line: &str| line.split_once('\t').map(|(a, b)| (a.to_owned(), b.to_owned()));
        text.lines().map(|text| line(text).context("a target without a name")).collect()
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("RINGWAY_FUZZ_TARGET", target);
        // SIGBUS belongs to the code under test, which replaces memory that was taken away.
        command.args(["-handle_bus=0", "-timeout=10", "-rss_limit_mb=2048"]);
        command
    }

    /// Fuzzes for some seconds; gives whether no input failed. One that did is in the directory of
    /// the target.
    fn fuzz(&self, target: &str, seconds: u32) -> Result<bool> {
        let work = work(target)?;
        let corpus = work.join("corpus");
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(kept(target))?;
        let mut running = self
            .command(target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={MAX_INPUT}"))
            .arg(argument("-artifact_prefix=", &work.join("failed-")))
            .args(["-print_final_stats=1", "-use_value_profile=1", "-reload=0"])
            .args([&corpus, &kept(target)])
            .stderr(Stdio::piped())
            .spawn()
            .context("fuzzer")?;
        if let Some(log) = running.stderr.take() {
            show(BufReader::new(log))?;
        }
        Ok(running.wait()?.success())
    }

    /// Keeps the smallest set of inputs that reaches all code that was reached.
    fn keep(&self, target: &str) -> Result<()> {
        let (corpus, kept) = (work(target)?.join("corpus"), kept(target));
        let least = tempfile::tempdir()?;
        let output = self
            .command(target)
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .args([least.path(), &corpus, &kept])
            .output()
            .context("fuzzer")?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "choosing inputs of {target}: {}\n{log}", output.status);
        let before = inputs(&kept)?;
        for path in &before {
            fs::remove_file(path)?;
        }
        let mut bytes = 0;
        let after = inputs(least.path())?;
        for path in &after {
            let name = path.file_name().context("an input without a name")?;
            bytes += fs::copy(path, kept.join(name))?;
        }
        println!(
            "{target}: {} inputs of {bytes} bytes in all are kept, {} before",
            after.len(),
            before.len()
        );
        Ok(())
    }
}

/// Prints what the fuzzer says, but neither each input that it finds nor words for dictionaries.
fn show(log: impl BufRead) -> Result<()> {
    let noise = ["NEW", "REDUCE", "RELOAD", "# Uses:", "ecommended dictionary"];
    for line in log.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if !noise.iter().any(|word| line.contains(word)) {
            println!("{line}");
        }
    }
    Ok(())
}

fn argument(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}

/// Where the inputs of a target are kept.
fn kept(target: &str) -> PathBuf {
    workspace().join("fuzz/corpus").join(target)
}

/// Where a target's inputs gather meanwhile.
fn work(target: &str) -> Result<PathBuf> {
    let path = target_dir().with_file_name("fuzz-work").join(target);
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn inputs(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// The targets of these names; without any, all of them.
fn asked<'a>(names: &[String], known: &'a [(String, String)]) -> Result<Vec<&'a str>> {
    let all: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("there is no target {unknown}; expected one of: {}", all.join(", "));
    }
    Ok(all.into_iter().filter(|name| names.is_empty() || names.iter().any(|n| n == name)).collect())
}
