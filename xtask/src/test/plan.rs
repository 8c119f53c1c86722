use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use e2e::Peer;
use e2e::peers::{SKIPPED, workspace};
use e2e::ringway::BINARY;

use super::programs::{Built, EVERYTHING, Program, cargo, linting, with_lints};
use super::schedule::{IDLE, Job, Output, WAITING, WHOLE};
use crate::tested;

/// The job that builds the test programs.
const PROGRAMS: &str = "test programs";

/// The jobs that build most, one after the other: cargo locks the directory.
const BUILDS: [&str; 2] = [PROGRAMS, "build"];

/// The job that builds the program that attacks others.
const ATTACKER: &str = "attacker";

/// The jobs that run those which need no peer: tests in crates, and tests of crates from outside.
const UNIT: [&str; 2] = ["unit", "integration"];

/// End-to-end tests in the order in which they begin, those that take longest first, so that the last
/// one to end is a short one; all others come behind. Those that wait for timers most of the time
/// ([`IDLE_TESTS`]) are between those that do not, and those that need huge pages, which one test at a
/// time has, are apart.
const FIRST: [&str; 25] = [
    "migration",
    "guests",
    "virtio_pci",
    "rstp",
    "igb",
    "kernel_ports",
    "vdpa_hardware",
    "guards",
    "dpdk",
    "vduse",
    "vlan",
    "snooping",
    "offload",
    "ovs_vswitchd",
    "libvirt",
    "tap",
    "pci",
    "uplink",
    "bond",
    "uml",
    "tunnels",
    "steering",
    "iommu",
    "vdpa_kernel",
    "restart",
];

/// End-to-end tests beside which the CPUs have time for two others.
const IDLE_TESTS: [&str; 7] =
    ["guards", "ovs_vswitchd", "rstp", "snooping", "tap", "tunnels", "uplink"];

/// The seed of property tests, where the environment has none: each run draws the same cases, so that a
/// change is judged by what it does and not by luck. A plain `cargo test` draws new ones.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20261130");

/// What the steps of a run share.
pub struct Stage {
    /// The binary that is tested.
    binary: PathBuf,
    /// The file in which tests are listed that were skipped.
    skipped: tempfile::NamedTempFile,
    tests: OnceLock<Built>,
    attacker: OnceLock<Program>,
}

