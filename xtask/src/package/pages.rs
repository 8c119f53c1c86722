use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The test of `ringway` that writes pages, and the variable that tells it where.
const TEST: &str = "pages::every_command_has_a_page_and_completions";
const VARIABLE: &str = "RINGWAY_PAGES";

/// Writes man pages and completions into `folder`. The program that is shipped carries no code for
/// that: its unit tests (`tests`, which are built if they are not given) do it, which have the same
/// command line.
pub fn write(tests: Option<&Path>, folder: &Path) -> Result<PathBuf> {
    let mut command = match tests {
        Some(program) => std::process::Command::new(program),
        None => crate::test::cargo(&["test", "--quiet", "-p", "ringway", "--lib", "--"]),
    };
    command.args(["--exact", TEST]).env(VARIABLE, folder);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "no man pages: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        folder.join("man/ringway.1").exists(),
        "the test {TEST} has written no man page: {text}"
    );
    Ok(folder.to_owned())
}
