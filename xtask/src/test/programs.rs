use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::peers::workspace;
use serde_json::Value;

use super::schedule::Output;

/// What is built for tests: of all packages at once, so that what they have in common is built
/// once. The features of one package alone would have cargo build it anew.
pub const EVERYTHING: [&str; 3] = ["--workspace", "--features", "ringway-e2e/peers"];

/// A command of cargo in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(arguments);
    command
}

/// What has cargo use the compiler with clippy's lints: what it compiles need not be checked once more
/// by itself. What they find is a warning at most, so that the tests can be run and tell more.
pub fn with_lints() -> [(&'static str, OsString); 2] {
    let compiler = workspace().join("xtask/lint-rustc");
    [("RUSTC_WORKSPACE_WRAPPER", compiler.into()), ("CLIPPY_ARGS", "--cap-lints=warn".into())]
}

/// A command of cargo in the workspace for what is built for tests: whoever would have it built
/// without lints would have all packages of the workspace compiled anew.
pub fn linting(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command.envs(with_lints());
    command
}

/// What cargo has built for tests.
#[derive(Debug)]
pub struct Built {
    pub programs: Vec<Program>,
    /// How often the compiler or clippy has warned.
    pub warnings: usize,
}

impl Built {
    /// Builds all test programs, and all other targets, so that every line is seen to.
    ///
    /// # Errors
    /// When one does not build.
    pub fn tests(output: &Output) -> Result<Self> {
        let built = Self::new(output, &["test", "--no-run", "--all-targets"], true)?;
        ensure!(!built.programs.is_empty(), "cargo has built no test program");
        Ok(built)
    }

    /// Builds a program that is no test, as tests are built.
    ///
    /// # Errors
    /// When it does not build.
    pub fn program(output: &Output, name: &str) -> Result<Program> {
        let built = Self::new(output, &["build", "--bin", name], false)?;
        let mut programs = built.programs.into_iter();
        programs.find(|program| program.name == name).with_context(|| format!("no {name}"))
    }

    fn new(output: &Output, what: &[&str], tests: bool) -> Result<Self> {
        let arguments = [what, &EVERYTHING[..], &["--message-format=json"]].concat();
        let (text, result) = output.read(&mut linting(&arguments))?;
        let messages: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // A library and its unit tests are warned of in the same words.
        let said: BTreeSet<&str> = messages.iter().filter_map(rendered).collect();
        for text in &said {
            output.write(text)?;
        }
        result?;
        let warnings = said.len();
        let programs = messages.iter().filter_map(|message| Program::read(message, tests));
        Ok(Self { programs: programs.collect(), warnings })
    }
}

/// What the compiler says in a message of cargo, if that is what the message is about. What it has
/// said of what is not compiled again is among the messages, too.
fn rendered(message: &Value) -> Option<&str> {
    let compiler = message["reason"] == "compiler-message";
    let level = message["message"]["level"].as_str()?;
    (compiler && matches!(level, "warning" | "error"))
        .then(|| message["message"]["rendered"].as_str())
        .flatten()
}

/// A program that cargo has built.
#[derive(Debug)]
pub struct Program {
    /// The name of its target: a package, or a file in its `tests`.
    pub name: String,
    /// The directory of its package.
    dir: PathBuf,
    path: PathBuf,
    /// What its target is, in cargo's word: `lib`, `bin`, `test`.
    kind: String,
}

impl Program {
    /// What a message of cargo says of a program, if it is about one.
    fn read(message: &Value, is_test: bool) -> Option<Self> {
        let (target, manifest) = (&message["target"], message["manifest_path"].as_str()?);
        (message["profile"]["test"] == is_test).then_some(Self {
            name: target["name"].as_str()?.to_owned(),
            dir: Path::new(manifest).parent()?.to_owned(),
            path: message["executable"].as_str()?.into(),
            kind: target["kind"].as_array()?.first()?.as_str()?.to_owned(),
        })
    }

    /// Whether it is a test of a crate from outside.
    pub fn is_integration(&self) -> bool {
        self.kind == "test"
    }

    /// Whether it has the unit tests of library `name`, and not those of a program of that name.
    pub fn is_of_library(&self, name: &str) -> bool {
        self.kind == "lib" && self.name == name
    }

    /// Whether it is one of the tests on real peers.
    pub fn is_end_to_end(&self) -> bool {
        self.is_integration() && self.dir == workspace().join("tests")
    }

    /// Where cargo has put it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it as cargo does, in the directory of its package.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(
        &self,
        output: &Output,
        arguments: &[&str],
        environment: &[(&str, OsString)],
    ) -> Result<()> {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.dir)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("CARGO_MANIFEST_DIR", &self.dir)
            // The errors of the harness say what happened; their call stacks are noise.
            .env("RUST_LIB_BACKTRACE", "0");
        output.run(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_what_cargo_says() {
        let message = |kind: &str, test: bool, executable: &str| {
            let message = format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{}/tests/Cargo.toml",
                "target":{{"name":"guests","kind":["{kind}"]}},"profile":{{"test":{test}}},
                "executable":{executable}}}"#,
                workspace().display()
            );
            serde_json::from_str(&message).unwrap()
        };
        let program = Program::read(&message("test", true, r#""/t/guests-0123""#), true).unwrap();
        assert_eq!(
            (program.name.as_str(), program.path.to_str()),
            ("guests", Some("/t/guests-0123"))
        );
        assert!(program.is_end_to_end());
        let unit = Program::read(&message("bin", true, r#""/t/guests-4567""#), true).unwrap();
        assert!(!unit.is_end_to_end() && !unit.is_of_library("guests"));
        let unit = Program::read(&message("lib", true, r#""/t/guests-0123""#), true).unwrap();
        assert!(unit.is_of_library("guests") && !unit.is_of_library("guest"));
        assert!(Program::read(&message("lib", true, "null"), true).is_none());
        assert!(Program::read(&message("bin", false, r#""/t/x""#), true).is_none());
        let end = serde_json::json!({"reason": "build-finished", "success": true});
        assert!(Program::read(&end, true).is_none() && rendered(&end).is_none());
    }

    /// Panics if a library in `folder` has what its unit tests lack, which nobody would lint; gives how
    /// many files it has looked at.
    fn look_for_untested_lines(folder: &Path) -> usize {
        let is_left_out = |line: &str| {
            let line = line.trim_start();
            let conditional = line.starts_with('#') || line.contains("cfg!(");
            conditional
                && ["not(test", "not(any(test", "not(all(test"].iter().any(|not| line.contains(not))
        };
        let look = |path: PathBuf| {
            if path.is_dir() {
                return look_for_untested_lines(&path);
            }
            if path.ends_with("Cargo.toml") {
                let manifest: toml::Table =
                    std::fs::read_to_string(&path).unwrap().parse().unwrap();
                let tests = manifest.get("lib").and_then(|library| library.get("test"));
                assert_eq!(tests, None, "{}", path.display());
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(text.lines().find(|line| is_left_out(line)), None, "{}", path.display());
            }
            1
        };
        std::fs::read_dir(folder).unwrap().map(|entry| look(entry.unwrap().path())).sum()
    }

    #[test]
    fn unit_tests_have_all_lines_of_their_library() {
        let folders = ["crates", "benches", "fuzz", "hostile", "tests", "xtask"];
        let files = folders.map(|folder| look_for_untested_lines(&workspace().join(folder)));
        assert!(files.iter().sum::<usize>() > 1000, "{files:?}");
    }

    #[test]
    fn what_the_compiler_says_is_read_but_for_its_notes() {
        let message = |reason: &str, level: &str| {
            let message = serde_json::json!({"level": level, "rendered": "unused: x"});
            serde_json::json!({"reason": reason, "message": message})
        };
        for (reason, level, expected) in [
            ("compiler-message", "warning", Some("unused: x")),
            ("compiler-message", "error", Some("unused: x")),
            ("compiler-message", "note", None),
            ("build-script-executed", "warning", None),
        ] {
            assert_eq!(rendered(&message(reason, level)), expected, "{reason} {level}");
        }
    }
}
