//! Values of columns: atoms, and sets and maps of them (RFC 7047 section 5.1).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use ordered::Gather as _;
use serde_json::{Value, json};

use crate::error::Malformed;
use crate::schema::{AtomType, ColumnType};
use crate::uuid::Uuid;

/// A value of which sets and maps are made.
#[derive(Clone, Debug)]
pub enum Atom {
    /// A number without fraction.
    Integer(i64),
    /// A number with fraction.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// A text.
    String(String),
    /// The identifier of a row.
    Uuid(Uuid),
    /// The identifier of a row that the same transaction inserts, by the name that it gives it. No
    /// database answers with one.
    Named(String),
}

impl Atom {
    fn rank(&self) -> u8 {
        match self {
            Self::Integer(_) => 0,
            Self::Real(_) => 1,
            Self::Boolean(_) => 2,
            Self::String(_) => 3,
            Self::Uuid(_) => 4,
            Self::Named(_) => 5,
        }
    }

    /// Reads an atom of type `expected` from JSON.
    ///
    /// # Errors
    /// It is of another type.
    pub fn from_json(value: &Value, expected: AtomType) -> Result<Self, Malformed> {
        let atom = match expected {
            AtomType::Integer => value.as_i64().map(Self::Integer),
            AtomType::Real => value.as_f64().map(Self::Real),
            AtomType::Boolean => value.as_bool().map(Self::Boolean),
            AtomType::String => value.as_str().map(|text| Self::String(text.to_owned())),
            AtomType::Uuid => tagged(value, "uuid")
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok())
                .map(Self::Uuid),
        };
        atom.ok_or_else(|| Malformed::new(expected.name(), value))
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(number) => json!(number),
            Self::Real(number) => json!(number),
            Self::Boolean(flag) => json!(flag),
            Self::String(text) => json!(text),
            Self::Uuid(uuid) => json!(["uuid", uuid.to_string()]),
            Self::Named(name) => json!(["named-uuid", name]),
        }
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(one), Self::Integer(two)) => one.cmp(two),
            (Self::Real(one), Self::Real(two)) => one.total_cmp(two),
            (Self::Boolean(one), Self::Boolean(two)) => one.cmp(two),
            (Self::String(one), Self::String(two)) | (Self::Named(one), Self::Named(two)) => {
                one.cmp(two)
            }
            (Self::Uuid(one), Self::Uuid(two)) => one.cmp(two),
            (one, two) => one.rank().cmp(&two.rank()),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Atom {}

impl From<i64> for Atom {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Atom {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Atom {
    fn from(flag: bool) -> Self {
        Self::Boolean(flag)
    }
}

impl From<&str> for Atom {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Atom {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<Uuid> for Atom {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

/// The value of a column.
///
/// A column of one atom is a set of one, an optional one a set of none or one.
///
/// ```
/// use ovsdb::Datum;
///
/// let tag = Datum::from(42);
/// assert_eq!(tag.integer(), Some(42));
/// assert_eq!(Datum::default().integer(), None);
/// let ids: Datum = [("vm-uuid", "7"), ("iface-id", "tap7")].into_iter().collect();
/// assert_eq!(ids.value_of("iface-id"), Some("tap7"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datum {
    /// A set, possibly of one or none.
    Set(BTreeSet<Atom>),
    /// A map.
    Map(BTreeMap<Atom, Atom>),
}

impl Default for Datum {
    /// The empty set.
    fn default() -> Self {
        Self::Set(BTreeSet::new())
    }
}

impl<T: Into<Atom>> From<T> for Datum {
    fn from(atom: T) -> Self {
        Self::Set(BTreeSet::from([atom.into()]))
    }
}

impl<T: Into<Atom>> FromIterator<T> for Datum {
    fn from_iter<I: IntoIterator<Item = T>>(atoms: I) -> Self {
        Self::Set(atoms.into_iter().map(Into::into).gather())
    }
}

impl<K: Into<Atom>, V: Into<Atom>> FromIterator<(K, V)> for Datum {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::Map(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).gather())
    }
}

impl Datum {
    /// Reads the value of a column of type `expected` from JSON.
    ///
    /// How many elements there are is not checked: differences may have fewer than a column.
    ///
    /// # Errors
    /// It is of another type.
    pub fn from_json(value: &Value, expected: &ColumnType) -> Result<Self, Malformed> {
        let Some(of_value) = expected.value else {
            let atom = |value| Atom::from_json(value, expected.key);
            let Some(elements) = tagged(value, "set") else { return Ok(Self::one(atom(value)?)) };
            let elements =
                elements.as_array().ok_or_else(|| Malformed::new("a list of elements", value))?;
            return elements.iter().map(atom).try_gather().map(Self::Set);
        };
        let pairs = tagged(value, "map").and_then(Value::as_array);
        let pairs = pairs.ok_or_else(|| Malformed::new("a map", value))?;
        let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
            Some([key, value]) => {
                Ok((Atom::from_json(key, expected.key)?, Atom::from_json(value, of_value)?))
            }
            _ => Err(Malformed::new("a key with its value", pair)),
        };
        pairs.iter().map(pair).try_gather().map(Self::Map)
    }

