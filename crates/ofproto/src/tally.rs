//! How many changes of rules a controller has made, for the log.

use std::fmt::{self, Display, Formatter};

use flow::Command;

use crate::bridge::Bridge;
use crate::connection::ConnectionId;

/// How long changes are counted until they are told.
const PERIOD: u64 = 10_000;

/// Changes of rules since they were told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    added: u64,
    deleted: u64,
    modified: u64,
    /// When the first and the last were made, in milliseconds.
    first: u64,
    last: u64,
}

impl Tally {
    /// Counts one that was made `now`.
    pub fn count(&mut self, command: Command, now: u64) {
        if self.is_empty() {
            self.first = now;
        }
        self.last = now;
        let count = match command {
            Command::Add => &mut self.added,
            Command::Delete | Command::DeleteStrict => &mut self.deleted,
            Command::Modify | Command::ModifyStrict | Command::Shorten => &mut self.modified,
        };
        *count = count.saturating_add(1);
    }

    const fn all(&self) -> u64 {
        self.added.saturating_add(self.deleted).saturating_add(self.modified)
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.all() == 0
    }

    /// What there is to be told of them, in Open vSwitch's words.
    const fn told(self, now: u64) -> Told {
        Told { tally: self, now }
    }
}

struct Told {
    tally: Tally,
    now: u64,
}

impl Display for Told {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { tally, now } = self;
        let ago = now.saturating_sub(tally.first) / 1_000;
        let interval = tally.last.saturating_sub(tally.first) / 1_000;
        write!(f, "{} flow_mods ", tally.all())?;
        match interval {
            _ if interval == ago => write!(f, "in the last {ago} s")?,
            0 => write!(f, "{ago} s ago")?,
            _ => write!(f, "in the {interval} s starting {ago} s ago")?,
        }
        let kinds =
            [(tally.added, "adds"), (tally.deleted, "deletes"), (tally.modified, "modifications")];
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<String> = kinds.map(|(count, kind)| format!("{count} {kind}")).collect();
        write!(f, " ({})", kinds.join(", "))
    }
}

impl Bridge {
    /// What a controller has done to rules since this was told last, if there is something to be told by
    /// now; `is_last`: whatever there is.
    pub fn take_tally(&mut self, id: ConnectionId, now: u64, is_last: bool) -> Option<String> {
        let session = self.connections.get_mut(&id)?.session.as_mut()?;
        let is_due = is_last || now.saturating_sub(session.tally.first) >= PERIOD;
        if session.tally.is_empty() || !is_due {
            return None;
        }
        Some(std::mem::take(&mut session.tally).told(now).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_in_the_words_of_open_vswitch() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        let mut count = |command, at| {
            tally.count(command, at);
            tally
        };
        let one = count(Command::Delete, 1_000);
        assert_eq!(one.told(1_900).to_string(), "1 flow_mods in the last 0 s (1 deletes)");
        assert_eq!(one.told(9_000).to_string(), "1 flow_mods 8 s ago (1 deletes)");
        count(Command::Add, 2_000);
        let all = count(Command::ModifyStrict, 4_500);
        let parts = "(1 adds, 1 deletes, 1 modifications)";
        assert_eq!(all.told(4_600).to_string(), format!("3 flow_mods in the last 3 s {parts}"));
        let later = format!("3 flow_mods in the 3 s starting 8 s ago {parts}");
        assert_eq!(all.told(9_000).to_string(), later);
    }
}