impl Stage {
    pub fn new() -> Result<Self> {
        Ok(Self {
            binary: tested::program("ringway"),
            skipped: tempfile::NamedTempFile::new()?,
            tests: OnceLock::new(),
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
            job(PROGRAMS, &[], |output| self.build_tests(output)),
            // While others build in the same directory this would wait, so it runs beside tests.
            behind(&[PROGRAMS], job("build", &[], move |output| self.build(output, !quick))),
            job(UNIT[0], &[PROGRAMS], |output| self.unit(output)),
            job(UNIT[1], &[PROGRAMS], |output| self.integration(output)),
            behind(&BUILDS, job("loom", &[], |output| output.run(&mut xtask(&["loom"])?))),
            job("fmt", &[], |output| output.run(&mut cargo(&["fmt", "--all", "--check"]))),
            job("clippy", &[PROGRAMS], |_| self.lints()),
        ];
        // Some of these wait for threads, rings and sockets.
        jobs.iter_mut()
            .filter(|job| UNIT.contains(&&*job.name))
            .for_each(|job| job.share = WAITING);
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
        jobs.push(behind(&BUILDS, job(ATTACKER, &[], |output| self.build_attacker(output))));
        jobs.push(job("instructions", &["setup", "build"], |output| {
            output.run(&mut xtask(&["instructions"])?)
        }));
        jobs.push(job("packages", &["setup", "build", PROGRAMS], |output| self.packages(output)));
        jobs.extend(self.with_peers()?);
        Ok(jobs)
    }

    /// The steps that need peers: those which have the machine to themselves come last, so that none
    /// of the others waits for them.
    fn with_peers(&self) -> Result<Vec<Job<'_>>> {
        let needs = &["setup", "build", PROGRAMS];
        let (mut shared, mut alone) = (Vec::new(), Vec::new());
        for Tests { name, source } in end_to_end()? {
            let share = if IDLE_TESTS.contains(&&*name) { IDLE } else { WAITING };
            let add = |to: &mut Vec<_>, step: String, arguments: &'static [&str]| {
                let name = name.clone();
                let work = move |output: &Output| self.end_to_end(output, &name, arguments);
                let mut test = job(&step, needs, work);
                if takes_huge_pages(&source) {
                    // Those take some where there are any.
                    test.behind.extend(UNIT);
                }
                // It waits for guests, links and counters.
                test.share = share;
                to.push(test);
            };
            match Turn::read(&source) {
                Turn::Shared => add(&mut shared, format!("e2e {name}"), &[]),
                Turn::Alone => add(&mut alone, format!("e2e {name}"), &[]),
                Turn::Both => {
                    add(&mut shared, format!("e2e {name}"), &["--skip", ALONE]);
                    add(&mut alone, format!("e2e {name} alone"), &[ALONE]);
                }
            }
        }
        // It judges how well those fare who are beside an attacked port.
        let needs = ["setup", "build", ATTACKER];
        alone.push(job("hostile", &needs, |output| self.hostile(output)));
        alone.iter_mut().for_each(|job| job.alone = true);
        shared.append(&mut alone);
        Ok(shared)
    }

    fn build(&self, output: &Output, counted: bool) -> Result<()> {
        // What an earlier build has left must never be tested in place of what does not build.
        if let Err(error) = fs::remove_file(&self.binary) {
            ensure!(error.kind() == ErrorKind::NotFound, "{}: {error}", self.binary.display());
        }
        let programs = ["ringway", "instructions"];
        let programs = if counted { &programs[..] } else { &programs[..1] };
        output.run(&mut tested::build(programs))?;
        ensure!(self.binary.exists(), "the build made no {}", self.binary.display());
        Ok(())
    }

    fn build_tests(&self, output: &Output) -> Result<()> {
        // This and the attacker are set once, by the one job that does so.
        drop(self.tests.set(Built::tests(output)?));
        Ok(())
    }

    fn build_attacker(&self, output: &Output) -> Result<()> {
        drop(self.attacker.set(Built::program(output, "ringway-hostile")?));
        Ok(())
    }

    fn tests(&self) -> Result<&Built> {
        self.tests.get().context("there are no test programs")
    }

    fn programs(&self) -> Result<&[Program]> {
        Ok(&self.tests()?.programs)
    }

    /// What clippy has found while the test programs were compiled, whatever the tests find.
    fn lints(&self) -> Result<()> {
        let warnings = self.tests()?.warnings;
        ensure!(warnings == 0, "{warnings} warnings, which are above, at {PROGRAMS:?}");
        Ok(())
    }

    fn unit(&self, output: &Output) -> Result<()> {
        let programs = self.programs()?.iter().filter(|program| !program.is_integration());
        all(programs.map(|program| program.run(output, &[], &self.environment())))
    }

    fn integration(&self, output: &Output) -> Result<()> {
        let programs = self.programs()?.iter();
        let ours = programs.filter(|program| program.is_integration() && !program.is_end_to_end());
        let tests = ours.map(|program| program.run(output, &[], &self.environment()));
        let examples = [&["test", "--quiet", "--doc"], &EVERYTHING[..]].concat();
        all(tests.chain(std::iter::once_with(|| output.run(&mut linting(&examples)))))
    }

    fn end_to_end(&self, output: &Output, name: &str, arguments: &[&str]) -> Result<()> {
        let mut programs = self.programs()?.iter().filter(|program| program.is_end_to_end());
        let program = programs.find(|program| program.name == name);
        let program = program.with_context(|| format!("there is no test program {name}"))?;
        let arguments = [&["--test-threads=1"], arguments].concat();
        program.run(output, &arguments, &self.environment())
    }

    /// Packages of the program that is tested, installed and tried.
    fn packages(&self, output: &Output) -> Result<()> {
        let tests = self.programs()?.iter().find(|program| program.is_of_library("ringway"));
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

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let seed = std::env::var_os(SEED.0).unwrap_or_else(|| SEED.1.into());
        let files = [(BINARY, self.binary.clone().into()), (SKIPPED, self.skipped().into())];
        let ours = files.into_iter().chain([(SEED.0, seed)]);
        // Some have cargo name a program that has been built, which must not build it anew.
        ours.chain(with_lints()).collect()
    }
}

fn job<'a>(
    name: &str,
    after: &[&'static str],
    work: impl FnOnce(&Output) -> Result<()> + Send + 'a,
) -> Job<'a> {
    let (after, behind) = (after.to_vec(), Vec::new());
    let name = name.to_owned();
    Job { name, after, behind, alone: false, share: WHOLE, work: Box::new(work) }
}

/// A job that comes behind others, if they are to be run.
fn behind<'a>(others: &[&'static str], mut job: Job<'a>) -> Job<'a> {
    job.behind.extend(others);
    job
}

/// Whether all went well; all are done, so that one run tells all that is wrong.
fn all(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let failed: Vec<String> =
        results.filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
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

/// What names have of tests that have the machine to themselves, in programs with others.
const ALONE: &str = "alone::";

/// How the tests of a program use the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// All of them beside others.
    Shared,
    /// Each by itself.
    Alone,
    /// Those in a module `alone` by themselves.
    Both,
}

impl Turn {
    /// That of a program with this source.
    fn read(source: &str) -> Self {
        match (source.contains(" require_shared(&"), source.contains(" require(&")) {
            (true, true) => Self::Both,
            (false, true) => Self::Alone,
            (_, false) => Self::Shared,
        }
    }
}

