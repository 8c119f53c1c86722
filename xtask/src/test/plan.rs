use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use e2e::peers::{SKIPPED, workspace};
use e2e::ringway::BINARY;

use super::programs::{EVERYTHING, Program, cargo};
use super::schedule::{Job, Output};
use crate::bench;

/// The job that builds the test programs.
const PROGRAMS: &str = "test programs";

/// The job that runs those which need no peer.
const UNIT: &str = "unit";

/// End-to-end tests that take longest: they begin first, so that the last one to end is a short one.
const LONGEST: [&str; 7] =
    ["migration", "vduse", "vdpa_hardware", "virtio_pci", "guests", "offload", "kernel_ports"];

/// What the steps of a run share.
pub struct Stage {
    /// The binary that is tested: as releases are built.
    binary: PathBuf,
    /// The file in which tests are listed that were skipped.
    skipped: tempfile::NamedTempFile,
    programs: OnceLock<Vec<Program>>,
    attacker: OnceLock<Program>,
}

impl Stage {
    pub fn new() -> Result<Self> {
        Ok(Self {
            binary: e2e::peers::target_dir().with_file_name("release").join("ringway"),
            skipped: tempfile::NamedTempFile::new()?,
            programs: OnceLock::new(),
            attacker: OnceLock::new(),
        })
    }

    /// The file in which tests are listed that were skipped.
    pub fn skipped(&self) -> &Path {
        self.skipped.path()
    }

    /// All steps, in the order in which they should begin: what others wait for, then what takes
    /// long.
    pub fn plan(&self, quick: bool, no_setup: bool) -> Result<Vec<Job<'_>>> {
        let mut jobs = vec![
            job("build", &[], move |output| self.build(output, !quick)),
            job(PROGRAMS, &[], move |output| self.build_tests(output, !quick)),
            job(UNIT, &["build", PROGRAMS], |output| self.unit(output)),
            job("loom", &[], |output| output.run(&mut xtask(&["loom"])?)),
            job("fmt", &[], |output| output.run(&mut cargo(&["fmt", "--all", "--check"]))),
            // It would wait for the other builds of this kind.
            job("clippy", &[PROGRAMS], |output| {
                let lint =
                    [&["clippy", "--all-targets"], &EVERYTHING[..], &["--", "-D", "warnings"]];
                output.run(&mut cargo(&lint.concat()))
            }),
        ];
        if quick {
            return Ok(jobs);
        }
        if !no_setup {
            // What is missing is counted when a test needs it.
            let work = |output: &Output| {
                drop(output.run(&mut xtask(&["setup"])?));
                Ok(())
            };
            jobs.insert(0, job("setup", &[], work));
        }
        jobs.push(job("instructions", &["setup", "build"], |output| {
            output.run(&mut xtask(&["instructions"])?)
        }));
        jobs.push(job("packages", &["setup", "build", PROGRAMS], |output| self.packages(output)));
        for name in end_to_end()? {
            let work = move |output: &Output, name: &str| self.end_to_end(output, name);
            let needs = &["setup", "build", PROGRAMS];
            let mut test = job(&format!("e2e {name}"), needs, move |output| work(output, &name));
            // Those take huge pages where there are any, which DPDK needs.
            test.behind.push(UNIT);
            jobs.push(test);
        }
        let mut hostile =
            job("hostile", &["setup", "build", PROGRAMS], |output| self.hostile(output));
        // It judges how well those fare who are beside an attacked port.
        hostile.alone = true;
        jobs.push(hostile);
        Ok(jobs)
    }

    fn build(&self, output: &Output, counted: bool) -> Result<()> {
        // What an earlier build has left must never be tested in place of what does not build.
        if let Err(error) = fs::remove_file(&self.binary) {
            ensure!(error.kind() == ErrorKind::NotFound, "{}: {error}", self.binary.display());
        }
        // Both programs at once: what takes longest, linking, takes one CPU for each.
        let mut arguments = vec!["build", "--release", "--bin", "ringway"];
        if counted {
            arguments.extend(["--bin", "instructions"]);
        }
        arguments.extend(bench::RELEASED);
        output.run(&mut cargo(&arguments))?;
        ensure!(self.binary.exists(), "the build made no {}", self.binary.display());
        Ok(())
    }

    fn build_tests(&self, output: &Output, attacker: bool) -> Result<()> {
        // Each is set once, by the one job that does so.
        drop(self.programs.set(Program::build_tests(output)?));
        if attacker {
            drop(self.attacker.set(Program::build(output, "ringway-hostile")?));
        }
        Ok(())
    }

    fn programs(&self) -> Result<&[Program]> {
        self.programs.get().map(Vec::as_slice).context("there are no test programs")
    }

    fn unit(&self, output: &Output) -> Result<()> {
        let programs = self.programs()?.iter().filter(|program| !program.is_end_to_end());
        // All of them, so that one run tells all that is wrong.
        let results = programs.map(|program| program.run(output, &[], &self.environment()));
        let mut failed: Vec<String> =
            results.filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
        let examples =
            output.run(&mut cargo(&[&["test", "--quiet", "--doc"], &EVERYTHING[..]].concat()));
        failed.extend(examples.err().map(|error| format!("{error:#}")));
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }

    fn end_to_end(&self, output: &Output, name: &str) -> Result<()> {
        let mut programs = self.programs()?.iter().filter(|program| program.is_end_to_end());
        let program = programs.find(|program| program.name == name);
        let program = program.with_context(|| format!("there is no test program {name}"))?;
        program.run(output, &["--test-threads=1"], &self.environment())
    }

    /// Packages of the program that is tested, installed and tried.
    fn packages(&self, output: &Output) -> Result<()> {
        let tests = self.programs()?.iter().find(|program| program.name == "ringway");
        let tests = tests.context("there are no unit tests of ringway")?;
        let out = tempfile::tempdir()?;
        let mut package = xtask(&["package", "--check", "--program"])?;
        package.arg(&self.binary).arg("--tests").arg(tests.path()).arg("--out").arg(out.path());
        output.run(package.envs(self.environment()))
    }

    fn hostile(&self, output: &Output) -> Result<()> {
        let attacker = self.attacker.get().context("there is no attacker")?;
        attacker.run(output, &["--fast"], &self.environment())
    }

    fn environment(&self) -> [(&'static str, OsString); 2] {
        [(BINARY, self.binary.clone().into()), (SKIPPED, self.skipped().into())]
    }
}