    fn one(atom: Atom) -> Self {
        Self::Set(BTreeSet::from([atom]))
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Set(set) => match set.first() {
                Some(only) if set.len() == 1 => only.to_json(),
                _ => json!(["set", set.iter().map(Atom::to_json).collect::<Vec<_>>()]),
            },
            Self::Map(map) => {
                let pairs = map.iter().map(|(key, value)| json!([key.to_json(), value.to_json()]));
                json!(["map", pairs.collect::<Vec<_>>()])
            }
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Set(set) => set.len(),
            Self::Map(map) => map.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of a set, or the keys of a map.
    pub fn atoms(&self) -> impl Iterator<Item = &Atom> {
        let (set, map) = match self {
            Self::Set(set) => (Some(set), None),
            Self::Map(map) => (None, Some(map)),
        };
        set.into_iter().flatten().chain(map.into_iter().flat_map(BTreeMap::keys))
    }

    /// The pairs of a map; none of a set.
    pub fn pairs(&self) -> impl Iterator<Item = (&Atom, &Atom)> {
        let map = if let Self::Map(map) = self { Some(map) } else { None };
        map.into_iter().flatten()
    }

    /// The pairs of a map of texts.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().filter_map(|pair| match pair {
            (Atom::String(key), Atom::String(value)) => Some((key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// What a map of texts has for `key`.
    #[must_use]
    pub fn value_of(&self, key: &str) -> Option<&str> {
        let Self::Map(map) = self else { return None };
        match map.get(&Atom::from(key)) {
            Some(Atom::String(value)) => Some(value),
            _ => None,
        }
    }

    /// The texts in a set.
    pub fn strings(&self) -> impl Iterator<Item = &str> {
        self.atoms().filter_map(|atom| {
            if let Atom::String(text) = atom { Some(text.as_str()) } else { None }
        })
    }

    /// The rows that a set refers to.
    pub fn uuids(&self) -> impl Iterator<Item = Uuid> {
        self.atoms().filter_map(|atom| if let Atom::Uuid(uuid) = atom { Some(*uuid) } else { None })
    }

    /// The numbers in a set.
    pub fn integers(&self) -> impl Iterator<Item = i64> {
        self.atoms()
            .filter_map(|atom| if let Atom::Integer(number) = atom { Some(*number) } else { None })
    }

    /// The first text, if there is one.
    #[must_use]
    pub fn string(&self) -> Option<&str> {
        self.strings().next()
    }

    /// The first row referred to, if there is one.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        self.uuids().next()
    }

    /// The first number without fraction, if there is one.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        self.integers().next()
    }

    /// The first number, if there is one.
    #[must_use]
    pub fn real(&self) -> Option<f64> {
        self.atoms()
            .find_map(|atom| if let Atom::Real(number) = atom { Some(*number) } else { None })
    }

    /// The first flag, if there is one.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        self.atoms()
            .find_map(|atom| if let Atom::Boolean(flag) = atom { Some(*flag) } else { None })
    }

