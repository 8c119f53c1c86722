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
    /// Builds all test programs.
    ///
    /// # Errors
    /// When one does not build.
    pub fn build_tests(output: &Output) -> Result<Vec<Self>> {
        let build = [&["test", "--no-run"], &EVERYTHING[..], &[FORMAT]].concat();
        let messages = output.read(&mut cargo(&build))?;
        let programs: Vec<_> = messages.lines().filter_map(|line| Self::read(line, true)).collect();
        ensure!(!programs.is_empty(), "cargo has built no test program");
        Ok(programs)
    }

    /// Builds a program that is no test, as tests are built.
    ///
    /// # Errors
    /// When it does not build.
    pub fn build(output: &Output, name: &str) -> Result<Self> {
        let build = [&["build"], &EVERYTHING[..], &["--bin", name, FORMAT]].concat();
        let messages = output.read(&mut cargo(&build))?;
        let mut programs = messages.lines().filter_map(|line| Self::read(line, false));
        programs.find(|program| program.name == name).with_context(|| format!("no {name}"))
    }

    /// What a message of cargo says of a program, if it is about one.
    fn read(message: &str, is_test: bool) -> Option<Self> {
        let message: Value = serde_json::from_str(message).ok()?;
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

    /// Whether it has the unit tests of program `name`, and not those of a library of that name.
    pub fn is_of_program(&self, name: &str) -> bool {
        self.kind == "bin" && self.name == name
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

/// Has cargo tell what it builds, and print what the compiler says.
const FORMAT: &str = "--message-format=json-render-diagnostics";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_what_cargo_says() {
        let message = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"{}/tests/Cargo.toml",
                "target":{{"name":"guests","kind":["{kind}"]}},"profile":{{"test":{test}}},
                "executable":{executable}}}"#,
                workspace().display()
            )
        };
        let program = Program::read(&message("test", true, r#""/t/guests-0123""#), true).unwrap();
        assert_eq!(
            (program.name.as_str(), program.path.to_str()),
            ("guests", Some("/t/guests-0123"))
        );
        assert!(program.is_end_to_end());
        let unit = Program::read(&message("lib", true, r#""/t/e2e-0123""#), true).unwrap();
        assert!(!unit.is_end_to_end() && !unit.is_of_program("guests"));
        let unit = Program::read(&message("bin", true, r#""/t/guests-4567""#), true).unwrap();
        assert!(unit.is_of_program("guests") && !unit.is_of_program("guest"));
        assert!(Program::read(&message("lib", true, "null"), true).is_none());
        assert!(Program::read(&message("bin", false, r#""/t/x""#), true).is_none());
        assert!(Program::read(r#"{"reason":"build-finished","success":true}"#, true).is_none());
    }
}
