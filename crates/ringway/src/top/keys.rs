//! Keys out of what a terminal sends: characters in UTF-8, control characters, and control sequences
//! (ECMA-48, 5.4) as xterm(1) and its kin use them.

/// A key, as far as there is a use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are called as on a keyboard")]
pub enum Key {
    Char(char),
    Ctrl(char),
    Enter,
    Tab,
    BackTab,
    Esc,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    /// Some other one.
    Other,
}

/// Bytes of a sequence that are waited for at most: whatever is longer is none.
const MAX_SEQUENCE: usize = 32;

/// What begins a sequence, and is a key of its own.
const ESC: u8 = 0x1b;

/// Bytes from the terminal, of which the last ones may be the beginning of a sequence: over ssh they
/// come in pieces.
#[derive(Debug, Default)]
pub struct Input {
    pending: Vec<u8>,
}

impl Input {
    /// Whether a sequence has begun that is not complete.
    pub const fn is_incomplete(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The keys that `bytes` complete.
    pub fn add(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.pending.extend_from_slice(bytes);
        self.parse(false)
    }

    /// The keys that there are if nothing more comes.
    pub fn end(&mut self) -> Vec<Key> {
        self.parse(true)
    }

    fn parse(&mut self, is_end: bool) -> Vec<Key> {
        let mut keys = Vec::new();
        let all = std::mem::take(&mut self.pending);
        let mut rest = all.as_slice();
        while let Some(first) = rest.first() {
            let (key, used) = match parse(rest) {
                Some(found) => found,
                None if !is_end && rest.len() < MAX_SEQUENCE => {
                    self.pending = rest.to_vec();
                    break;
                }
                // A key of its own, and then whatever follows.
                None => (if *first == ESC { Key::Esc } else { Key::Other }, 1),
            };
            keys.push(key);
            rest = rest.get(used.max(1)..).unwrap_or_default();
        }
        keys
    }
}

/// The first key in `bytes`, and how many of them it takes; `None` if it is not complete.
fn parse(bytes: &[u8]) -> Option<(Key, usize)> {
    match *bytes.first()? {
        ESC => escaped(bytes),
        b'\r' | b'\n' => Some((Key::Enter, 1)),
        b'\t' => Some((Key::Tab, 1)),
        0x08 | 0x7f => Some((Key::Backspace, 1)),
        control @ 1..0x1b => Some((Key::Ctrl(char::from(control | 0x60)), 1)),
        0 | 0x1c..0x20 => Some((Key::Other, 1)),
        _ => character(bytes),
    }
}

fn character(bytes: &[u8]) -> Option<(Key, usize)> {
    let longest = bytes.get(..4).unwrap_or(bytes);
    let valid = match std::str::from_utf8(longest) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(longest.get(..error.valid_up_to())?).ok()?
        }
        Err(error) => return error.error_len().map(|length| (Key::Other, length)),
    };
    let first = valid.chars().next()?;
    Some((Key::Char(first), first.len_utf8()))
}

/// What begins with ESC: a control sequence, one of SS3, or the key itself and then another one.
fn escaped(bytes: &[u8]) -> Option<(Key, usize)> {
    match bytes.get(1)? {
        b'[' => sequence(bytes),
        b'O' => Some((arrow(*bytes.get(2)?), 3)),
        _ => Some((Key::Esc, 1)),
    }
}

/// A control sequence: parameters, intermediate bytes and a final one.
fn sequence(bytes: &[u8]) -> Option<(Key, usize)> {
    // The console of Linux has function keys of its own, with one byte more.
    if bytes.get(2) == Some(&b'[') {
        return bytes.get(3).map(|_| (Key::Other, 4));
    }
    let end = bytes.iter().skip(2).position(|byte| !(0x20..0x40).contains(byte))?;
    let (parameters, last) = (bytes.get(2..2 + end)?, *bytes.get(2 + end)?);
    if !(0x40..0x7f).contains(&last) {
        return Some((Key::Esc, 1));
    }
    let key = match (parameters, last) {
        (b"1" | b"7", b'~') => Key::Home,
        (b"4" | b"8", b'~') => Key::End,
        (b"5", b'~') => Key::PageUp,
        (b"6", b'~') => Key::PageDown,
        (b"", b'Z') => Key::BackTab,
        (b"", last) => arrow(last),
        _ => Key::Other,
    };
    Some((key, 3 + end))
}

const fn arrow(last: u8) -> Key {
    match last {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'M' => Key::Enter,
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_told_apart_also_in_pieces() {
        let mut input = Input::default();
        assert_eq!(
            input.add(b"q\r\t\x7f\x03\x1b[A\x1b[6~\x1b[Z"),
            [
                Key::Char('q'),
                Key::Enter,
                Key::Tab,
                Key::Backspace,
                Key::Ctrl('c'),
                Key::Up,
                Key::PageDown,
                Key::BackTab,
            ]
        );
        assert!(!input.is_incomplete());
        for piece in [&b"\x1b"[..], b"[", b"5"] {
            assert_eq!(input.add(piece), []);
            assert!(input.is_incomplete());
        }
        assert_eq!(input.add(b"~j"), [Key::PageUp, Key::Char('j')]);
        assert_eq!(input.add("é".as_bytes().get(..1).unwrap()), []);
        assert_eq!(input.add("é".as_bytes().get(1..).unwrap()), [Key::Char('é')]);
    }

    #[test]
    fn escape_is_a_key_when_nothing_follows() {
        let mut input = Input::default();
        assert_eq!(input.add(b"\x1b"), []);
        assert_eq!(input.end(), [Key::Esc]);
        assert!(!input.is_incomplete());
        assert_eq!(input.add(b"\x1b/"), [Key::Esc, Key::Char('/')]);
    }

    proptest! {
        #[test]
        fn whatever_comes_comes_to_an_end(chunks in prop::collection::vec(
            prop::collection::vec(prop_oneof![
                any::<u8>(),
                prop::sample::select(vec![0x1b, b'[', b'O', b'M', b'<', b';', b'1', b'~', 0xc3]),
            ], 0..40),
            0..10,
        )) {
            let mut input = Input::default();
            for chunk in &chunks {
                input.add(chunk);
                prop_assert!(input.pending.len() < MAX_SEQUENCE);
            }
            input.end();
            prop_assert!(!input.is_incomplete());
        }
    }
}
