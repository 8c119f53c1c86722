//! Lists of addresses in configuration files and messages: texts, each checked by itself, so that a
//! mistake is found in its line.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use ordered::Gather as _;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a list of texts.
pub(super) fn serialize<T: Display, S: Serializer>(
    set: &BTreeSet<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(set.iter().map(ToString::to_string))
}

/// Reads one.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<BTreeSet<T>, D::Error>
where
    T: FromStr<Err: Display> + Ord,
    D: Deserializer<'de>,
{
    let all = Vec::<Text<T>>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|Text(value)| value).gather())
}

/// A text that was read as what it stands for.
struct Text<T>(T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData)).map(Self)
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an address between quotes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|error| E::custom(format!("{error}")))
    }
}
