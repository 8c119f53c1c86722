//! Tests that documents name must exist: what is promised is shown by them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use e2e::peers::workspace;

/// What there is to be named.
#[derive(Default)]
struct Sources {
    /// Paths without their ends, as in `drivers/src/igb/model`.
    paths: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Sources {
    fn find() -> Self {
        let mut sources = Self::default();
        for folder in ["crates", "tests", "hostile", "fuzz", "xtask"] {
            sources.add(&workspace().join(folder));
        }
        sources
    }

    fn add(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.paths.insert(path.display().to_string());
                self.add(&path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                self.add_file(&path);
            }
        }
    }

    fn add_file(&mut self, path: &PathBuf) {
        let text = fs::read_to_string(path).unwrap();
        let name = |line: &str| {
            let rest = line.trim_start().strip_prefix("fn ")?;
            Some(rest.split(['(', '<']).next()?.to_owned())
        };
        self.functions.extend(text.lines().filter_map(name));
        self.paths.insert(path.with_extension("").display().to_string());
    }

    /// Whether there is a function, a file or a folder of this name, or, as in `eal::sandbox`, a
    /// module of a crate or driver.
    fn has(&self, name: &str) -> bool {
        let name = name.trim_end_matches('/').trim_end_matches(".rs");
        let ends = |end: String| self.paths.iter().any(|path| path.ends_with(&end));
        match name.split_once("::") {
            Some((owner, module)) => {
                let module = module.replace("::", "/");
                [format!("/{owner}/src/{module}"), format!("/{owner}/{module}")]
                    .into_iter()
                    .any(ends)
            }
            None => self.functions.contains(name) || ends(format!("/{name}")),
        }
    }
}

fn document(name: &str) -> String {
    fs::read_to_string(workspace().join("docs").join(name)).unwrap()
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn tests_of_the_protocol_exist() {
    let (text, sources) = (document("vhost-user.md"), Sources::find());
    // Options have a sign of equality, messages and features no small letters.
    let named = quoted(&text).filter(|word| word.contains('_') && !word.contains('='));
    let named = named.filter(|word| word.chars().all(|c| !c.is_uppercase()));
    let mut count = 0;
    for name in named {
        assert!(sources.functions.contains(name), "there is no test {name}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

/// Functions of ours, and words of names of tests in Open vSwitch's suite that pass.
#[test]
fn tests_of_openflow_exist() {
    let (text, sources) = (document("openflow.md"), Sources::find());
    let passes = fs::read_to_string(workspace().join("tests/ovs-suite/passes.txt")).unwrap();
    let (_, section) = text.split_once("\n| Message | Versions | Tests |\n").unwrap();
    let rows = section.lines().take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let Some(tests) = row.split('|').nth(3) else { continue };
        for name in quoted(tests) {
            let known = sources.functions.contains(name) || passes.contains(name);
            assert!(known, "there is no test {name}, which a row of openflow.md names: {row}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn what_tests_the_promises_of_security_exists() {
    let (text, sources) = (document("security.md"), Sources::find());
    let (_, section) = text.split_once("\n## How that is kept, and tested\n").unwrap();
    let table = section.lines().filter(|line| line.starts_with("| ")).take_while(|line| {
        // The next table is that of bounds.
        !line.starts_with("| What")
    });
    let mut count = 0;
    for row in table {
        let Some(tests) = row.split('|').nth(3) else { continue };
        for name in quoted(tests) {
            let known = match name.split_once(' ') {
                Some(("cargo", rest)) => is_command(rest),
                // The program itself, whose commands have tests of their own.
                Some(("ringway", _)) => true,
                _ => sources.has(name),
            };
            assert!(known, "there is no {name}, which the row of security.md names: {row}");
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}

/// Whether `rest` follows `cargo` as a command: `test`, or one of ours.
fn is_command(rest: &str) -> bool {
    let command = crate::Arguments::command();
    let ours = |name: &str| command.get_subcommands().any(|command| command.get_name() == name);
    rest == "test" || rest.strip_prefix("xtask ").is_some_and(ours)
}

#[test]
fn what_does_not_exist_is_missed() {
    let sources = Sources::find();
    for name in ["eal::sandbox", "igb::model", "rust_vmm", "ringway/tests/sandbox.rs", "memory/"] {
        assert!(sources.has(name), "{name}");
    }
    for name in ["eal::sandpit", "vhost::model", "no_such_test", "ringway/tests/box.rs", "x/"] {
        assert!(!sources.has(name), "{name}");
    }
    assert!(is_command("xtask loom") && !is_command("xtask lom"));
}
