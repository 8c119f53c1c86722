use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use e2e::peers::workspace;

use super::output::Test;

fn folder() -> PathBuf {
    workspace().join("tests/ovs-suite")
}

/// A test in a list: by its file and name, since numbers change with the suite.
fn key(test: &Test) -> String {
    format!("{}: {}", test.file, test.name)
}

/// Tests that pass, a line for each. Those that have a name in common pass together.
#[derive(Debug)]
pub struct List {
    path: PathBuf,
    head: &'static str,
    tests: BTreeSet<String>,
}

impl List {
    /// Those that pass with `ringway ovs-vswitchd`.
    pub fn ours() -> Result<Self> {
        let head = "# Tests of Open vSwitch 3.1's own suite that pass with `ringway ovs-vswitchd`, as\n\
                    # `cargo xtask ovs-suite --all --update` finds them. None may be lost. Counted are tests\n\
                    # that start ovs-vswitchd, as the text of the test-suite says, and all of ovs-vsctl.at.\n";
        Self::load("passes.txt", head)
    }

    /// Those that pass with Debian's own.
    pub fn debian() -> Result<Self> {
        let head = "# Tests of Open vSwitch 3.1's own suite that pass with Debian's ovs-vswitchd, as\n\
                    # `cargo xtask ovs-suite --debian --update` finds them. Counted are tests that start\n\
                    # ovs-vswitchd, as the text of the test-suite says, and all of ovs-vsctl.at.\n";
        Self::load("debian.txt", head)
    }

    fn load(file: &str, head: &'static str) -> Result<Self> {
        let path = folder().join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let tests = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Ok(Self { path, head, tests: tests.map(str::to_owned).collect() })
    }

    /// Whether a test is in it.
    pub fn has(&self, test: &Test) -> bool {
        self.tests.contains(&key(test))
    }

    /// Puts those of some tests in that pass, and takes others out. One that has its name in common with another passes
    /// if that does, too.
    pub fn update(&mut self, tests: &[Test], passes: impl Fn(&Test) -> bool) {
        self.tests.extend(tests.iter().map(key));
        for test in tests.iter().filter(|test| !passes(test)) {
            self.tests.remove(&key(test));
        }
    }

    /// Writes it.
    pub fn save(&self) -> Result<()> {
        let lines = self.tests.iter().map(|test| format!("{test}\n"));
        let text: String = std::iter::once(self.head.to_owned()).chain(lines).collect();
        fs::write(&self.path, text).with_context(|| self.path.display().to_string())
    }
}

/// Why tests do not pass here: lines `FILE: WORDS | REASON`, of which the first one counts whose words
/// are in a test's name.
#[derive(Debug, Default)]
pub struct Reasons(Vec<(String, String, String)>);

impl Reasons {
    /// Reads them.
    pub fn load() -> Result<Self> {
        let path = folder().join("left-out.txt");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (test, reason) = line.split_once(" | ")?;
            let (file, words) = test.split_once(':')?;
            Some((file.to_owned(), words.trim().to_owned(), reason.trim().to_owned()))
        };
        Self(lines.filter_map(read).collect())
    }

    /// Why this one does not.
    pub fn of(&self, test: &Test) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(file, words, _)| *file == test.file && test.name.contains(words.as_str()));
        found.map(|(.., reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Suite;
    use super::*;

    fn test(file: &str, name: &str) -> Test {
        Test {
            suite: Suite::Units,
            number: 1,
            file: file.to_owned(),
            name: name.to_owned(),
            runs_daemon: true,
        }
    }

    #[test]
    fn a_name_is_kept_if_all_of_that_name_pass() {
        let numbered = |number, name| Test { number, ..test("a.at", name) };
        let tests = [numbered(1, "twins"), numbered(2, "twins"), numbered(3, "alone")];
        let mut list = List { path: PathBuf::new(), head: "", tests: BTreeSet::new() };
        for failing in [1, 2] {
            list.update(&tests, |test| test.number != failing);
            assert_eq!(list.tests, BTreeSet::from(["a.at: alone".to_owned()]));
        }
        list.update(&tests, |test| test.number != 3);
        assert_eq!(list.tests, BTreeSet::from(["a.at: twins".to_owned()]));
    }

    #[test]
    fn the_first_reason_that_fits_counts() {
        let text = "# FILE: WORDS | REASON\na.at: b c | of one\na.at: | of all\n";
        let reasons = Reasons::parse(text);
        assert_eq!(reasons.of(&test("a.at", "a b c")), Some("of one"));
        assert_eq!(reasons.of(&test("a.at", "d")), Some("of all"));
        assert_eq!(reasons.of(&test("b.at", "b c")), None);
    }

    /// What passes with Debian's and not with ours has a reason, and what is ours is Debian's, too.
    #[test]
    fn whatever_is_left_out_has_a_reason() {
        let (ours, debian) = (List::ours().unwrap(), List::debian().unwrap());
        let reasons = Reasons::load().unwrap();
        assert!(!ours.tests.is_empty() && !debian.tests.is_empty());
        for line in debian.tests.difference(&ours.tests) {
            let (file, name) = line.split_once(": ").unwrap();
            assert!(reasons.of(&test(file, name)).is_some(), "{line}: say why in left-out.txt");
        }
        let more: Vec<&String> = ours.tests.difference(&debian.tests).collect();
        assert!(more.is_empty(), "Debian's fails these: {more:?}");
    }
}
