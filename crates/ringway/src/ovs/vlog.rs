//! Lines of the log as Open vSwitch writes them, which scripts read:
//! `2026-11-29T16:20:31.276Z|00039|bridge|INFO|bridge br0: added interface br0 on port 65534`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Length of a moment up to its seconds: `2026-11-29T16:20:31`.
const SECONDS: usize = 19;

/// Modules that have a name with Open vSwitch.
const MODULES: [(&str, &str); 4] = [
    ("ovs::agent", "bridge"),
    ("ovs::agent::trees", "ofproto_dpif"),
    ("ofproto::handle::group", "ofproto_dpif"),
    ("ringway::ovs::run", "vswitchd"),
];

/// Makes the lines, and numbers them.
#[derive(Debug, Default)]
pub struct Vlog(AtomicU64);

impl<S, N> FormatEvent<S, N> for Vlog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut moment = String::new();
        SystemTime.format_time(&mut Writer::new(&mut moment))?;
        let number = self.0.fetch_add(1, Relaxed).wrapping_add(1);
        let meta = event.metadata();
        let (module, level) = (module(meta.target()), level(*meta.level()));
        write!(writer, "{}|{number:05}|{module}|{level}|", in_milliseconds(&moment))?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A moment with three digits behind its seconds.
fn in_milliseconds(moment: &str) -> String {
    let (seconds, rest) = moment.split_at_checked(SECONDS).unwrap_or((moment, ""));
    let digits: String =
        rest.chars().filter(char::is_ascii_digit).chain("000".chars()).take(3).collect();
    format!("{seconds}.{digits}Z")
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
    fn parts_of_a_line_are_as_scripts_expect_them() {
        assert_eq!(in_milliseconds("2026-11-29T16:20:31.276543Z"), "2026-11-29T16:20:31.276Z");
        assert_eq!(in_milliseconds("2026-11-29T16:20:31Z"), "2026-11-29T16:20:31.000Z");
        assert_eq!(
            [module("ovs::agent"), module("switch::switch::bonds")],
            ["bridge", "switch_switch_bonds"]
        );
        assert_eq!([level(Level::ERROR), level(Level::TRACE)], ["ERR", "DBG"]);
    }
}
