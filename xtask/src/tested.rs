//! How the program is built that the tests run on real peers, and the one that counts instructions.

use std::path::PathBuf;
use std::process::Command;

use e2e::peers::{target_dir, workspace};

use crate::bench;
use crate::test::cargo;

/// What is laid over the profile `dev` for these: the crates that frames pass through are built as those
/// of a release.
const SETTINGS: &str = "xtask/tested.toml";

/// Where the built program is, which must not be where the tests of its crate have theirs.
fn directory() -> PathBuf {
    target_dir().with_file_name("tested")
}

/// The path of a program that [`build`] makes.
pub fn program(name: &str) -> PathBuf {
    directory().join("debug").join(name)
}

/// A command that builds these programs.
///
/// Its crates go to the directory of those of the tests, so that what others have written is there once.
/// So it waits for other builds there, and they for it.
pub fn build(programs: &[&str]) -> Command {
    let mut command = cargo(&["build", "--config", SETTINGS, "--target-dir"]);
    command.arg(directory()).args(bench::RELEASED);
    command.args(programs.iter().flat_map(|name| ["--bin", name]));
    if std::env::var_os("CARGO_BUILD_BUILD_DIR").is_none() {
        let tests = target_dir();
        command.env("CARGO_BUILD_BUILD_DIR", tests.parent().unwrap_or(&workspace()));
    }
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn text(path: &str) -> String {
        fs::read_to_string(workspace().join(path)).unwrap()
    }

    fn keys(table: &toml::Value) -> impl Iterator<Item = &str> {
        table.as_table().unwrap().keys().map(String::as_str)
    }

    #[test]
    fn what_others_have_written_is_compiled_once_for_the_tests_and_the_program_that_they_run() {
        let settings: toml::Table = text(SETTINGS).parse().unwrap();
        let tested = &settings["profile"]["dev"];
        let others = &tested["package"]["*"];
        // What cargo has for a profile `dev` of which nothing is set.
        assert_eq!(others["opt-level"].as_integer(), Some(0));
        assert_eq!(others["debug-assertions"].as_bool(), Some(true));
        let continuous = text(".ci/run");
        for key in keys(tested) {
            let given = match key {
                "codegen-units" => continuous.contains("_DEV_CODEGEN_UNITS:-1}"),
                "debug" => continuous.contains("_DEV_DEBUG:-0}"),
                // That is for the workspace's only.
                "incremental" | "package" => true,
                _ => others.get(key).is_some(),
            };
            assert!(given, "{key}: say what it is for \"*\"");
        }
        // Nothing that others have written needs the two of theirs; with any other, what needs it would
        // have to be compiled once more, too.
        let allowed = ["*", "arrayvec", "siphasher", "ringway"];
        for name in keys(&tested["package"]) {
            let may_differ = allowed.contains(&name) || name.starts_with("ringway-");
            assert!(may_differ, "{name} may not be compiled in two ways");
        }
    }
}
