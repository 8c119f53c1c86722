//! Text from elsewhere, made fit for a terminal.
//!
//! Names of processes, of devices and of what a driver tells may have been chosen by a guest or its
//! VMM: a terminal must not take anything in them as a command, nor show it in another order.

use std::borrow::Cow;

/// `text` with everything replaced that a terminal does not show as one character where it stands:
/// control characters (ECMA-48), which begin commands, and those of Unicode that change the
/// direction of what follows, or cannot be seen.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_trouble) {
        Cow::Owned(text.chars().map(|c| if is_trouble(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Unicode's general categories Cc, and of Cf, Zl and Zp what terminals obey or hide.
fn is_trouble(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_what_cannot_be_seen_are_replaced() {
        assert!(matches!(printable("qemu-kvm é 日本"), Cow::Borrowed("qemu-kvm é 日本")));
        assert_eq!(printable("a\x1b[2Jb\r\n\u{9b}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c");
        assert_eq!(printable("vm\u{202e}1\u{200b}"), "vm\u{fffd}1\u{fffd}");
    }
}
