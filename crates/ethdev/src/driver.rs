//! What a driver says of itself, and what it gives when it opens a port.

use std::fmt;

use crate::port::{Port, PortControl};
use crate::queue::{RxQueue, TxQueue};

/// A port that was just opened, and its queues for the workers.
///
/// Dropping the port closes the device; the queues then carry nothing any more.
#[derive(Debug)]
pub struct OpenPort {
    /// The control side.
    pub port: Port,
    /// Receive queues, by number.
    pub rx: Vec<RxQueue>,
    /// Transmit queues, by number.
    pub tx: Vec<TxQueue>,
}

impl OpenPort {
    /// A port of a driver's control side and its queues.
    #[must_use]
    pub fn new(
        name: &str,
        device: &str,
        control: Box<dyn PortControl>,
        rx: Vec<RxQueue>,
        tx: Vec<TxQueue>,
    ) -> Self {
        Self { port: Port::new(name, device, control, &rx, &tx), rx, tx }
    }
}

/// What a person needs to know about a kind of port.
#[derive(Clone, Copy, Debug)]
pub struct DriverInfo {
    /// The driver's name: what a device string begins with.
    pub name: &'static str,
    /// The device string's form.
    pub syntax: &'static str,
    /// What the port is, in one line.
    pub summary: &'static str,
    /// Its options.
    pub options: &'static [OptionInfo],
}

impl DriverInfo {
    /// The names of the options, for messages: `queues, mtu and mac`.
    #[must_use]
    pub fn option_names(&self) -> String {
        match self.options {
            [] => "no options".to_owned(),
            [only] => only.name.to_owned(),
            [most @ .., last] => {
                let most: Vec<&str> = most.iter().map(|option| option.name).collect();
                format!("{} and {}", most.join(", "), last.name)
            }
        }
    }
}

impl fmt::Display for DriverInfo {
    /// As a help page shows it, over several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n    {}", self.syntax, self.summary)?;
        for option in self.options {
            writeln!(f, "      {:16} {}", option.form(), option.help)?;
        }
        Ok(())
    }
}

/// An option in a device string.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// Its key.
    pub name: &'static str,
    /// What stands for the value in help: `N`, `on|off`.
    pub value: &'static str,
    /// What it does, its default and its bounds, in one line.
    pub help: &'static str,
}

impl OptionInfo {
    /// An option `name` whose value is on or off.
    #[must_use]
    pub const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, value: "on|off", help }
    }

    fn form(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}
