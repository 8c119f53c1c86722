//! Device strings: `DRIVER:TARGET[,KEY=VALUE..]`.
//!
//! Commas separate; a comma that belongs to a path or another value is written twice. Everything
//! else, `:` and `=` too, stands for itself in the target and in values.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use packet::MacAddr;

use crate::port::Error;

/// A parsed device string. Drivers take the options that they know and then call
/// [`finish`](Self::finish), which refuses what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    text: String,
    driver: String,
    target: String,
    options: Vec<(String, String)>,
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (driver, rest) = text.split_once(':').ok_or_else(|| Error::Spec {
            device: text.to_owned(),
            reason: "expected DRIVER:TARGET[,KEY=VALUE..], as in vhost-user:/run/vm1.sock".into(),
        })?;
        let mut parts = split_at_single_commas(rest).into_iter();
        let target = parts.next().unwrap_or_default();
        let mut spec =
            Self { text: text.to_owned(), driver: driver.to_owned(), target, options: Vec::new() };
        if spec.driver.is_empty() {
            return Err(spec.error("expected the name of a driver before ':'"));
        }
        if text.contains('\0') {
            return Err(spec.error("no part of it may contain a NUL character"));
        }
        parts.try_for_each(|part| spec.add_option(&part))?;
        Ok(spec)
    }
}

/// Splits at commas, except double ones, which become single ones.
fn split_at_single_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(next) = chars.next() {
        if next == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(next);
        }
    }
    parts
}

impl DeviceSpec {
    /// The driver's name.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// What comes behind the driver's name: a path, an interface; may be empty.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What comes behind the driver's name, for drivers that need it.
    ///
    /// # Errors
    /// When it is empty; the error says that `expected` was expected.
    pub fn require_target(&self, expected: &str) -> Result<&str, Error> {
        if self.target.is_empty() {
            Err(self.error(format!("expected {expected} after '{}:'", self.driver)))
        } else {
            Ok(&self.target)
        }
    }

    /// For drivers that can do without a target: if what stands in its place is an option, one
    /// of `keys`, makes it an option, so that `null:size=64` means `null:,size=64`.
    ///
    /// # Errors
    /// When that option is given a second time.
    pub fn allow_option_as_target(&mut self, keys: &[&str]) -> Result<(), Error> {
        let key = self.target.split_once('=').map(|(key, _)| key);
        if key.is_some_and(|key| keys.contains(&key)) {
            let option = std::mem::take(&mut self.target);
            self.add_option(&option)?;
        }
        Ok(())
    }

