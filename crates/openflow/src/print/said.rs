//! What switches and their ports say in words of their own.

use std::fmt::{self, Display, Formatter, Write as _};

/// Words as they are, but for letters that would make another line or command a terminal: who sends them
/// writes into no log.
pub(super) struct Said<'a>(pub(super) &'a str);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '"' | '\'' => f.write_char(letter),
            letter => write!(f, "{}", letter.escape_debug()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_letter_commands_a_terminal() {
        let said = |words| Said(words).to_string();
        assert_eq!(said("Nobody, Inc. \"ö\" of 'x'"), "Nobody, Inc. \"ö\" of 'x'");
        assert_eq!(said("a\nb\r\x1b[2J\u{9b}\u{202e}"), "a\\nb\\r\\u{1b}[2J\\u{9b}\\u{202e}");
        assert_eq!(said("\\n"), "\\\\n", "what is escaped is told from what looks so");
    }
}
