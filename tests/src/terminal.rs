use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::run;
use crate::wait;

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(30);

/// A program in a terminal of its own, which is tmux's.
#[derive(Debug)]
pub struct Terminal {
    dir: PathBuf,
}

impl Terminal {
    /// Runs a shell line in a terminal of so many columns and lines, with its files in `dir`.
    ///
    /// # Errors
    /// Without tmux.
    pub fn start(dir: &Path, (columns, lines): (u16, u16), line: &str) -> Result<Self> {
        let terminal = Self { dir: dir.to_owned() };
        // It runs once for each line that is sent, and the terminal's settings are kept from before
        // and after. The end of input ends it, and should this process die, so does the time.
        let script = format!(
            "while stty -g > before && sh -c 'echo $$ > pid; exec {line}'; echo $? > status.new; \
             stty -g > after; mv status.new status; echo ENDED; read -t 60 again; do :; done"
        );
        std::fs::write(dir.join("script"), script)?;
        let size = [columns.to_string(), lines.to_string()];
        let [columns, lines] = &size;
        let mut command = terminal.command();
        command.current_dir(dir).env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR").args([
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            columns,
            "-y",
            lines,
            "bash script",
        ]);
        run(&mut command)?;
        Ok(terminal)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(self.dir.join("tmux"));
        command
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        run(self.command().args(arguments))
    }

    /// Types keys, by the names that tmux has for them.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let (columns, lines) = (columns.to_string(), lines.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &lines]).map(drop)
    }

    /// Waits until what is on the screen is as `wanted`, and gives it.
    ///
    /// # Errors
    /// When it is not in time; the message has what is there instead.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        wait::until(what, LIMIT, PAUSE, || {
            last = self.tmux(&["capture-pane", "-p"])?;
            Ok(wanted(&last).then(|| last.clone()))
        })
        .with_context(|| format!("the screen:\n{last}"))
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid: i32 = self.file("pid")?.parse()?;
        Ok(kill_process(Pid::from_raw(pid).context("a process id")?, signal)?)
    }

    /// Waits until the program has ended with `status`, and checks that the terminal is as it was.
    ///
    /// # Errors
    /// When it does not, or is not.
    pub fn wait_end(&self, status: i32) -> Result<()> {
        let path = self.dir.join("status");
        wait::for_path(&path, None, LIMIT)?;
        let ended = self.file("status")?;
        ensure!(ended == status.to_string(), "it ended with {ended}");
        let (before, after) = (self.file("before")?, self.file("after")?);
        ensure!(before == after, "settings of the terminal: {before}, then {after}");
        self.wait_for("the end", |screen| screen.contains("ENDED"))?;
        let screen = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        ensure!(screen.trim() == "0 1", "the screen is not given back: {screen}");
        std::fs::remove_file(path)?;
        Ok(())
    }

    /// Starts the program again, on an empty screen, once it has ended.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn again(&self) -> Result<()> {
        self.tmux(&["send-keys", "-R"])?;
        self.keys(&["Enter"])
    }

    fn file(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended is as good as one ended here.
        drop(self.tmux(&["kill-server"]));
    }
}