    fn add_option(&mut self, part: &str) -> Result<(), Error> {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key, value),
            _ => {
                return Err(self.error(format!(
                    "expected KEY=VALUE, found '{part}' (a comma within a path is written ',,')"
                )));
            }
        };
        if self.options.iter().any(|(other, _)| other == key) {
            return Err(self.error(format!("option '{key}' is given twice")));
        }
        self.options.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The string as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An error about this device string.
    #[must_use]
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Spec { device: self.text.clone(), reason: reason.into() }
    }

    /// Takes option `key` out of the string.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let index = self.options.iter().position(|(other, _)| other == key)?;
        Some(self.options.remove(index).1)
    }

    /// Takes option `key` as a number, an address, or whatever parses; `None` when absent.
    ///
    /// # Errors
    /// When the value does not parse; the error names the key, the value and `expected`.
    pub fn take_optional<T: FromStr>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let wrong = || self.error(format!("{key}={value}: expected {expected}"));
        value.parse().map(Some).map_err(|_| wrong())
    }

    /// As [`take_optional`](Self::take_optional), with a `default` for an absent option.
    ///
    /// # Errors
    /// As there.
    pub fn take_parsed<T: FromStr>(
        &mut self,
        key: &str,
        default: T,
        expected: &str,
    ) -> Result<T, Error> {
        Ok(self.take_optional(key, expected)?.unwrap_or(default))
    }

    /// Takes option `key` as the address of one station; `None` when absent.
    ///
    /// # Errors
    /// When the value is no address, or that of a group or of nobody; the error names it.
    pub fn take_station(&mut self, key: &str) -> Result<Option<MacAddr>, Error> {
        match self.take_optional::<MacAddr>(key, "an address such as 02:00:00:00:00:01")? {
            Some(mac) if !mac.is_station() => {
                Err(self.error(format!("{key}={mac}: expected the address of one station")))
            }
            mac => Ok(mac),
        }
    }

    /// Takes option `key` as a number within `bounds`; `None` when absent.
    ///
    /// # Errors
    /// When the value is no number or out of bounds; the error names all of these.
    pub fn take_optional_number<T: FromStr + PartialOrd + Display>(
        &mut self,
        key: &str,
        bounds: &RangeInclusive<T>,
    ) -> Result<Option<T>, Error> {
        let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
        match self.take_optional(key, &expected)? {
            Some(number) if !bounds.contains(&number) => {
                Err(self.error(format!("{key}={number}: expected {expected}")))
            }
            number => Ok(number),
        }
    }

    /// As [`take_optional_number`](Self::take_optional_number), with a `default` for an absent
    /// option.
    ///
    /// # Errors
    /// As there.
    pub fn take_number<T: FromStr + PartialOrd + Display>(
        &mut self,
        key: &str,
        default: T,
        bounds: &RangeInclusive<T>,
    ) -> Result<T, Error> {
        Ok(self.take_optional_number(key, bounds)?.unwrap_or(default))
    }

    /// As [`take_switch`](Self::take_switch), with `None` for an absent option.
    ///
    /// # Errors
    /// As there.
    pub fn take_optional_switch(&mut self, key: &str) -> Result<Option<bool>, Error> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("on" | "yes" | "1" | "true") => Ok(Some(true)),
            Some("off" | "no" | "0" | "false") => Ok(Some(false)),
            Some(other) => Err(self.error(format!("{key}={other}: expected on or off"))),
        }
    }

    /// Takes option `key` as a switch: `on`/`off`, `yes`/`no`, `1`/`0`, `true`/`false`.
    ///
    /// # Errors
    /// When the value is none of these.
    pub fn take_switch(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        Ok(self.take_optional_switch(key)?.unwrap_or(default))
    }

    /// Refuses options that no `take` has taken; `known` lists the driver's options for the
    /// message.
    ///
    /// # Errors
    /// Names the first unknown option.
    pub fn finish(self, known: &str) -> Result<(), Error> {
        match self.options.first() {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("unknown option '{key}'; {} takes {known}", self.driver);
                Err(self.error(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> DeviceSpec {
        text.parse().unwrap()
    }

    fn refusal(text: &str) -> String {
        text.parse::<DeviceSpec>().unwrap_err().to_string()
    }

    #[test]
    fn the_parts_are_told_apart() {
        let mut spec = parse("vhost-user:/run/vm=1:a,,b.sock,queues=2,client=on,note=a=b,,c");
        assert_eq!(spec.driver(), "vhost-user");
        assert_eq!(spec.target(), "/run/vm=1:a,b.sock");
        assert_eq!(spec.take_number("queues", 1, &(1..=8)).unwrap(), 2);
        assert!(spec.take_switch("client", false).unwrap());
        assert_eq!(spec.take("note").as_deref(), Some("a=b,c"));
        assert_eq!(spec.take("note"), None);
        spec.finish("queues, client and note").unwrap();
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused_with_a_reason() {
        assert!(refusal("eth0").contains("expected DRIVER:TARGET"));
        assert!(refusal(":x").contains("name of a driver"));
        assert!(refusal("tap:a,queues").contains("found 'queues'"));
        assert!(refusal("tap:/a,b.sock").contains("',,'"));
        assert!(refusal("tap:a,=2").contains("found '=2'"));
        assert!(refusal("tap:a,").contains("found ''"));
        assert!(refusal("tap:a,mtu=1,mtu=2").contains("'mtu' is given twice"));
        assert!(refusal("tap:a\0b").contains("NUL"));
    }

    #[test]
    fn an_empty_target_is_for_the_driver_to_judge() {
        assert_eq!(parse("null:").target(), "");
        assert!(parse("null:").require_target("a path").is_err());
        let error = parse("tap:,mtu=3").require_target("the name of an interface").unwrap_err();
        assert!(error.to_string().contains("expected the name of an interface after 'tap:'"));
        assert_eq!(parse("tap:x").require_target("a name").unwrap(), "x");
    }

    #[test]
    fn an_option_may_stand_where_no_target_is_needed() {
        let mut spec = parse("null:size=64,rx=on");
        spec.allow_option_as_target(&["size"]).unwrap();
        assert_eq!(spec.target(), "");
        assert_eq!(spec.take("size").as_deref(), Some("64"));
        let mut path = parse("pcap:/tmp/a=b");
        path.allow_option_as_target(&["size"]).unwrap();
        assert_eq!(path.target(), "/tmp/a=b");
        let mut twice = parse("null:size=64,size=65");
        assert!(twice.allow_option_as_target(&["size"]).is_err());
    }

    #[test]
    fn values_are_checked() {
        let text = "tap:x,queues=9,mtu=a,up=maybe,left=1";
        let mut spec = parse(text);
        let error = spec.take_number("queues", 1, &(1..=8)).unwrap_err().to_string();
        assert!(error.contains("queues=9: expected a number from 1 to 8"), "{error}");
        assert!(error.contains(text), "{error}");
        assert!(
            spec.take_parsed("mtu", 1500_u16, "bytes").unwrap_err().to_string().contains("mtu=a")
        );
        assert!(spec.take_switch("up", true).unwrap_err().to_string().contains("up=maybe"));
        assert_eq!(spec.take_number("absent", 7, &(1..=8)).unwrap(), 7);
        let error = spec.finish("queues, mtu and up").unwrap_err().to_string();
        assert!(error.contains("unknown option 'left'; tap takes queues, mtu and up"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", keys in prop::collection::vec("[a-z]*", 0..3)) {
            if let Ok(mut spec) = text.parse::<DeviceSpec>() {
                prop_assert_eq!(spec.text(), &text);
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                let _ = spec.allow_option_as_target(&keys);
                for key in keys {
                    let _ = spec.take_number(key, 1_u16, &(0..=9));
                }
                let _ = spec.finish("nothing");
            }
        }

        #[test]
        fn anything_can_be_a_target_or_a_value(
            target in "[^\0]{0,40}",
            values in prop::collection::btree_map("[a-z]{1,8}", "[^\0]{0,40}", 0..5),
        ) {
            let mut text = format!("driver:{}", target.replace(',', ",,"));
            for (key, value) in &values {
                text += &format!(",{key}={}", value.replace(',', ",,"));
            }
            let mut spec: DeviceSpec = text.parse().unwrap();
            prop_assert_eq!(spec.target(), target);
            for (key, value) in values {
                prop_assert_eq!(spec.take(&key), Some(value));
            }
            prop_assert!(spec.finish("").is_ok());
        }
    }
}