    /// Changes it by a difference, as updates of the second and third kind say it (ovsdb-server(7),
    /// "Update2 Notification"): elements of a set that are in both go, the others come; so do pairs
    /// of a map, where another value for a key replaces the one before. A column of at most one
    /// element is replaced.
    pub fn apply(&mut self, difference: Self, column: &ColumnType) {
        if column.max <= 1 {
            *self = difference;
            return;
        }
        match (self, difference) {
            (Self::Set(set), Self::Set(difference)) => {
                for atom in difference {
                    if !set.remove(&atom) {
                        set.insert(atom);
                    }
                }
            }
            (Self::Map(map), Self::Map(difference)) => {
                for (key, value) in difference {
                    if map.get(&key) == Some(&value) {
                        map.remove(&key);
                    } else {
                        map.insert(key, value);
                    }
                }
            }
            // Both are read with the same type.
            (place, difference) => *place = difference,
        }
    }
}

/// What follows in a list of two of which the first is `tag`.
fn tagged<'v>(value: &'v Value, tag: &str) -> Option<&'v Value> {
    match value.as_array()?.as_slice() {
        [first, second] if first.as_str() == Some(tag) => Some(second),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(key: AtomType, value: Option<AtomType>, max: usize) -> ColumnType {
        ColumnType { key, value, min: 0, max }
    }

    #[test]
    fn values_survive_json() {
        let cases = [
            (json!(["set", []]), column(AtomType::Integer, None, 1)),
            (json!(7), column(AtomType::Integer, None, 1)),
            (json!(0.5), column(AtomType::Real, None, 1)),
            (json!(["set", [1, 2]]), column(AtomType::Integer, None, 9)),
            (json!(["set", ["a", "b"]]), column(AtomType::String, None, 9)),
            (json!(true), column(AtomType::Boolean, None, 1)),
            (json!(["map", [["a", 1]]]), column(AtomType::String, Some(AtomType::Integer), 9)),
            (
                json!(["uuid", "228b645b-a5fe-4c66-b431-530601486b7b"]),
                column(AtomType::Uuid, None, 9),
            ),
        ];
        for (value, column) in cases {
            assert_eq!(Datum::from_json(&value, &column).unwrap().to_json(), value);
        }
        let whole = Datum::from_json(&json!(1), &column(AtomType::Real, None, 1)).unwrap();
        assert_eq!(whole.real(), Some(1.0));
    }

    #[test]
    fn values_of_another_type_are_refused() {
        let integers = column(AtomType::Integer, None, 9);
        let map = column(AtomType::String, Some(AtomType::String), 9);
        for (value, column) in [
            (json!("a"), &integers),
            (json!(1.5), &integers),
            (json!(["set", 1]), &integers),
            (json!(["set", [1], 2]), &integers),
            (json!(["set", [["uuid", "x"]]]), &integers),
            (json!(["map", [["a"]]]), &map),
            (json!(["map", "a"]), &map),
            (json!("a"), &map),
            (json!(["uuid", "228b645b"]), &column(AtomType::Uuid, None, 1)),
            (json!(["named-uuid", "row"]), &column(AtomType::Uuid, None, 1)),
        ] {
            Datum::from_json(&value, column).unwrap_err();
        }
    }

    #[test]
    fn differences_are_symmetric_and_single_values_replaced() {
        let many = column(AtomType::Integer, None, usize::MAX);
        let mut set: Datum = [1, 2, 3].into_iter().collect();
        set.apply([2, 4].into_iter().collect(), &many);
        assert_eq!(set, [1, 3, 4].into_iter().collect());

        let mut single = Datum::from(1);
        single.apply(Datum::from(2), &column(AtomType::Integer, None, 1));
        assert_eq!(single, Datum::from(2));
        single.apply(Datum::default(), &column(AtomType::Integer, None, 1));
        assert!(single.is_empty());

        let pairs = column(AtomType::String, Some(AtomType::String), usize::MAX);
        let mut map: Datum = [("a", "1"), ("b", "2"), ("c", "3")].into_iter().collect();
        map.apply([("a", "1"), ("b", "5"), ("d", "4")].into_iter().collect(), &pairs);
        assert_eq!(map, [("b", "5"), ("c", "3"), ("d", "4")].into_iter().collect());
    }
}
