//! From a stream of bytes to JSON texts: they follow each other without anything between them
//! (RFC 7047 section 4.1), so each ends where its outermost bracket is closed.

use serde_json::Value;

use crate::error::Malformed;

/// The most bytes of one message: the content of the largest databases in use is well below.
pub const MAX_MESSAGE: usize = 256 << 20;

/// Cuts a stream into messages.
///
/// ```
/// let mut stream = ovsdb::Splitter::default();
/// stream.push(br#"{"id":1,"result":["}"]}{"id""#);
/// assert_eq!(stream.next().unwrap().unwrap()["id"], 1);
/// assert_eq!(stream.next(), Ok(None));
/// ```
#[derive(Debug, Default)]
pub struct Splitter {
    /// What has come, from the begin of a message on.
    bytes: Vec<u8>,
    /// How many of them were looked at.
    seen: usize,
    /// How many brackets are open there.
    depth: usize,
    place: Place,
}

/// Where in a JSON text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    InString,
    /// Behind a backslash in a string.
    Escaped,
}

impl Splitter {
    /// Adds what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message; `None` if it is not complete yet.
    ///
    /// # Errors
    /// What came is not JSON, or longer than [`MAX_MESSAGE`]: there is no use in going on.
    #[expect(clippy::should_implement_trait, reason = "more may come after the end")]
    pub fn next(&mut self) -> Result<Option<Value>, Malformed> {
        let Some(end) = self.end()? else { return Ok(None) };
        let text: Vec<u8> = self.bytes.drain(..end).collect();
        self.seen = 0;
        let value = serde_json::from_slice(&text).map_err(|error| {
            Malformed::of_text(format!("JSON ({error})"), &String::from_utf8_lossy(&text))
        })?;
        Ok(Some(value))
    }

    /// Looks for the end of the first message.
    fn end(&mut self) -> Result<Option<usize>, Malformed> {
        let rest = self.bytes.get(self.seen..).unwrap_or_default();
        for (index, byte) in rest.iter().enumerate() {
            let is_space = byte.is_ascii_whitespace();
            if self.depth == 0 && !is_space && *byte != b'{' {
                let found = String::from_utf8_lossy(rest.get(index..).unwrap_or_default());
                return Err(Malformed::of_text("a message that starts with {", &found));
            }
            (self.place, self.depth) = step(self.place, self.depth, *byte);
            if self.depth == 0 && !is_space {
                let end = self.seen.saturating_add(index).saturating_add(1);
                return Ok(Some(end));
            }
        }
        self.seen = self.bytes.len();
        if self.seen > MAX_MESSAGE {
            return Err(Malformed::of_text(format!("a message below {MAX_MESSAGE} bytes"), "more"));
        }
        Ok(None)
    }
}

const fn step(place: Place, depth: usize, byte: u8) -> (Place, usize) {
    match (place, byte) {
        (Place::Outside, b'{' | b'[') => (Place::Outside, depth.saturating_add(1)),
        (Place::Outside, b'}' | b']') => (Place::Outside, depth.saturating_sub(1)),
        (Place::InString, b'\\') => (Place::Escaped, depth),
        (Place::Outside, b'"') | (Place::Escaped, _) => (Place::InString, depth),
        (Place::InString, b'"') => (Place::Outside, depth),
        (place, _) => (place, depth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn all(stream: &mut Splitter) -> Vec<Value> {
        std::iter::from_fn(|| stream.next().unwrap()).collect()
    }

    #[test]
    fn brackets_in_texts_and_escaped_quotes_do_not_count() {
        let mut stream = Splitter::default();
        let message = json!({"a": "}\"]\\", "b": [{"c": []}]});
        let text = format!(" {message}\n{message}");
        let mut found = Vec::new();
        for byte in text.bytes() {
            stream.push(&[byte]);
            found.extend(all(&mut stream));
        }
        assert_eq!(found, [message.clone(), message]);
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        for bad in ["x", "[1]", "}", "{]", "{\"a\":}"] {
            let mut stream = Splitter::default();
            stream.push(bad.as_bytes());
            assert!(stream.next().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_messages_an_error_or_waiting(bytes: Vec<u8>) {
            let mut stream = Splitter::default();
            stream.push(&bytes);
            while let Ok(Some(_)) = stream.next() {}
        }

        #[test]
        fn messages_come_out_as_they_went_in(texts in prop::collection::vec(".*", 1..5), cut: usize) {
            let sent: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
            let bytes: String = sent.iter().map(Value::to_string).collect();
            let cut = cut % (bytes.len() + 1);
            let mut stream = Splitter::default();
            stream.push(&bytes.as_bytes()[..cut]);
            let mut found = all(&mut stream);
            stream.push(&bytes.as_bytes()[cut..]);
            found.extend(all(&mut stream));
            prop_assert_eq!(found, sent);
        }
    }
}
