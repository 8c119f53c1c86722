//! Open vSwitch's own test-suite, run against `ringway ovs-vswitchd` by the name `ovs-vswitchd`.
//!
//! It comes with Debian's package `openvswitch-source`, ready to run; nothing of it is compiled. Its
//! tests use Debian's `ovsdb-server`, `ovs-vsctl` and so on. Beside the suite of units there is that of
//! the userspace data path on interfaces, in namespaces. Which of them pass is kept in
//! `tests/ovs-suite`, by file and name: ours in `passes.txt`, those of Debian's own Open vSwitch on
//! the same kind of machine in `debian.txt`, and why others are not among ours in `left-out.txt`.
//! A test that does not run `ovs-vswitchd` says nothing of ours, and is not counted.

/// The lists that are kept.
mod lists;
/// What the suite prints.
mod output;
/// Where it runs.
mod workplace;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use clap::Args;
use e2e::peers::{Peer, are_there};

use self::lists::{List, Reasons};
use self::output::{Test, Verdict};
use self::workplace::{Verdicts, Workplace};

/// The file whose tests are counted though most of them do not run the daemon: the database and the
/// command that people have, side by side.
const WHOLE: &str = "ovs-vsctl.at";

/// How `cargo xtask ovs-suite` is run.
#[derive(Debug, Args)]
pub struct Options {
    /// Run the tests of this file, as in bridge.at; may be repeated [default: those that are kept as
    /// passes]
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Run the tests whose name contains this; may be repeated
    #[arg(long, value_name = "WORD")]
    keyword: Vec<String>,
    /// Run all tests that run ovs-vswitchd
    #[arg(long, conflicts_with_all = ["file", "keyword"])]
    all: bool,
    /// Run them against Debian's own ovs-vswitchd
    #[arg(long)]
    debian: bool,
    /// Keep what passes and what does not of the tests that were run
    #[arg(long)]
    update: bool,
    /// Print the tests instead of running them
    #[arg(long)]
    list: bool,
}

impl Options {
    fn selects(&self, test: &Test, passes: &List) -> bool {
        if !test.runs_daemon && test.file != WHOLE {
            return false;
        }
        if self.all || (self.debian && self.file.is_empty() && self.keyword.is_empty()) {
            return true;
        }
        let of_file = self.file.contains(&test.file);
        let of_word = self.keyword.iter().any(|word| test.name.contains(word.as_str()));
        match (self.file.is_empty(), self.keyword.is_empty()) {
            (true, true) => passes.has(test),
            (false, true) => of_file,
            (true, false) => of_word,
            (false, false) => of_file && of_word,
        }
    }
}

/// Runs the tests that are selected and prints a table by file; gives whether none that passed before
/// fails now.
pub fn run(options: &Options) -> Result<bool> {
    if !are_there(&[Peer::OvsSuite, Peer::Netns]) {
        return Ok(true);
    }
    let place = Workplace::make(options.debian)?;
    let list = if options.debian { List::debian() } else { List::ours() };
    let mut passes = list?;
    let tests = place.tests()?;
    let tests: Vec<Test> =
        tests.into_iter().filter(|test| options.selects(test, &passes)).collect();
    ensure!(!tests.is_empty(), "there is no such test");
    if options.list {
        for Test { number, file, name, .. } in &tests {
            println!("{number:>4} {file}: {name}");
        }
        return Ok(true);
    }
    let verdicts = place.run(&tests)?;
    report(&tests, &verdicts, &Reasons::load()?);
    let lost: Vec<&Test> = tests
        .iter()
        .filter(|test| passes.has(test) && verdicts.get(&test.key()) != Some(&Verdict::Passed))
        .collect();
    if options.update {
        passes.update(&tests, |test| verdicts.get(&test.key()) == Some(&Verdict::Passed));
        passes.save()?;
        return Ok(true);
    }
    for test in &lost {
        let Test { number, file, name, .. } = test;
        println!("lost: {number} {file}: {name}; see {}", place.log_of(test).display());
    }
    Ok(lost.is_empty())
}

/// Prints what has come of the tests, file by file, and why those that do not pass do not.
fn report(tests: &[Test], verdicts: &Verdicts, reasons: &Reasons) {
    println!("\n{:<24} {:>6} {:>7} {:>7} {:>8}", "file", "tried", "passed", "failed", "skipped");
    let files: BTreeSet<&str> = tests.iter().map(|test| test.file.as_str()).collect();
    let line = |name: &str, of: &dyn Fn(&Test) -> bool| {
        let count = |verdict: Option<Verdict>| {
            let of_verdict = |test: &&Test| match verdict {
                Some(verdict) => verdicts.get(&test.key()) == Some(&verdict),
                None => true,
            };
            tests.iter().filter(|test| of(test)).filter(of_verdict).count()
        };
        let all = [None, Some(Verdict::Passed), Some(Verdict::Failed), Some(Verdict::Skipped)];
        let [tried, passed, failed, skipped] = all.map(count);
        println!("{name:<24} {tried:>6} {passed:>7} {failed:>7} {skipped:>8}");
    };
    for file in files {
        line(file, &|test| test.file == file);
    }
    line("all", &|_| true);
    for test in tests.iter().filter(|test| verdicts.get(&test.key()) != Some(&Verdict::Passed)) {
        let Test { number, file, name, .. } = test;
        let why = reasons.of(test).unwrap_or("no reason is known");
        println!("not passed: {number} {file}: {name}: {why}");
    }
}
