//! Options that are settings of the configuration file: by tables, since all that becomes of them is that
//! their values get the keys of the file.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::Bound;
use std::str::FromStr;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{parse_number, parse_switch};
use crate::exit::Failure;

/// What has settings.
pub trait Table {
    /// The group of its options, for those that do not go with any of them.
    const NAME: &str;
    /// The settings that are options.
    const SETTINGS: &[Setting];
}

/// A setting that is an option.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the configuration file.
    key: &'static str,
    /// The option, without its dashes.
    option: &'static str,
    /// What stands for its value in the help.
    value: &'static str,
    help: &'static str,
    read: Read,
    takes_default: bool,
}

/// What the value of an option may be, and how it is read.
#[derive(Debug)]
pub enum Read {
    /// There is none: the option stands for `true`.
    Flag,
    /// `on` or `off`.
    Switch,
    /// Any text.
    Text,
    /// A whole number from the first on up to the second; `u64::MAX` is no limit.
    Number(u64, u64),
    /// Whatever the function takes; or else what it says was expected.
    By(fn(&str) -> Result<Value, String>),
}

impl Setting {
    /// The setting that has the name of its option in the file, too; `value` stands for its value in the help.
    pub const fn new(option: &'static str, value: &'static str, read: Read) -> Self {
        Self { key: option, option, value, help: "", read, takes_default: false }
    }

    /// One that is on or off.
    pub const fn switch(option: &'static str) -> Self {
        Self::new(option, "on|off", Read::Switch)
    }

    /// One that is on where the option is given.
    pub const fn flag(option: &'static str) -> Self {
        Self::new(option, "", Read::Flag)
    }

    /// Its key in the file, where that is another.
    pub const fn key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// `default` takes it back.
    pub const fn or_default(self) -> Self {
        Self { takes_default: true, ..self }
    }

    /// What `--help` says of it.
    pub const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    fn arg(&'static self) -> Arg {
        let arg = Arg::new(self.option).long(self.option).help(self.help);
        match self.read {
            Read::Flag => arg.action(ArgAction::SetTrue),
            _ => arg
                .value_name(self.value)
                .value_parser(ValueParser::new(move |text: &str| self.read(text))),
        }
    }

    fn read(&self, text: &str) -> Result<Value, String> {
        match (self.read.read(text), self.takes_default) {
            (_, true) if text == "default" => Ok(Value::Null),
            (Err(expected), true) => Err(format!("{expected}, or default")),
            (read, _) => read,
        }
    }

    /// Its value, if it was given.
    fn take(&self, matches: &mut ArgMatches) -> Option<Value> {
        match self.read {
            Read::Flag => matches.get_flag(self.option).then_some(Value::Bool(true)),
            _ => matches.remove_one(self.option),
        }
    }
}

impl Read {
    fn read(&self, text: &str) -> Result<Value, String> {
        match *self {
            Self::Flag | Self::Switch => parse_switch(text).map(Value::Bool),
            Self::Text => Ok(text.into()),
            Self::Number(least, u64::MAX) => {
                parse_number(text, Bound::Included(least), Bound::Unbounded).map(Value::from)
            }
            Self::Number(least, most) => {
                parse_number(text, Bound::Included(least), Bound::Included(most)).map(Value::from)
            }
            Self::By(read) => read(text),
        }
    }
}

/// A [`Read::By`] of values that are written in the file as they are on the command line.
pub fn parsed<T: FromStr<Err: Display> + Serialize>(text: &str) -> Result<Value, String> {
    let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// The settings of `T` that a command line has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings<T> {
    given: Map<String, Value>,
    of: PhantomData<fn() -> T>,
}

impl<T> Settings<T> {
    /// Those that are given, by their keys in the file; `null` is the default.
    pub const fn given(&self) -> &Map<String, Value> {
        &self.given
    }

    /// Those of something new, where the default is nothing to be said.
    pub fn of_new(&self) -> Map<String, Value> {
        let all = self.given.iter().filter(|(_, value)| !value.is_null());
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl<T: DeserializeOwned> Settings<T> {
    /// All settings of something new.
    pub fn whole(&self) -> Result<T, Failure> {
        daemon::object::read(Value::Object(self.of_new())).map_err(Failure::usage)
    }
}

impl<T: Table> Args for Settings<T> {
    fn group_id() -> Option<clap::Id> {
        Some(T::NAME.into())
    }

    fn augment_args(command: Command) -> Command {
        augment(command, T::NAME, T::SETTINGS)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: Table> FromArgMatches for Settings<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { given: take(matches, T::SETTINGS), of: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn augment(command: Command, name: &'static str, settings: &'static [Setting]) -> Command {
    let options = settings.iter().map(|setting| setting.option);
    let group = ArgGroup::new(name).multiple(true).args(options);
    command.group(group).args(settings.iter().map(Setting::arg))
}

fn take(matches: &mut ArgMatches, settings: &[Setting]) -> Map<String, Value> {
    let given = settings.iter().filter_map(|setting| {
        let value = setting.take(matches)?;
        Some((setting.key.to_owned(), value))
    });
    given.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use switch::{PortGuard, PortLimits, PortRstp, PortSnooping, PortVlan};

    use super::*;

    /// What the first setting that the file does not have is called.
    fn unknown<T: Table + DeserializeOwned>() -> Option<String> {
        T::SETTINGS.iter().find_map(|setting| {
            // Nothing that any setting may be.
            let one = json!({ setting.key: {} });
            let error = daemon::object::read::<T>(one).err()?.to_string();
            error.contains("unknown field").then_some(error)
        })
    }

    #[test]
    fn the_file_has_all_settings_that_are_options() {
        assert_eq!(unknown::<PortGuard>(), None);
        assert_eq!(unknown::<PortLimits>(), None);
        assert_eq!(unknown::<PortRstp>(), None);
        assert_eq!(unknown::<PortSnooping>(), None);
        assert_eq!(unknown::<PortVlan>(), None);
    }

    #[test]
    fn values_are_read_and_can_be_taken_back() {
        let number = Setting::new("a", "N", Read::Number(1, 7)).or_default();
        assert_eq!(number.read("7"), Ok(json!(7)));
        assert_eq!(number.read("default"), Ok(Value::Null));
        let expected = "expected a whole number from 1 to 7, or default";
        assert_eq!(number.read("8"), Err(expected.to_owned()));
        let switch = Setting::switch("a");
        assert_eq!(switch.read("on"), Ok(json!(true)));
        assert_eq!(switch.read("default"), Err("expected on or off".to_owned()));
        assert_eq!(Setting::new("a", "NAME", Read::Text).read("default"), Ok(json!("default")));
    }
}
