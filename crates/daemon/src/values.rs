//! TOML as the values that JSON has, and back. States and their parts become what they are by way of
//! those alone, whatever they come from: each type is compiled for one format, and not for several.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Key, Table, TableLike};

use crate::object;

/// Tables within tables of a file at most. What is a state needs a handful.
const MOST_NESTED: usize = 32;

/// What is wrong with a value, and which bytes of the text are that, where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Option<Range<usize>>,
    pub(crate) message: String,
}

/// What `item` of a document says, as a `T`.
///
/// # Errors
/// What is no `T`, or no value of JSON; of several the first one.
pub(crate) fn read<T: DeserializeOwned>(item: &Item) -> Result<T, Fault> {
    let value = value_of(item, 0)?;
    let parse = |value| object::read::<T>(value).map_err(|error| error.to_string());
    // The value is there for the case that something is wrong with it, too.
    parse(value.clone()).map_err(|message| {
        let fails = |value| parse(value).err().as_ref() == Some(&message);
        let span = place(&value, fails).and_then(|path| span_at(item, &path));
        Fault { span, message }
    })
}

/// What `item` says.
///
/// # Errors
/// JSON has no such value.
pub(crate) fn plain(item: &Item) -> Result<Value, Fault> {
    value_of(item, 0)
}

fn value_of(item: &Item, depth: usize) -> Result<Value, Fault> {
    let wrong = |message: &str| Fault { span: item.span(), message: message.to_owned() };
    if depth > MOST_NESTED {
        return Err(wrong("too many tables within each other"));
    }
    if let Some(table) = item.as_table_like() {
        let parts = table.iter().map(|(key, item)| {
            value_of(item, depth.saturating_add(1)).map(|value| (key.to_owned(), value))
        });
        return parts.collect::<Result<Map<String, Value>, Fault>>().map(Value::Object);
    }
    if let Some(parts) = elements(item) {
        let parts = parts.iter().map(|item| value_of(item, depth.saturating_add(1)));
        return parts.collect::<Result<Vec<Value>, Fault>>().map(Value::Array);
    }
    let plain = item.as_value().and_then(|value| {
        let text = value.as_str().map(Value::from);
        text.or_else(|| value.as_bool().map(Value::from))
            .or_else(|| value.as_integer().map(Value::from))
            .or_else(|| serde_json::Number::from_f64(value.as_float()?).map(Value::Number))
    });
    plain.ok_or_else(|| wrong("expected a text, a number, a boolean, an array or a table"))
}

/// The elements of an array, of either kind.
fn elements(item: &Item) -> Option<Vec<Item>> {
    match item {
        Item::ArrayOfTables(tables) => Some(tables.iter().cloned().map(Item::Table).collect()),
        item => {
            let array = item.as_array()?;
            Some(array.iter().cloned().map(Item::Value).collect())
        }
    }
}

/// Where in `value` the first fault is, as the numbers of the parts on the way there. `fails` says
/// whether a value has that fault; who reads a value takes its parts one after the other, so one that
/// ends before the fault has another, or none.
fn place(value: &Value, fails: impl Fn(Value) -> bool) -> Option<Vec<usize>> {
    let mut path = Vec::new();
    let mut part = value;
    loop {
        let len = match part {
            Value::Object(parts) => parts.len(),
            Value::Array(parts) => parts.len(),
            _ => 0,
        };
        let lens: Vec<usize> = (0..=len).collect();
        let needed = lens.partition_point(|len| !fails(upto(value, &path, *len)));
        // It is there with none of its parts: something is missing, or what it is itself is wrong.
        let Some(last) = needed.checked_sub(1) else { return Some(path) };
        part = match part {
            Value::Object(parts) => parts.values().nth(last)?,
            Value::Array(parts) => parts.get(last)?,
            _ => return None,
        };
        path.push(last);
    }
}

/// `value` up to the part that `path` leads to, and of that the first `len` parts.
fn upto(value: &Value, path: &[usize], len: usize) -> Value {
    let (last, whole) =
        path.split_first().map_or((None, len), |(last, rest)| (Some((*last, rest)), *last));
    match value {
        Value::Object(parts) => {
            let cut = last.and_then(|(last, rest)| {
                parts.iter().nth(last).map(|(key, part)| (key.clone(), upto(part, rest, len)))
            });
            let before = parts.iter().take(whole).map(|(key, part)| (key.clone(), part.clone()));
            Value::Object(before.chain(cut).collect())
        }
        Value::Array(parts) => {
            let cut = last.and_then(|(last, rest)| Some(upto(parts.get(last)?, rest, len)));
            Value::Array(parts.iter().take(whole).cloned().chain(cut).collect())
        }
        plain => plain.clone(),
    }
}

/// Where in the text the part of `item` is that `path` leads to.
fn span_at(item: &Item, path: &[usize]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    if let Some(table) = item.as_table_like() {
        let (key, item) = table.iter().nth(*first)?;
        return if rest.is_empty() { span_of(table, key, item) } else { span_at(item, rest) };
    }
    let part = elements(item)?.into_iter().nth(*first)?;
    if rest.is_empty() { part.span() } else { span_at(&part, rest) }
}

/// Where in the text `item` is, which `table` has as `key`. Nothing stands for a table that its own
/// tables imply.
pub(crate) fn span_of(table: &dyn TableLike, key: &str, item: &Item) -> Option<Range<usize>> {
    let key = table.key(key).and_then(Key::span);
    match item {
        Item::Table(table) if table.is_implicit() => None,
        Item::Table(table) => table.span().or(key),
        _ => key.or_else(|| item.span()),
    }
}

