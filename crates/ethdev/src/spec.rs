//! Device strings: `DRIVER:TARGET[,KEY=VALUE..]`.

use std::str::FromStr;

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
        let mut parts = rest.split(',');
        let target = parts.next().unwrap_or_default().to_owned();
        let mut spec =
            Self { text: text.to_owned(), driver: driver.to_owned(), target, options: Vec::new() };
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| spec.error(format!("expected KEY=VALUE, found '{part}'")))?;
            if spec.options.iter().any(|(other, _)| other == key) {
                return Err(spec.error(format!("option '{key}' is given twice")));
            }
            spec.options.push((key.to_owned(), value.to_owned()));
        }
        Ok(spec)
    }
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

    /// Takes option `key` as a number, an address, or whatever parses; `default` when absent.
    ///
    /// # Errors
    /// When the value does not parse; the error names the key, the value and `expected`.
    pub fn take_parsed<T: FromStr>(
        &mut self,
        key: &str,
        default: T,
        expected: &str,
    ) -> Result<T, Error> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => {
                value.parse().map_err(|_| self.error(format!("{key}={value}: expected {expected}")))
            }
        }
    }

    /// Takes option `key` as a switch: `on`/`off`, `yes`/`no`, `1`/`0`, `true`/`false`.
    ///
    /// # Errors
    /// When the value is none of these.
    pub fn take_switch(&mut self, key: &str, default: bool) -> Result<bool, Error> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("on" | "yes" | "1" | "true") => Ok(true),
            Some("off" | "no" | "0" | "false") => Ok(false),
            Some(other) => Err(self.error(format!("{key}={other}: expected on or off"))),
        }
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