fn job<'a>(
    name: &str,
    after: &[&'static str],
    work: impl FnOnce(&Output) -> Result<()> + Send + 'a,
) -> Job<'a> {
    let (after, behind) = (after.to_vec(), Vec::new());
    Job { name: name.to_owned(), after, behind, alone: false, work: Box::new(work) }
}

/// A command of this program, as a process whose output can be kept apart.
fn xtask(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// The jobs whose names contain one of `parts`, and those that they need; all when there is none.
pub fn select<'a>(mut jobs: Vec<Job<'a>>, parts: &[String]) -> Vec<Job<'a>> {
    if parts.is_empty() {
        return jobs;
    }
    let asked = |name: &str| parts.iter().any(|part| name.contains(part.as_str()));
    let mut wanted: Vec<String> =
        jobs.iter().map(|job| job.name.clone()).filter(|name| asked(name)).collect();
    let mut at = 0;
    while let Some(name) = wanted.get(at) {
        let needed = jobs.iter().find(|job| job.name == *name);
        let needed = needed.map(|job| job.after.clone()).unwrap_or_default();
        for name in needed {
            if !wanted.iter().any(|wanted| wanted == name) {
                wanted.push(name.to_owned());
            }
        }
        at += 1;
    }
    jobs.retain(|job| wanted.contains(&job.name));
    jobs
}

/// The end-to-end test programs: the harness first, since the others stand on it.
fn end_to_end() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/tests"))? {
        let path = entry?.path();
        // Of one file, or of several in a folder.
        let is_file = path.extension().is_some_and(|extension| extension == "rs");
        if is_file || path.join("main.rs").exists() {
            names.push(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    let place = |name: &str| LONGEST.iter().position(|long| *long == name).unwrap_or(LONGEST.len());
    names.sort_by_key(|name| (name != "harness", place(name), name.clone()));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(jobs: &[Job<'_>]) -> Vec<String> {
        jobs.iter().map(|job| job.name.clone()).collect()
    }

    #[test]
    fn every_end_to_end_test_is_a_step_and_the_harness_is_first() {
        let names = end_to_end().unwrap();
        assert_eq!(names.first().map(String::as_str), Some("harness"));
        for name in LONGEST {
            assert!(names.iter().any(|there| there == name), "{name}");
        }
        let files = fs::read_dir(workspace().join("tests/tests")).unwrap();
        assert_eq!(names.len(), files.count());
    }

    #[test]
    fn a_part_of_a_run_has_what_it_needs() {
        let stage = Stage::new().unwrap();
        let part = |quick, no_setup, part: &str| {
            names(&select(stage.plan(quick, no_setup).unwrap(), &[part.to_owned()]))
        };
        assert_eq!(part(false, false, "igb"), ["setup", "build", PROGRAMS, "e2e igb"]);
        assert_eq!(part(false, true, "hostile"), ["build", PROGRAMS, "hostile"]);
        assert_eq!(part(true, false, "fmt"), ["fmt"]);
        assert!(part(true, false, "e2e").is_empty());
        let all = names(&select(stage.plan(false, false).unwrap(), &[]));
        assert!(all.len() > 25 && all.last().map(String::as_str) == Some("hostile"), "{all:?}");
    }
}
