//! Values that are written as text: groups, permissions, lists of cores.

use std::fmt::Display;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

fn read<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map(Some).map_err(D::Error::custom)
}

fn write<S: Serializer>(text: Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => serializer.serialize_str(&text),
        None => serializer.serialize_none(),
    }
}

/// A group, by name or number; written as a number.
pub(crate) mod group {
    use super::{Deserializer, Serializer, read, write};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        read(from, eal::access::parse_group)
    }

    #[allow(clippy::ref_option, reason = "as serde calls it")]
    pub(crate) fn serialize<S: Serializer>(group: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
        write(group.map(|group| group.to_string()), to)
    }
}

/// Permissions in octal.
pub(crate) mod mode {
    use super::{Deserializer, Serializer, read, write};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        read(from, eal::access::parse_mode)
    }

    #[allow(clippy::ref_option, reason = "as serde calls it")]
    pub(crate) fn serialize<S: Serializer>(mode: &Option<u32>, to: S) -> Result<S::Ok, S::Error> {
        write(mode.map(|mode| format!("{mode:04o}")), to)
    }
}

/// A path or an address, as [`Endpoint`](crate::metrics::Endpoint).
pub(crate) mod endpoint {
    use super::{Deserializer, Serializer, read, write};
    use crate::metrics::Endpoint;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Endpoint>, D::Error> {
        read(from, str::parse::<Endpoint>)
    }

    #[allow(clippy::ref_option, reason = "as serde calls it")]
    pub(crate) fn serialize<S: Serializer>(
        endpoint: &Option<Endpoint>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        write(endpoint.as_ref().map(ToString::to_string), to)
    }
}

/// A list of cores, as in `0-3,5`.
pub(crate) mod cores {
    use eal::CoreList;

    use super::{Deserializer, Serializer, read, write};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<CoreList>, D::Error> {
        read(from, str::parse::<CoreList>)
    }

    #[allow(clippy::ref_option, reason = "as serde calls it")]
    pub(crate) fn serialize<S: Serializer>(
        cores: &Option<CoreList>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        write(cores.as_ref().map(ToString::to_string), to)
    }
}
