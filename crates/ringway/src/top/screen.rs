//! The terminal, taken for as long as it is needed, and given back whatever happens.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, Once, PoisonError};

use ratatui_core::terminal::Terminal;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::app::App;
use super::backend::Output;
use super::canvas::Canvas;
use super::draw::{Look, draw};
use crate::exit::Failure;

/// Another screen than the one with the user's lines (xterm's control sequences), without cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";

/// Colours off, the cursor back, the user's lines back.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// The settings of the terminal to go back to, while it is taken.
static TAKEN: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal, taken.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<Output>,
    look: Look,
}

impl Screen {
    /// Takes the terminal that is standard input and output.
    ///
    /// # Errors
    /// Where they are none, or one that knows no control sequences.
    pub fn take() -> Result<Self, Failure> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if is_dumb || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(Failure::usage(
                "top needs a terminal for its input and output; --once and --batch print lines",
            ));
        }
        give_back_at_a_panic();
        seize().map_err(|error| no_terminal(&error))?;
        // From here on whatever ends this gives it back.
        let terminal = Terminal::new(Output::new()).inspect_err(|_| give_back());
        let terminal = terminal.map_err(|error| no_terminal(&error))?;
        Ok(Self { terminal, look: look() })
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, app: &mut App) -> io::Result<()> {
        let look = self.look;
        self.terminal
            .draw(|frame| draw(app, &mut Canvas::new(frame.buffer_mut(), look.colour), look))?;
        Ok(())
    }

    /// Draws everything the next time, whatever others have written there.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Gives the terminal back, stops until told to continue, and takes it again.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
        seize()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::runtime(format!("cannot use the terminal: {error}"))
}

/// Has keys come as they are pressed, and the screen for itself.
fn seize() -> io::Result<()> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut raw = before.clone();
    raw.make_raw();
    *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    let taken = tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(io::Error::from);
    let shown = taken.and_then(|()| write(ENTER));
    shown.inspect_err(|_| give_back())
}

/// As it was before; where it is nobody's any more, nothing.
fn give_back() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = taken else { return };
    // Whoever it was taken from may have gone.
    let _ = write(LEAVE);
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// A message of a panic is for the user's lines, not for the screen that goes away.
fn give_back_at_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            next(panic);
        }));
    });
}

/// What the terminal can show, by what the environment says.
fn look() -> Look {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    Look {
        colour: crate::table::colour_stdout(),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}
