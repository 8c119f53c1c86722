//! Names with values: `name=value`, `name:value`, `name(value)` or `name`, with commas or spaces between
//! them.

/// What is between pairs.
const BETWEEN: [char; 5] = [',', ' ', '\t', '\r', '\n'];

/// The pairs of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs<'a> {
    left: &'a str,
}

impl<'a> Pairs<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { left: text }
    }
}

/// How long a value is: up to one of `ends` outside of brackets.
fn value_len(text: &str, ends: &[char]) -> usize {
    let mut depth = 0_u32;
    for (at, letter) in text.char_indices() {
        if depth == 0 && ends.contains(&letter) {
            return at;
        }
        match letter {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    text.len()
}

/// Divides a text behind so many bytes and takes the letter there away.
fn divide(text: &str, at: usize) -> (&str, Option<char>, &str) {
    let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
    let mut letters = tail.chars();
    let letter = letters.next();
    (head, letter, letters.as_str())
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.left.trim_start_matches(BETWEEN);
        if text.is_empty() {
            self.left = text;
            return None;
        }
        let ends = |letter: char| BETWEEN.contains(&letter) || [':', '=', '('].contains(&letter);
        let (name, end, rest) = divide(text, text.find(ends).unwrap_or(text.len()));
        let (value, left) = match end {
            Some(':' | '=') => {
                let (value, _, left) = divide(rest, value_len(rest, &BETWEEN));
                (value, left)
            }
            Some('(') => {
                let len = value_len(rest, &[')']);
                let (value, _, left) = divide(rest, len);
                if left.starts_with("->") {
                    // `(value)->target`: both are the value, with the bracket between them.
                    let more = value_len(left, &BETWEEN);
                    let (value, _, left) = divide(rest, len.saturating_add(1).saturating_add(more));
                    (value, left)
                } else {
                    (value, left)
                }
            }
            _ => ("", rest),
        };
        self.left = left;
        Some((name, value))
    }
}
