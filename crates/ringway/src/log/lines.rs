//! Makes lines of what is told, and writes them.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::printable::printable;

/// The name of the field with what is said, which has none in a line.
const MESSAGE: &str = "message";

/// What is told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'t> {
    pub level: Level,
    pub target: &'t str,
    /// What is said, and what with it, made fit for a terminal.
    pub text: &'t str,
}

/// Makes a line, without its end.
pub type Form = Box<dyn Fn(&Told<'_>) -> String + Send + Sync>;

/// Writes lines to standard error of what the filter has ([`super::set`]). It knows no spans: there are
/// none.
pub struct Lines {
    pub form: Form,
    /// Whether they go to the journal.
    pub journal: bool,
    pub colour: bool,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Lines {
    fn line(&self, event: &Event<'_>) -> String {
        let mut words = Words { text: String::new(), colour: self.colour };
        event.record(&mut words);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        (self.form)(&Told { level, target, text: &words.text })
    }
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked once, and again when the filter is another.
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        super::current().has(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(super::current().most())
    }

    fn event(&self, event: &Event<'_>) {
        let level = self.journal.then_some(*event.metadata().level());
        // There is nobody else to tell.
        let _ = write_line(&mut io::stderr(), level, &self.line(event));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The line as people read it, who want to know when that was.
pub fn usual(moment: &str, told: &Told<'_>, colour: bool) -> String {
    let (level, text) = (told.level, told.text);
    if !colour {
        return format!("{moment} {level:>5} {text}");
    }
    // ECMA-48: faint, and colours of the foreground.
    let paint = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    format!("\x1b[2m{moment}\x1b[0m \x1b[{paint}m{level:>5}\x1b[0m {text}")
}

/// Writes a line in one go, since others write there, too. For the journal it has its priority before it,
/// and what is in it that would begin another line is replaced.
pub fn write_line(out: &mut impl Write, level: Option<Level>, line: &str) -> io::Result<()> {
    let line = match level {
        Some(level) => format!("{}{}\n", priority(level), line.replace('\n', " ")),
        None => format!("{line}\n"),
    };
    out.write_all(line.as_bytes())
}

/// What stands before a line for the journal (sd-daemon(3)).
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// What is said, and behind it names with values.
struct Words {
    text: String,
    colour: bool,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // It has no quotes around it.
            MESSAGE => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let between = if self.text.is_empty() { "" } else { " " };
        let value = fit(&format!("{value:?}"));
        // A text takes all that is written to it.
        let _ = match field.name() {
            MESSAGE => write!(self.text, "{between}{value}"),
            // ECMA-48: italic, and faint.
            name if self.colour => {
                write!(self.text, "{between}\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
            }
            name => write!(self.text, "{between}{name}={value}"),
        };
    }
}

/// A text from elsewhere, made fit for a terminal, but for its lines.
fn fit(text: &str) -> String {
    let mut fit = String::new();
    for (index, line) in text.split('\n').enumerate() {
        fit += if index == 0 { "" } else { "\n" };
        fit += &printable(line);
    }
    fit
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps lines of all that is told, whatever the filter.
    struct All(Lines, Arc<Mutex<Vec<String>>>);

    impl Subscriber for All {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn event(&self, event: &Event<'_>) {
            self.1.lock().unwrap().push(self.0.line(event));
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.new_span(span)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    /// Lines of what `act` tells.
    fn lines(colour: bool, act: impl FnOnce()) -> Vec<String> {
        let form: Form = Box::new(move |told| usual("now", told, colour));
        let kept = Arc::default();
        let all = All(Lines { form, journal: false, colour }, Arc::clone(&kept));
        tracing::subscriber::with_default(all, act);
        kept.lock().unwrap().clone()
    }

    #[test]
    fn what_is_said_comes_first_and_values_have_names() {
        let tell = || {
            let (port, path) = ("vm1", std::path::Path::new("/a b"));
            tracing::warn!(port, path = %path.display(), count = 3_u64, "{} lost", port);
            tracing::info!(first = ?[1, 2]);
        };
        assert_eq!(
            lines(false, tell),
            ["now  WARN vm1 lost port=\"vm1\" path=/a b count=3", "now  INFO first=[1, 2]"]
        );
    }

    #[test]
    fn terminals_have_colours() {
        let line = "\x1b[2mnow\x1b[0m \x1b[31mERROR\x1b[0m gone \x1b[3mby\x1b[0m\x1b[2m=\x1b[0m1";
        assert_eq!(lines(true, || tracing::error!(by = 1_u64, "gone")), [line]);
    }

    #[test]
    fn nothing_that_is_told_commands_a_terminal() {
        let name = "a\x1b[2J\nb";
        let told = lines(false, || tracing::error!(shown = %name, "{name}"));
        assert_eq!(told, ["now ERROR a\u{fffd}[2J\nb shown=a\u{fffd}[2J\nb"]);
    }

    #[test]
    fn lines_for_the_journal_have_priorities_and_stay_one() {
        let mut out = Vec::new();
        write_line(&mut out, Some(Level::WARN), "a\n<0>b").unwrap();
        assert_eq!(out, b"<4>a <0>b\n");
        let mut out = Vec::new();
        write_line(&mut out, None, "a").unwrap();
        assert_eq!(out, b"a\n");
    }
}
