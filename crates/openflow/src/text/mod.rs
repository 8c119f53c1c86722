//! What people write: matches, actions and flows in the syntax of ovs-ofctl.
//!
//! ```
//! use openflow::text::{Names, flow_mod};
//! use openflow::message::flow_mod::Command;
//!
//! let names = Names::NONE;
//! let flow = flow_mod("table=1,tcp,in_port=2,actions=mod_vlan_vid:5,normal", Command::Add, names)?;
//! assert_eq!(flow.matching.to_string(), "tcp,in_port=2");
//! assert_eq!(flow.instructions.to_string(), "mod_vlan_vid:5,NORMAL");
//! let error = flow_mod("tcp,tp_dst=http,actions=drop", Command::Add, names).unwrap_err();
//! assert_eq!(error.to_string(), "tp_dst: 'http' is no number");
//! # Ok::<(), openflow::text::TextError>(())
//! ```
//!
//! - `action`: actions and instructions
//! - `flow`: flows and changes of them
//! - `large`: the actions that consist of more
//! - `pairs`: names with values
//! - `value`: values of fields

mod action;
mod flow;
mod large;
mod pairs;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::str::FromStr;

use crate::instruction::Instructions;
use crate::matching::Match;
use crate::port_no::PortNo;

pub use action::instructions;
pub use flow::{flow_mod, matching};
pub use value::subfield;

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

impl TextError {
    /// An error that says this.
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }

    /// The same, about something by name.
    fn about(self, name: &str) -> Self {
        Self(format!("{name}: {}", self.0))
    }
}

/// Names that a bridge gives: which port has one.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The port of this name, if there is one.
    pub port: &'a dyn Fn(&str) -> Option<PortNo>,
}

impl Names<'_> {
    /// No names but those that all have.
    pub const NONE: Self = Self { port: &|_| None };
}

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// A match without names of ports.
impl FromStr for Match {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        matching(text, Names::NONE)
    }
}

/// Instructions without names of ports.
impl FromStr for Instructions {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        instructions(text, Names::NONE)
    }
}
