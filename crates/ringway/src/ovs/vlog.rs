//! Lines of the log as Open vSwitch writes them, which scripts read:
//! `2026-11-29T16:20:31.276Z|00039|bridge|INFO|bridge br0: added interface br0 on port 65534`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tracing::Level;

use crate::log::{Told, now};

/// Modules that have a name with Open vSwitch.
const MODULES: [(&str, &str); 4] = [
    ("ovs::agent", "bridge"),
    ("ovs::agent::trees", "ofproto_dpif"),
    ("ofproto::handle::group", "ofproto_dpif"),
    ("ringway::ovs::run", "vswitchd"),
];

/// What lines look like at first.
pub const USUAL: &str = "%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c|%p|%m";

/// The longest pattern, and the widest field.
const MAX_PATTERN: usize = 1_024;
const MAX_WIDTH: usize = 256;

/// What lines look like, if not as at first.
static PATTERN: Mutex<Option<String>> = Mutex::new(None);

/// Has lines look like this: as patterns of Open vSwitch (`vlog/set PATTERN:..`), in which `%c` is the
/// module, `%p` the level, `%m` what is said, `%N` the number of the line, `%D` and `%d` the moment, always as
/// in the usual pattern, `%A` the program, `%P` its process, `%n` a new line, `%%` a sign of per cent; digits
/// between are a width, and other signs say nothing.
///
/// # Errors
/// It is too long.
pub fn set_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("a pattern of more than {MAX_PATTERN} bytes"));
    }
    *PATTERN.lock().unwrap_or_else(PoisonError::into_inner) = Some(pattern.to_owned());
    Ok(())
}

/// What lines look like.
pub fn pattern() -> String {
    let own = PATTERN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    own.unwrap_or_else(|| USUAL.to_owned())
}

/// What a line is made of.
#[derive(Clone, Copy, Debug)]
struct Parts<'p> {
    moment: &'p str,
    number: u64,
    module: &'p str,
    level: &'p str,
    message: &'p str,
}

impl Parts<'_> {
    /// The line that a pattern makes of them.
    fn line(&self, pattern: &str) -> String {
        let (mut line, mut rest) = (String::new(), pattern);
        while let Some((before, behind)) = rest.split_once('%') {
            line += before;
            let width: String =
                behind.chars().take_while(|sign| sign.is_ascii_digit() || *sign == '-').collect();
            let behind = behind.strip_prefix(width.as_str()).unwrap_or(behind);
            let mut signs = behind.chars();
            let value = match signs.next() {
                Some('c') => self.module.to_owned(),
                Some('p') => self.level.to_owned(),
                Some('m') => self.message.to_owned(),
                Some('N') => self.number.to_string(),
                Some('d' | 'D') => self.moment.to_owned(),
                Some('A') => super::NAME.to_owned(),
                Some('P') => std::process::id().to_string(),
                Some('n') => "\n".to_owned(),
                Some('%') => "%".to_owned(),
                _ => String::new(),
            };
            put(&mut line, &value, &width);
            rest = signs.as_str();
            // How a moment is to look.
            if let Some((_, behind)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            {
                rest = behind;
            }
        }
        line + rest
    }
}

/// Puts a value in a field of a width: `05` with zeros before it, `5` with blanks, `-5` with blanks behind.
fn put(line: &mut String, value: &str, width: &str) {
    let digits = width.trim_start_matches('-');
    let count = digits.parse().unwrap_or(0).min(MAX_WIDTH);
    let _ = match (width.starts_with('-'), digits.starts_with('0')) {
        (true, _) => write!(line, "{value:<count$}"),
        (false, true) => write!(line, "{value:0>count$}"),
        (false, false) => write!(line, "{value:>count$}"),
    };
}

/// Makes the lines, and numbers them.
#[derive(Debug, Default)]
pub struct Vlog(AtomicU64);

impl Vlog {
    /// The line of what is told now.
    pub fn line(&self, told: &Told<'_>) -> String {
        let number = self.0.fetch_add(1, Relaxed).wrapping_add(1);
        let (moment, module) = (&*now(3), &*module(told.target));
        let (level, message) = (level(told.level), told.text);
        Parts { moment, number, module, level, message }.line(&pattern())
    }
}

/// The name of a module. There is none with a bar or a colon.
fn module(target: &str) -> String {
    let known = MODULES.iter().find(|(name, _)| *name == target);
    known.map_or_else(|| target.replace("::", "_"), |(_, theirs)| (*theirs).to_owned())
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        _ => "DBG",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_patterns_say() {
        let parts = Parts {
            moment: "2026-11-29T16:20:31.276Z",
            number: 39,
            module: "bridge",
            level: "INFO",
            message: "100 %m",
        };
        assert_eq!(parts.line(USUAL), "2026-11-29T16:20:31.276Z|00039|bridge|INFO|100 %m");
        assert_eq!(parts.line("%c|%p|%m"), "bridge|INFO|100 %m");
        assert_eq!(parts.line("[%5p] [%-5p] %A%n%%%x%"), "[ INFO] [INFO ] ovs-vswitchd\n%");
        assert_eq!(parts.line("%999999999N").len(), MAX_WIDTH);
        assert!(set_pattern(&"x".repeat(MAX_PATTERN + 1)).is_err());
    }

    #[test]
    fn parts_of_a_line_are_as_scripts_expect_them() {
        assert_eq!(
            [module("ovs::agent"), module("switch::switch::bonds")],
            ["bridge", "switch_switch_bonds"]
        );
        assert_eq!([level(Level::ERROR), level(Level::TRACE)], ["ERR", "DBG"]);
    }
}
