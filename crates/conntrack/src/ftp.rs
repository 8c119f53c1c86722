//! What packets of FTP's control connections announce: to which port of its sender a connection will come
//! (RFC 959, sections 4.1.2 and 4.2; RFC 2428).
//!
//! Only what is at the start of a segment is looked at, and all of it has to be in that one. Nothing in it is
//! believed: numbers have as many digits as they can have, and what follows them has to be there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Bytes of a message that are looked at.
pub(crate) const MOST: usize = 128;

/// Digits of an address of IPv6, at most (RFC 4291, section 2.2).
const ADDRESS_LEN: usize = 45;

/// What a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing about other connections.
    Nothing,
    /// It should announce one, and nobody can make sense of it.
    Bad,
    /// A connection will come to a port of its sender.
    Port {
        /// The sender's address, if it says that.
        address: Option<IpAddr>,
        /// Where that is in the message.
        place: Range<usize>,
        /// Whether it has commas in place of dots.
        has_commas: bool,
        port: u16,
    },
}

/// What a segment of a client says, or of a server.
pub(crate) fn said(bytes: &[u8], is_server: bool, is_v6: bool) -> Said {
    let bytes = bytes.get(..MOST).unwrap_or(bytes);
    let message = Message { bytes, at: 0 };
    let has =
        |word: &[u8]| bytes.get(..word.len()).is_some_and(|own| own.eq_ignore_ascii_case(word));
    let announced = match is_server {
        false if has(b"PORT ") && !is_v6 => message.behind(5).port(),
        false if has(b"EPRT ") => message.behind(5).extended_port(is_v6),
        // Somewhere in a line for people (RFC 1123, section 4.1.2.6).
        true if has(b"227 ") && !is_v6 => message.behind(4).port(),
        true if has(b"229 ") => message.behind(4).extended_passive(),
        _ => return Said::Nothing,
    };
    announced.unwrap_or(Said::Bad)
}

/// A message, and how far it was read.
#[derive(Clone, Debug)]
struct Message<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl Message<'_> {
    const fn behind(self, at: usize) -> Self {
        Self { at, ..self }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Goes on to the first byte that is meant, in the same line.
    fn skip_to(&mut self, is_meant: impl Fn(u8) -> bool) -> Option<()> {
        while !is_meant(self.peek().filter(|byte| !matches!(byte, b'\r' | b'\n'))?) {
            self.at += 1;
        }
        Some(())
    }

    /// A number of so many digits at most. Something has to be behind it, so that it is all there.
    fn number(&mut self, digits: usize, most: u32) -> Option<u32> {
        let start = self.at;
        let mut number = 0_u32;
        while let Some(digit) = self.peek()?.checked_sub(b'0').filter(|digit| *digit <= 9) {
            number = number.checked_mul(10)?.checked_add(digit.into())?;
            self.at += 1;
            if self.at - start > digits {
                return None;
            }
        }
        (self.at > start && number <= most).then_some(number)
    }

    fn byte(&mut self) -> Option<u8> {
        u8::try_from(self.number(3, 255)?).ok()
    }

    fn comma(&mut self) -> Option<()> {
        (self.next()? == b',').then_some(())
    }

    /// Address and port as six numbers with commas (RFC 959, section 4.1.2).
    fn port(mut self) -> Option<Said> {
        self.skip_to(|byte| byte.is_ascii_digit())?;
        let start = self.at;
        let mut address = [0; 4];
        let mut end = start;
        for part in &mut address {
            *part = self.byte()?;
            end = self.at;
            self.comma()?;
        }
        let high = self.byte()?;
        self.comma()?;
        let port = u16::from_be_bytes([high, self.byte()?]);
        let address = Some(Ipv4Addr::from(address).into());
        (port != 0).then_some(Said::Port { address, place: start..end, has_commas: true, port })
    }

    /// A kind of address, an address and a port between delimiters (RFC 2428, section 2).
    fn extended_port(mut self, is_v6: bool) -> Option<Said> {
        let mark = self.delimiter()?;
        if self.number(1, 9)? != if is_v6 { 2 } else { 1 } || self.next()? != mark {
            return None;
        }
        let start = self.at;
        self.skip_to(|byte| byte == mark)?;
        let place = start..self.at;
        let text = self.bytes.get(place.clone()).filter(|text| text.len() <= ADDRESS_LEN)?;
        let text = str::from_utf8(text).ok()?;
        let address: IpAddr = match is_v6 {
            false => text.parse::<Ipv4Addr>().ok()?.into(),
            true => text.parse::<Ipv6Addr>().ok()?.into(),
        };
        self.next()?;
        let port = self.extended_number(mark)?;
        Some(Said::Port { address: Some(address), place, has_commas: false, port })
    }

    /// A port behind three delimiters in parentheses, somewhere in a line for people (RFC 2428, section 3).
    fn extended_passive(mut self) -> Option<Said> {
        self.skip_to(|byte| byte == b'(')?;
        self.next()?;
        let mark = self.delimiter()?;
        if self.next()? != mark || self.next()? != mark {
            return None;
        }
        let port = self.extended_number(mark)?;
        let said = Said::Port { address: None, place: 0..0, has_commas: false, port };
        (self.next()? == b')').then_some(said)
    }

    fn delimiter(&mut self) -> Option<u8> {
        self.next().filter(|mark| mark.is_ascii_graphic() && !mark.is_ascii_digit())
    }

    fn extended_number(&mut self, mark: u8) -> Option<u16> {
        let port = u16::try_from(self.number(5, u16::MAX.into())?).ok()?;
        (self.next()? == mark && port != 0).then_some(port)
    }
}

#[cfg(test)]
mod tests;
