//! Schemas: which tables and columns a database has (RFC 7047 section 3.2).

use std::collections::BTreeMap;

use ordered::Gather as _;
use serde_json::{Map, Value};

use crate::datum::{Atom, Datum};
use crate::error::Malformed;
use crate::uuid::Uuid;

/// The type of an atom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomType {
    /// A number without fraction, of 64 bits.
    Integer,
    /// A number with fraction.
    Real,
    /// True or false.
    Boolean,
    /// A text.
    String,
    /// The identifier of a row.
    Uuid,
}

impl AtomType {
    /// Its name in a schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Uuid => "uuid",
        }
    }

    const ALL: [Self; 5] = [Self::Integer, Self::Real, Self::Boolean, Self::String, Self::Uuid];

    fn from_json(value: &Value) -> Result<Self, Malformed> {
        // In the long form the type is a member, beside limits that the server looks after.
        let name = value.get("type").unwrap_or(value);
        let name = name.as_str().ok_or_else(|| Malformed::new("a type", value))?;
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| Malformed::new("a type", value))
    }

    /// What a column that must have a value has when nobody gives one (RFC 7047 section 5.2.1).
    fn default_atom(self) -> Atom {
        match self {
            Self::Integer => Atom::Integer(0),
            Self::Real => Atom::Real(0.0),
            Self::Boolean => Atom::Boolean(false),
            Self::String => Atom::String(String::new()),
            Self::Uuid => Atom::Uuid(Uuid::default()),
        }
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// The type of elements, or of the keys of a map.
    pub key: AtomType,
    /// The type of a map's values; `None`: a set.
    pub value: Option<AtomType>,
    /// The fewest elements.
    pub min: usize,
    /// The most elements; `usize::MAX`: no limit.
    pub max: usize,
}

impl ColumnType {
    fn from_json(value: &Value) -> Result<Self, Malformed> {
        let Some(long) = value.as_object() else {
            return Ok(Self { key: AtomType::from_json(value)?, value: None, min: 1, max: 1 });
        };
        let key = long.get("key").ok_or_else(|| Malformed::new("a type with a key", value))?;
        let count = |name: &str| match long.get(name) {
            None => Ok(1),
            Some(count) if count.as_str() == Some("unlimited") => Ok(usize::MAX),
            Some(count) => {
                let count = count.as_u64().and_then(|count| usize::try_from(count).ok());
                count.ok_or_else(|| Malformed::new(format!("a number as {name}"), value))
            }
        };
        Ok(Self {
            key: AtomType::from_json(key)?,
            value: long.get("value").map(AtomType::from_json).transpose()?,
            min: count("min")?,
            max: count("max")?,
        })
    }

    /// What a row has in such a column when nobody gives it a value.
    #[must_use]
    pub fn default_datum(&self) -> Datum {
        match self.value {
            Some(_) => Datum::Map(BTreeMap::new()),
            None if self.min == 0 => Datum::default(),
            None => [self.key.default_atom()].into_iter().collect(),
        }
    }
}

/// A table: its columns by name.
pub type Table = BTreeMap<String, ColumnType>;

/// The schema of a database.
///
/// ```
/// let schema = r#"{"name": "Shop", "version": "1.2.0", "tables":
///     {"Fruit": {"columns": {"name": {"type": "string"}}}}}"#;
/// let schema = ovsdb::Schema::parse(schema).unwrap();
/// assert!(schema.column("Fruit", "name").is_some());
/// assert!(schema.column("Fruit", "colour").is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The database's name.
    pub name: String,
    /// The schema's version, as in `8.3.1`.
    pub version: String,
    /// The tables by name.
    pub tables: BTreeMap<String, Table>,
}

impl Schema {
    /// Reads a schema from its JSON text.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let schema = serde_json::from_str::<Value>(text);
        let schema = schema.map_err(|_| Malformed::of_text("a schema", text))?;
        Self::from_json(&schema)
    }

    /// Reads a schema from JSON.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_json(schema: &Value) -> Result<Self, Malformed> {
        let text = |name: &str| {
            let text = schema.get(name).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| Malformed::new(format!("a schema with a {name}"), schema))
        };
        let tables = schema.get("tables").and_then(Value::as_object);
        let tables = tables.ok_or_else(|| Malformed::new("a schema with tables", schema))?;
        let tables = tables.iter().map(|(name, value)| {
            let table = table(value).map_err(|error| error.within(name))?;
            Ok((name.clone(), table))
        });
        Ok(Self { name: text("name")?, version: text("version")?, tables: tables.try_gather()? })
    }

    /// The type of a column, if there is one.
    #[must_use]
    pub fn column(&self, table: &str, column: &str) -> Option<&ColumnType> {
        self.tables.get(table)?.get(column)
    }
}

fn table(value: &Value) -> Result<Table, Malformed> {
    let columns = value.get("columns").and_then(Value::as_object);
    let columns: &Map<String, Value> =
        columns.ok_or_else(|| Malformed::new("a table with columns", value))?;
    let column = |(name, value): (&String, &Value)| {
        let column = value.get("type").ok_or_else(|| Malformed::new("a column's type", value));
        let column = column.and_then(ColumnType::from_json);
        Ok((name.clone(), column.map_err(|error| error.within(name))?))
    };
    columns.iter().map(column).try_gather()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn short_and_long_types_are_read() {
        let read = |value: Value| ColumnType::from_json(&value).unwrap();
        let one = ColumnType { key: AtomType::String, value: None, min: 1, max: 1 };
        assert_eq!(read(json!("string")), one);
        assert_eq!(read(json!({"key": {"type": "string", "enum": ["set", ["a"]]}})), one);
        let optional = read(json!({"key": {"type": "uuid", "refTable": "T"}, "min": 0}));
        assert_eq!((optional.min, optional.max), (0, 1));
        let map = read(json!({"key": "string", "value": "real", "min": 0, "max": "unlimited"}));
        assert_eq!((map.value, map.max), (Some(AtomType::Real), usize::MAX));
    }

    #[test]
    fn columns_without_a_value_have_the_default_of_their_type() {
        let default = |value: Value| ColumnType::from_json(&value).unwrap().default_datum();
        assert_eq!(default(json!("string")), Datum::from(""));
        assert_eq!(default(json!("integer")), Datum::from(0));
        assert_eq!(default(json!({"key": "string", "min": 0})), Datum::default());
        let map = default(json!({"key": "string", "value": "string", "min": 0, "max": 3}));
        assert_eq!(map, Datum::Map(BTreeMap::new()));
    }

    #[test]
    fn a_broken_schema_is_refused_with_the_place() {
        let error = |schema: Value| Schema::from_json(&schema).unwrap_err().to_string();
        assert!(error(json!({"name": "a", "version": "1"})).contains("with tables"));
        let tables = |column: Value| {
            let columns = json!({"columns": {"c": column}});
            json!({"name": "a", "version": "1", "tables": {"T": columns}})
        };
        assert!(error(tables(json!({"type": "text"}))).contains("T: c: a type, found \"text\""));
        assert!(error(tables(json!({"type": {"key": "string", "max": -1}}))).contains("T: c:"));
        assert!(error(tables(json!({}))).contains("a column's type"));
        assert!(Schema::parse("{").is_err());
    }
}
