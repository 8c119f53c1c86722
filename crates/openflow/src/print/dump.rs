//! Bytes in rows of 16, as numbers and as letters.

use std::fmt::Write as _;

/// Bytes of a row.
const ROW: usize = 16;

/// All bytes: `00000000  01 02 ... 08-09 ... 10 |................|`.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, row) in bytes.chunks(ROW).enumerate() {
        let _ = write!(text, "{:08x}  ", number.saturating_mul(ROW));
        for at in 0..ROW {
            let behind = if at == ROW / 2 - 1 { '-' } else { ' ' };
            let _ = match row.get(at) {
                Some(byte) => write!(text, "{byte:02x}{behind}"),
                None => write!(text, "   "),
            };
        }
        text.push('|');
        text.extend(row.iter().map(|byte| letter(*byte)));
        text.extend(std::iter::repeat_n(' ', ROW.saturating_sub(row.len())));
        text.push_str("|\n");
    }
    text
}

const fn letter(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_wide_as_those_of_ovs() {
        let rows = hex(&[0x41; 24]);
        let expected = "00000000  41 41 41 41 41 41 41 41-41 41 41 41 41 41 41 41 |AAAAAAAAAAAAAAAA|\n\
                        00000010  41 41 41 41 41 41 41 41-                        |AAAAAAAA        |\n";
        assert_eq!(rows, expected);
        assert_eq!(hex(&[0, 0x20]).split('|').nth(1), Some(".               "));
    }
}