/// Whether the tests with this source need huge pages, of which there are few.
fn takes_huge_pages(source: &str) -> bool {
    let names = Peer::ALL.iter().filter(|peer| peer.takes_huge_pages());
    names.map(|peer| format!("Peer::{peer:?}")).any(|name| {
        source.split(&name).skip(1).any(|rest| !rest.starts_with(char::is_alphanumeric))
    })
}

/// An end-to-end test program.
#[derive(Debug)]
struct Tests {
    name: String,
    /// All that it is built of.
    source: String,
}

/// The end-to-end test programs: the harness first, since the others stand on it. Those that do not
/// need huge pages may begin before.
fn end_to_end() -> Result<Vec<Tests>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/tests"))? {
        let path = entry?.path();
        // Of one file, or of several in a folder.
        let files = match path.join("main.rs").exists() {
            true => fs::read_dir(&path)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?,
            false => vec![path.clone()],
        };
        if files.iter().all(|file| file.extension().is_some_and(|extension| extension == "rs")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let source = files.into_iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
            tests.push(Tests { name, source });
        }
    }
    let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    tests.sort_by_key(|Tests { name, .. }| (name != "harness", place(name), name.clone()));
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(jobs: &[Job<'_>]) -> Vec<String> {
        jobs.iter().map(|job| job.name.clone()).collect()
    }

    #[test]
    fn every_end_to_end_test_is_a_step_and_the_harness_is_first() {
        let tests = end_to_end().unwrap();
        assert_eq!(tests.first().map(|tests| tests.name.as_str()), Some("harness"));
        for name in FIRST.into_iter().chain(IDLE_TESTS) {
            assert!(tests.iter().any(|tests| tests.name == name), "{name}");
        }
        let files = fs::read_dir(workspace().join("tests/tests")).unwrap();
        assert_eq!(tests.len(), files.count());
    }

    #[test]
    fn tests_that_have_the_machine_to_themselves_are_in_a_module_of_their_own() {
        assert_eq!(Turn::read("let x = require_shared(&[]);"), Turn::Shared);
        assert_eq!(Turn::read("let x = require(&[]);"), Turn::Alone);
        for Tests { name, source } in end_to_end().unwrap() {
            let (shared, alone) = source.split_once("\nmod alone {\n").unwrap_or((&source, ""));
            if Turn::read(&source) == Turn::Both {
                assert!(!shared.contains(" require(&"), "{name}: not in a module `alone`");
                assert!(!alone.contains(" require_shared(&"), "{name}: in the module `alone`");
            } else {
                assert!(alone.is_empty(), "{name}: a module `alone` without others");
            }
        }
    }

    #[test]
    fn who_needs_huge_pages_is_read_from_the_source() {
        assert!(takes_huge_pages("require_shared(&[Peer::Ovs, Peer::Netns])"));
        assert!(takes_huge_pages("require(&[Peer::Guest, Peer::Dpdk])"));
        assert!(!takes_huge_pages("require_shared(&[Peer::OvsDatabase, Peer::Testpmd])"));
        let stage = Stage::new().unwrap();
        let jobs = stage.plan(false, false).unwrap();
        let behind = |name: &str| jobs.iter().find(|job| job.name == name).unwrap().behind.clone();
        assert_eq!(behind("e2e dpdk"), UNIT);
        assert!(behind("e2e tap").is_empty());
    }

    #[test]
    fn property_tests_draw_the_same_cases_in_each_run() {
        let environment = Stage::new().unwrap().environment();
        let seed = environment.iter().find(|(name, _)| *name == SEED.0).map(|(_, seed)| seed);
        let asked = std::env::var_os(SEED.0);
        assert_eq!(seed, Some(&asked.unwrap_or_else(|| SEED.1.into())));
        assert!(SEED.1.parse::<u64>().is_ok(), "as proptest reads it");
    }

    #[test]
    fn a_part_of_a_run_has_what_it_needs() {
        let stage = Stage::new().unwrap();
        let part = |quick, no_setup, part: &str| {
            names(&select(stage.plan(quick, no_setup).unwrap(), &[part.to_owned()]))
        };
        assert_eq!(part(false, false, "igb"), ["setup", PROGRAMS, "build", "e2e igb"]);
        assert_eq!(part(false, true, "hostile"), ["build", ATTACKER, "hostile"]);
        assert_eq!(part(false, true, "instructions"), ["build", "instructions"]);
        assert_eq!(part(true, false, "fmt"), ["fmt"]);
        assert!(part(true, false, "e2e").is_empty());
        let all = names(&select(stage.plan(false, false).unwrap(), &[]));
        assert!(all.len() > 25 && all.last().map(String::as_str) == Some("hostile"), "{all:?}");
        let restart = [PROGRAMS, "build", "e2e restart", "e2e restart alone"];
        assert_eq!(part(false, true, "restart"), restart);
    }
}
