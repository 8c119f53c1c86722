use std::collections::{BTreeMap, BTreeSet};

/// A program of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// On ports without a device, by a clock that tests move.
    Units,
    /// On interfaces of the system, in namespaces of their own.
    System,
}

impl Suite {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Units, Self::System];

    /// The name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Units => "testsuite",
            Self::System => "system-userspace-testsuite",
        }
    }
}

/// A test of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The program that it is in.
    pub suite: Suite,
    /// Its number, which another version of the suite may give to another test.
    pub number: u32,
    /// The file that it is in.
    pub file: String,
    /// Its name, which some have in common with another one.
    pub name: String,
    /// Whether it starts `ovs-vswitchd`; others are about tools and libraries.
    pub runs_daemon: bool,
}

impl Test {
    /// By what its verdict is known.
    pub const fn key(&self) -> (Suite, u32) {
        (self.suite, self.number)
    }
}

/// What has come of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// The tests in what `testsuite --list` prints: `  49: lacp.at:13         lacp - config`. `script` is
/// the test-suite itself, which says what they start.
pub fn tests(suite: Suite, text: &str, script: &str) -> Vec<Test> {
    let starting = starting(script);
    let mut tests: Vec<Test> = text.lines().filter_map(|line| test(suite, line)).collect();
    tests.iter_mut().for_each(|test| test.runs_daemon = starting.contains(&test.number));
    tests
}

/// The numbers of the tests that start `ovs-vswitchd`: each is between `#AT_START_49` and `#AT_STOP_49`.
fn starting(script: &str) -> BTreeSet<u32> {
    let parts = script.split("\n#AT_START_").skip(1);
    let numbers = parts.filter_map(|part| {
        let (number, rest) = part.split_once('\n')?;
        let (body, _) = rest.split_once("\n#AT_STOP_")?;
        body.contains("ovs-vswitchd -").then(|| number.parse().ok())?
    });
    numbers.collect()
}

fn test(suite: Suite, line: &str) -> Option<Test> {
    let (number, rest) = line.trim_start().split_once(": ")?;
    let (place, name) = rest.trim_start().split_once(' ')?;
    let (file, _) = place.rsplit_once(':')?;
    let name = name.trim().to_owned();
    let number = number.parse().ok()?;
    Some(Test { suite, number, file: file.to_owned(), name, runs_daemon: false })
}

/// The verdicts in what a run prints, by number: ` 49: lacp - config     FAILED (lacp.at:22)`. A test
/// that was cut off has none.
pub fn verdicts(text: &str) -> BTreeMap<u32, Verdict> {
    text.lines().filter_map(verdict).collect()
}

fn verdict(line: &str) -> Option<(u32, Verdict)> {
    let (number, rest) = line.trim_start().split_once(": ")?;
    let number = number.parse().ok()?;
    let rest = rest.trim_end();
    // The place of a failure is in brackets behind it.
    let words = match rest.rsplit_once(" (") {
        Some((words, place)) if place.ends_with(')') => words,
        _ => rest,
    };
    let verdict = match words.rsplit(' ').next()? {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed,
        "skipped" => Verdict::Skipped,
        // One that is known to fail, and does: nothing is shown by that.
        "failure" => Verdict::Skipped,
        _ => return None,
    };
    Some((number, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_verdicts_are_read_from_what_is_printed() {
        let list = "openvswitch 3.1.0 test suite test groups:\n\n NUM: FILE-NAME:LINE     TEST-GROUP-NAME\n\
                    \x20     KEYWORDS\n\n  49: lacp.at:13         lacp - config\n\
                    2434: stp.at:3           STP example: a (b)\n      stp long\n";
        let script = "x\n#AT_START_49\n ovs-vswitchd --detach\n#AT_STOP_49\n#AT_START_2434\novs-ofctl -V\n\
                      #AT_STOP_2434\novs-vswitchd -V\n";
        let known = tests(Suite::Units, list, script);
        assert!(known[0].runs_daemon && !known[1].runs_daemon);
        let names: Vec<_> = known.iter().map(|test| (test.number, test.file.as_str())).collect();
        assert_eq!(names, [(49, "lacp.at"), (2434, "stp.at")]);
        assert_eq!(known[1].name, "STP example: a (b)");
        let run = "lacp\n\n 49: lacp - config        ok\n 50: a (b)   FAILED (lacp.at:54)\n\
                   51: c     skipped (lacp.at:3)\n 52: d   expected failure (lacp.at:9)\n 53: e - ok (f)";
        let verdicts: Vec<_> = verdicts(run).into_iter().collect();
        let expected = [Verdict::Passed, Verdict::Failed, Verdict::Skipped, Verdict::Skipped];
        let expected: Vec<_> = (49..).zip(expected).collect();
        assert_eq!(verdicts[..4], expected);
    }
}
