use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::peers::workspace;
use e2e::process::run as output_of;

/// What is in the image beside the program and its libraries, whom the folder of sockets belongs to,
/// and who runs what.
const REST: &str = "/etc/group
/etc/passwd
/etc/ringway/ringway.toml
/usr/share/doc/ringway/THIRD-PARTY
999:755 /run/ringway-switch
ringway [/usr/bin/ringway]
";

/// Builds the image of `deb` as the recipe says, and runs the program in it.
///
/// # Errors
/// When it does not build or run, or has more in it than it should.
pub fn check(deb: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let recipe = workspace().join("packaging/Containerfile");
    let mut command = Command::new("sh");
    command.args(["-euc", include_str!("image.sh"), "image.sh"]);
    let text = output_of(command.arg(recipe).arg(deb).arg(work.path()))?;
    let lines: Vec<&str> = text.splitn(3, '\n').collect();
    let [program, configuration, rest] = lines[..] else { anyhow::bail!("{text}") };
    let begin = concat!("ringway ", env!("CARGO_PKG_VERSION"), " (");
    ensure!(program.starts_with(begin), "the program in the image is another one: {program}");
    ensure!(configuration.starts_with("the configuration is good"), "{configuration}");
    ensure!(rest.trim_end() == REST.trim_end(), "not what should be in the image:\n{rest}");
    Ok(())
}