/// `wanted` as a file.
///
/// # Errors
/// It is no table.
pub(crate) fn document(wanted: &impl Serialize) -> Result<DocumentMut, String> {
    match serde_json::to_value(wanted) {
        Ok(Value::Object(parts)) => Ok(DocumentMut::from(table(parts))),
        Ok(_) => Err("it is no table".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn table(parts: Map<String, Value>) -> Table {
    let mut table = Table::new();
    let is_nothing_but_tables = !parts.is_empty() && parts.values().all(Value::is_object);
    table.set_implicit(is_nothing_but_tables);
    for (key, part) in parts {
        let item = match part {
            Value::Object(parts) => Some(Item::Table(self::table(parts))),
            part => value(part).map(Item::Value),
        };
        if let Some(item) = item {
            table.insert(&key, item);
        }
    }
    table
}

/// A value; `None` for null, which TOML has not.
fn value(value: Value) -> Option<toml_edit::Value> {
    match value {
        Value::Null => None,
        Value::Bool(value) => Some(value.into()),
        Value::Number(number) => match number.as_i64() {
            Some(value) => Some(value.into()),
            // TOML has no larger integers, and as a float it would not be read again.
            None if number.is_u64() => Some(i64::MAX.into()),
            None => number.as_f64().map(Into::into),
        },
        Value::String(text) => Some(text.into()),
        Value::Array(parts) => {
            Some(parts.into_iter().filter_map(self::value).collect::<Array>().into())
        }
        Value::Object(parts) => {
            let parts = parts.into_iter();
            let parts = parts.filter_map(|(key, part)| Some((key, self::value(part)?)));
            Some(parts.collect::<InlineTable>().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use toml_edit::Document;

    use super::*;

    #[test]
    fn a_document_says_what_it_says() {
        let text = "a = 1\nb = [2.5, { c = true }]\n[d.e]\nf = 'x'\n[[g]]\nh = -1\n[[g]]\n";
        let document = Document::parse(text).unwrap();
        let expected = json!({
            "a": 1,
            "b": [2.5, { "c": true }],
            "d": { "e": { "f": "x" } },
            "g": [{ "h": -1 }, {}],
        });
        assert_eq!(plain(document.as_item()), Ok(expected));
    }

    #[test]
    fn what_json_has_not_is_refused_where_it_stands() {
        for wrong in ["1979-05-27", "inf", "nan"] {
            let text = format!("a = 1\nb = [1, {wrong}]\n");
            let document = Document::parse(text.as_str()).unwrap();
            let fault = plain(document.as_item()).unwrap_err();
            assert_eq!(fault.span, Some(14..14 + wrong.len()), "{fault:?}");
        }
        let deep = format!("{}a = 1\n", "a.".repeat(MOST_NESTED + 1));
        let document = Document::parse(deep.as_str()).unwrap();
        assert!(plain(document.as_item()).unwrap_err().message.contains("too many"));
    }

    #[test]
    fn an_integer_stays_one_however_large_it_is() {
        for large in [i64::MAX.cast_unsigned(), 1 << 63, u64::MAX] {
            let text = document(&json!({ "a": [{ "b": large }] })).unwrap().to_string();
            let read = Document::parse(text.as_str()).unwrap();
            assert_eq!(plain(read.as_item()), Ok(json!({ "a": [{ "b": i64::MAX }] })), "{text}");
        }
    }

    fn any_plain() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~äß\n\t]{0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |part| {
            prop_oneof![
                proptest::collection::vec(part.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec(("[a-z.\" ]{0,4}", part), 0..6)
                    .prop_map(|parts| Value::Object(parts.into_iter().collect())),
            ]
        })
    }

    /// The value whose texts are all shorter than eight bytes; as a reader it stops at the first that
    /// is not.
    #[derive(Debug, PartialEq)]
    struct Short;

    impl<'de> serde::Deserialize<'de> for Short {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let value = Value::deserialize(deserializer)?;
            first_long(&value, &mut Vec::new()).map_or(Ok(Self), |(_, text)| {
                Err(serde::de::Error::custom(format!("{text:?} is too long")))
            })
        }
    }

    fn first_long(value: &Value, path: &mut Vec<usize>) -> Option<(Vec<usize>, String)> {
        let parts: Vec<&Value> = match value {
            Value::String(text) if text.len() >= 8 => return Some((path.clone(), text.clone())),
            Value::Object(parts) => parts.values().collect(),
            Value::Array(parts) => parts.iter().collect(),
            _ => Vec::new(),
        };
        for (index, part) in parts.into_iter().enumerate() {
            path.push(index);
            let found = first_long(part, path);
            if found.is_some() {
                return found;
            }
            path.pop();
        }
        None
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(parts in proptest::collection::vec(("[a-z.]{0,4}", any_plain()), 0..6)) {
            let wanted = Value::Object(parts.into_iter().collect());
            let text = document(&wanted).unwrap().to_string();
            let read = Document::parse(text.as_str()).map_err(|error| error.to_string());
            prop_assert_eq!(plain(read.unwrap().as_item()), Ok(wanted), "{}", text);
        }

        #[test]
        fn the_place_of_a_fault_is_found(value in any_plain()) {
            let parse = |value| serde_json::from_value::<Short>(value).err().map(|e| e.to_string());
            if let Some(message) = parse(value.clone()) {
                let found = place(&value, |value| parse(value).as_ref() == Some(&message));
                prop_assert_eq!(found, first_long(&value, &mut Vec::new()).map(|(path, _)| path));
            }
        }
    }
}
