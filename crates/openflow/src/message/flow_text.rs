//! Flows and changes of them as ovs-ofctl shows them.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::flow_mod::{Command, DEFAULT_PRIORITY, FlowFlags, FlowMod};
use super::flow_stats::FlowStats;
use crate::matching::Match;
use crate::port_no::PortNo;

/// A match behind its priority, which is not shown where it is the usual one.
pub(crate) struct Ranked<'a>(pub(crate) u16, pub(crate) &'a Match);

impl Display for Ranked<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(priority, matching) = self;
        match (*priority, matching.is_empty()) {
            (DEFAULT_PRIORITY, _) => write!(f, "{matching}"),
            (priority, true) => write!(f, "priority={priority}"),
            (priority, false) => {
                let text = matching.to_string();
                let comma = if text.is_empty() { "" } else { "," };
                write!(f, "priority={priority}{comma}{text}")
            }
        }
    }
}

/// Each with a space behind it.
impl Display for FlowFlags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::SEND_FLOW_REMOVED, "send_flow_rem "),
            (Self::CHECK_OVERLAP, "check_overlap "),
            (Self::RESET_COUNTS, "reset_counts "),
            (Self::NO_PACKET_COUNTS, "no_packet_counts "),
            (Self::NO_BYTE_COUNTS, "no_byte_counts "),
        ];
        let set = names.into_iter().filter(|(flag, _)| self.has(*flag));
        set.into_iter().try_for_each(|(_, name)| f.write_str(name))
    }
}

/// As `ovs-ofctl ofp-print` shows it behind the message's type: `ADD table:1 priority=5,ip
/// cookie:0x7 actions=output:2`.
impl Display for FlowMod {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.command {
            Command::Add => "ADD ",
            Command::Modify => "MOD ",
            Command::ModifyStrict => "MOD_STRICT ",
            Command::Delete => "DEL ",
            Command::DeleteStrict => "DEL_STRICT ",
        })?;
        if self.table != 0 {
            write!(f, "table:{} ", self.table)?;
        }
        let ranked = Ranked(self.priority, &self.matching).to_string();
        if !ranked.is_empty() {
            write!(f, "{ranked} ")?;
        }
        if self.new_cookie != 0 && self.new_cookie != u64::MAX {
            write!(f, "cookie:{:#x} ", self.new_cookie)?;
        }
        let (cookie, mask) = self.cookie;
        if mask != 0 {
            write!(f, "cookie:0x{cookie:x}/0x{mask:x} ")?;
        }
        let numbers = [
            ("idle", self.idle_timeout),
            ("hard", self.hard_timeout),
            ("importance", self.importance),
        ];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            write!(f, "{name}:{number} ")?;
        }
        if let Some(buffer) = self.buffer {
            write!(f, "buf:0x{buffer:x} ")?;
        }
        if self.out_port != PortNo::ANY {
            write!(f, "out_port:{} ", self.out_port)?;
        }
        write!(f, "{}actions={}", self.flags, self.instructions)
    }
}

/// Seconds with three digits behind the point, or as many as there are of nine.
pub(crate) struct Seconds(pub(crate) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        write!(f, "{seconds}")?;
        if nanos == 0 {
            return f.write_str("s");
        }
        if nanos.is_multiple_of(1_000_000) {
            return write!(f, ".{:03}s", nanos / 1_000_000);
        }
        let digits = format!(".{nanos:09}");
        write!(f, "{}s", digits.trim_end_matches('0'))
    }
}

/// A flow as a line of `ovs-ofctl dump-flows`.
#[derive(Clone, Copy, Debug)]
pub struct Dumped<'a> {
    flow: &'a FlowStats,
    with_stats: bool,
}

impl FlowStats {
    /// As `ovs-ofctl dump-flows` shows it; without statistics: as with `--no-stats`.
    #[must_use]
    pub const fn dumped(&self, with_stats: bool) -> Dumped<'_> {
        Dumped { flow: self, with_stats }
    }
}

impl Display for Dumped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { flow, with_stats } = *self;
        if with_stats || flow.cookie != 0 {
            write!(f, "cookie=0x{:x}, ", flow.cookie)?;
        }
        if with_stats {
            write!(f, "duration={}, ", Seconds(flow.duration))?;
        }
        if with_stats || flow.table != 0 {
            write!(f, "table={}, ", flow.table)?;
        }
        if with_stats {
            let known =
                |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
            write!(f, "n_packets={}, n_bytes={}, ", known(flow.packets), known(flow.bytes))?;
        }
        let numbers = [("idle_timeout", flow.idle_timeout), ("hard_timeout", flow.hard_timeout)];
        for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            write!(f, "{name}={number}, ")?;
        }
        write!(f, "{}", flow.flags)?;
        if flow.importance != 0 {
            write!(f, "importance={}, ", flow.importance)?;
        }
        if let Some(age) = flow.idle_age.filter(|_| with_stats) {
            write!(f, "idle_age={age}, ")?;
        }
        let age = flow.hard_age.filter(|age| u64::from(*age) != flow.duration.as_secs());
        if let Some(age) = age.filter(|_| with_stats) {
            write!(f, "hard_age={age}, ")?;
        }
        let ranked = Ranked(flow.priority, &flow.matching).to_string();
        let space = if ranked.is_empty() { "" } else { " " };
        write!(f, "{ranked}{space}actions={}", flow.instructions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_as_many_digits_as_they_need() {
        let shown = |nanos| Seconds(Duration::new(12, nanos)).to_string();
        assert_eq!([shown(0), shown(100_000_000), shown(1)], ["12s", "12.100s", "12.000000001s"]);
    }
}
