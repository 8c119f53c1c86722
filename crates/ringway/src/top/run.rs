//! Waits for keys, samples and signals.

use std::io;
use std::time::{Duration, Instant};

use eal::event::EventFd;
use eal::signals::{Signals, resizes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::app::{App, Effect};
use super::keys::{Input, Key};
use super::plain;
use super::poll::{Poller, Report};
use super::sample::Sample;
use super::screen::Screen;
use super::sheet::Order;
use crate::cli::TopArgs;
use crate::control::client::Client;
use crate::exit::Failure;
use crate::{output, table, wait};

/// How long the rest of a sequence that a key sends may take: more than a slow line needs, less than
/// one waits for a key to do something.
const SEQUENCE: Duration = Duration::from_millis(50);

/// Time after which a switch that does not answer is said not to, beyond the interval.
const PATIENCE: Duration = Duration::from_secs(2);

/// `ringway top`.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let column = args.sort.as_deref().map(|name| args.view.column(name)).transpose();
    let order =
        column.map_err(Failure::usage)?.map(|column| Order { column, reversed: args.reverse });
    let app = App::new(args.view, order, args.filter.as_deref().unwrap_or(""), args.interval);
    let client = Client::connect(args.control.control.clone())?;
    match args.rounds() {
        Some(rounds) => batch(app, client, rounds),
        None => Live::start(app, client)?.run(),
    }
}

/// Prints tables, as many as asked for, or until nobody reads them.
fn batch(mut app: App, mut client: Client, rounds: u64) -> Result<(), Failure> {
    let signals = Signals::install().map_err(Failure::runtime)?;
    app.take(Sample::take(&mut client)?);
    for round in 0..rounds {
        if wait::readable(&signals, app.interval)? || output::is_closed() {
            return Ok(());
        }
        app.take(Sample::take(&mut client)?);
        if round > 0 {
            output::line("");
        }
        output::text(&plain::text(&app, table::columns()));
    }
    Ok(())
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    end: bool,
    input: bool,
}

/// The screen and all that changes it.
struct Live {
    app: App,
    poller: Poller,
    signals: Signals,
    resized: &'static EventFd,
    screen: Screen,
    input: Input,
    /// When the switch answered, or said why not, last.
    heard: Instant,
}

impl Live {
    fn start(app: App, mut client: Client) -> Result<Self, Failure> {
        // What is wrong from the start is told as by any other command.
        let mut app = app;
        app.take(Sample::take(&mut client)?);
        let signals = Signals::install().map_err(Failure::runtime)?;
        let resized = resizes().map_err(Failure::runtime)?;
        let screen = Screen::take()?;
        let poller = Poller::start(client, app.interval)?;
        let heard = Instant::now();
        Ok(Self { app, poller, signals, resized, screen, input: Input::default(), heard })
    }

    /// Until the user, or a signal, has enough. A terminal that is gone is no failure.
    fn run(mut self) -> Result<(), Failure> {
        match self.turns() {
            Err(Turn::Terminal(error)) if !is_gone(&error) => {
                Err(Failure::runtime(format!("the terminal: {error}")))
            }
            Err(Turn::Failed(failure)) => Err(failure),
            Ok(()) | Err(Turn::Terminal(_)) => Ok(()),
        }
    }

    fn turns(&mut self) -> Result<(), Turn> {
        loop {
            self.screen.draw(&mut self.app)?;
            let woken = self.wait()?;
            if woken.end {
                return Ok(());
            }
            // That it was resized is seen when it is drawn.
            let _ = self.resized.drain();
            self.listen()?;
            for key in self.keys(woken.input)? {
                match self.app.key(key) {
                    Effect::Draw => {}
                    Effect::Interval => self.poller.set_interval(self.app.interval),
                    Effect::Redraw => self.screen.forget()?,
                    Effect::Suspend => self.screen.suspend()?,
                    Effect::Quit => return Ok(()),
                }
            }
        }
    }

    /// Waits until something happens, a second at most: a switch that is silent is to be told of.
    fn wait(&self) -> Result<Woken, Turn> {
        let stdin = io::stdin();
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(self.poller.ready(), PollFlags::IN),
            PollFd::new(self.resized, PollFlags::IN),
        ];
        let patience = if self.input.is_incomplete() { SEQUENCE } else { Duration::from_secs(1) };
        match poll(&mut fds, Timespec::try_from(patience).ok().as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Woken::default()),
            Err(error) => return Err(Turn::Terminal(error.into())),
        }
        let [end, input, ..] = fds.map(|fd| !fd.revents().is_empty());
        Ok(Woken { end, input })
    }

    /// Takes what the switch has said.
    fn listen(&mut self) -> Result<(), Turn> {
        let _ = self.poller.ready().drain();
        while let Some(report) = self.poller.take().map_err(Turn::Failed)? {
            self.heard = Instant::now();
            match report {
                Report::Sample(sample) => self.app.take(*sample),
                Report::Lost(reason) => self.app.lost = Some(reason),
            }
        }
        let silent = self.heard.elapsed();
        if silent > self.app.interval.saturating_add(PATIENCE) {
            self.app.lost = Some(format!("the switch says nothing for {} s", silent.as_secs()));
        }
        Ok(())
    }

    /// The keys that were pressed.
    fn keys(&mut self, is_readable: bool) -> Result<Vec<Key>, Turn> {
        if !is_readable {
            return Ok(if self.input.is_incomplete() { self.input.end() } else { Vec::new() });
        }
        let mut bytes = [0; 1024];
        match rustix::io::read(io::stdin(), &mut bytes) {
            Ok(0) => Err(Turn::Terminal(Errno::IO.into())),
            Ok(count) => Ok(self.input.add(bytes.get(..count).unwrap_or_default())),
            Err(Errno::INTR | Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(Turn::Terminal(error.into())),
        }
    }
}

/// Why it ends before its time.
enum Turn {
    Terminal(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Turn {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// Whether a terminal was closed.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::IO, Errno::PIPE, Errno::NXIO, Errno::NODEV];
    error.raw_os_error().is_some_and(|code| gone.iter().any(|errno| errno.raw_os_error() == code))
}
