//! Running in the background: the process that was called starts another one like itself, waits
//! until that says that it is ready, and ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::exit::Failure;

/// The variable by which a process knows that it is the one in the background.
const VARIABLE: &str = "RINGWAY_DETACHED";

/// What it says when it is ready.
const READY: &str = "ready";

/// Whether this process is the one in the background.
pub fn is_detached() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the one in the background and waits until it is ready, or has ended.
pub fn start(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::runtime(format!("cannot detach: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg(super::NAME).args(arguments.iter().skip(1)).env(VARIABLE, "1");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(failed)?;
    let said = child.stdout.take().map(BufReader::new).and_then(|out| out.lines().next()?.ok());
    if said.as_deref() == Some(READY) {
        return Ok(ExitCode::SUCCESS);
    }
    // It has said itself why.
    let status = child.wait().map_err(failed)?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// In the background: leaves the terminal, and the folder unless it is to stay there.
pub fn settle(stay: bool) -> Result<(), Failure> {
    // It is the leader of a group only if somebody made it so; then there is no terminal either.
    let _ = rustix::process::setsid();
    if stay {
        return Ok(());
    }
    std::env::set_current_dir("/")
        .map_err(|error| Failure::runtime(format!("cannot go to /: {error}")))
}

/// What was to be written to standard error goes to the file at `path` from now on.
pub fn log_to(path: &Path) -> Result<(), Failure> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.and_then(|file| Ok(rustix::stdio::dup2_stderr(&file)?));
    file.map_err(|error| Failure::runtime(format!("log file {}: {error}", path.display())))
}

/// Tells whoever waits that the switch is ready, and lets go of its terminal.
pub fn ready(logs_elsewhere: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    if !logs_elsewhere {
        rustix::stdio::dup2_stderr(&null)?;
    }
    Ok(())
}
