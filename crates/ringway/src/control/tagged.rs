//! Enums of which JSON has the name of a variant as one member beside those of the variant.
//!
//! `serde(tag = "..")` would do the same, with another copy of all code that reads what is in them: for what
//! it keeps until it has found the tag (docs/decisions/0035).

use serde_json::{Map, Value};

/// The name of a variant and its members, of a value by serde's usual way: an object whose only member has
/// the name of the variant, and all that is in it.
///
/// # Errors
/// It cannot be written at all.
pub fn split(
    whole: Result<Value, serde_json::Error>,
) -> Result<(String, Map<String, Value>), serde_json::Error> {
    let member = match whole? {
        Value::Object(whole) => whole.into_iter().next(),
        _ => None,
    };
    Ok(match member {
        Some((name, Value::Object(members))) => (name, members),
        other => (other.map(|(name, _)| name).unwrap_or_default(), Map::new()),
    })
}

/// The opposite: takes the member `tag` out of `members`, for a value of serde's usual way.
///
/// # Errors
/// There is none, or it is no text.
pub fn join<E: serde::de::Error>(
    tag: &'static str,
    what: &str,
    mut members: Map<String, Value>,
) -> Result<Value, E> {
    let name = members.shift_remove(tag).ok_or_else(|| E::missing_field(tag))?;
    let name =
        name.as_str().ok_or_else(|| E::custom(format!("{tag} is {name}: expected {what}")))?;
    Ok(Value::Object(Map::from_iter([(name.to_owned(), Value::Object(members))])))
}
