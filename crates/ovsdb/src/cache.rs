//! A copy of the tables that are monitored, kept up to date by what the database tells.

use std::collections::{BTreeMap, HashMap};

use ordered::Gather as _;
use serde_json::{Map, Value, json};

use crate::datum::Datum;
use crate::error::Malformed;
use crate::schema::{Schema, Table};
use crate::uuid::Uuid;

/// A row: what its monitored columns have.
///
/// ```
/// let row = ovsdb::Row::from_iter([("name", ovsdb::Datum::from("br0"))]);
/// assert_eq!(row.get("name").string(), Some("br0"));
/// assert!(row.get("ports").is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(BTreeMap<String, Datum>);

static NOTHING: Datum = Datum::Set(std::collections::BTreeSet::new());

impl Row {
    /// The value of `column`; the empty set if it is not monitored, or not in the schema.
    #[must_use]
    pub fn get(&self, column: &str) -> &Datum {
        self.0.get(column).unwrap_or(&NOTHING)
    }

    /// All columns with their values.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Datum)> {
        self.0.iter().map(|(name, datum)| (name.as_str(), datum))
    }
}

impl<N: Into<String>> FromIterator<(N, Datum)> for Row {
    fn from_iter<I: IntoIterator<Item = (N, Datum)>>(columns: I) -> Self {
        Self(columns.into_iter().map(|(name, datum)| (name.into(), datum)).gather())
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there now.
    Inserted,
    /// These columns have other values now.
    Modified(Vec<String>),
    /// It is gone; this is what it was.
    Deleted(Row),
}

/// What has changed at once: by table and row.
pub type Changes = BTreeMap<String, BTreeMap<Uuid, Change>>;

/// The monitored tables.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    tables: BTreeMap<String, HashMap<Uuid, Row>>,
    /// The columns that are monitored, of each table, with their types.
    columns: BTreeMap<String, Table>,
}

impl Cache {
    /// An empty one for those tables and columns in `wanted` that `schema` has.
    pub(crate) fn new<'w>(
        schema: &Schema,
        wanted: impl IntoIterator<Item = (&'w str, &'w [String])>,
    ) -> Self {
        let columns = wanted.into_iter().filter_map(|(name, wanted)| {
            let table = schema.tables.get(name)?;
            let column = |name: &String| Some((name.clone(), *table.get(name)?));
            Some((name.to_owned(), wanted.iter().filter_map(column).gather()))
        });
        Self { tables: BTreeMap::new(), columns: columns.gather() }
    }

    /// The monitored columns that there are, by table.
    pub(crate) const fn monitored(&self) -> &BTreeMap<String, Table> {
        &self.columns
    }

    /// Whether `column` of `table` is monitored, and in the database's schema.
    #[must_use]
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).is_some_and(|columns| columns.contains_key(column))
    }

    /// The rows of `table`, in no order.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Row)> {
        self.tables.get(table).into_iter().flatten().map(|(uuid, row)| (*uuid, row))
    }

    /// A row of `table`.
    #[must_use]
    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        self.tables.get(table)?.get(&uuid)
    }

    /// Applies an update of the second kind: `{table: {row: {kind: columns}}}` (ovsdb-server(7),
    /// "Update2 Notification").
    ///
    /// # Errors
    /// It is not one, or is about rows that are not there. What was before it is then changed.
    pub(crate) fn update(&mut self, tables: &Value) -> Result<Changes, Malformed> {
        self.update_by(tables, change)
    }

    /// Applies an update of the first kind: `{table: {row: {"old": columns, "new": columns}}}` (RFC 7047,
    /// section 4.1.6).
    ///
    /// # Errors
    /// As of [`update`](Self::update).
    pub(crate) fn update_first(&mut self, tables: &Value) -> Result<Changes, Malformed> {
        self.update_by(tables, change_first)
    }

    fn update_by(&mut self, tables: &Value, change: Apply) -> Result<Changes, Malformed> {
        let mut changes = Changes::new();
        for (name, rows) in object(tables, "tables")? {
            let Some(columns) = self.columns.get(name) else { continue };
            let table = self.tables.entry(name.clone()).or_default();
            for (uuid, update) in object(rows, name)? {
                let row = uuid.parse::<Uuid>();
                let row = row.map_err(|error| Malformed::of_text(error.to_string(), uuid))?;
                let change = change(table, columns, row, update);
                let change = change.map_err(|error| error.within(name))?;
                changes.entry(name.clone()).or_default().insert(row, change);
            }
        }
        Ok(changes)
    }

    /// What is different from `before`.
    pub(crate) fn since(&self, before: &Self) -> Changes {
        let mut changes = Changes::new();
        let mut note = |table: &str, uuid, change| {
            changes.entry(table.to_owned()).or_default().insert(uuid, change);
        };
        for (name, rows) in &self.tables {
            for (uuid, row) in rows {
                match before.row(name, *uuid) {
                    None => note(name, *uuid, Change::Inserted),
                    Some(old) if old == row => {}
                    Some(old) => note(name, *uuid, Change::Modified(differing(old, row))),
                }
            }
        }
        for (name, rows) in &before.tables {
            for (uuid, row) in rows {
                if self.row(name, *uuid).is_none() {
                    note(name, *uuid, Change::Deleted(row.clone()));
                }
            }
        }
        changes
    }
}

/// Columns that are not the same in both.
fn differing(one: &Row, two: &Row) -> Vec<String> {
    let names = one.0.keys().chain(two.0.keys().filter(|name| !one.0.contains_key(*name)));
    names.filter(|name| one.get(name) != two.get(name)).cloned().collect()
}

/// Applies the update of a row of a table with these columns.
type Apply = fn(&mut HashMap<Uuid, Row>, &Table, Uuid, &Value) -> Result<Change, Malformed>;

/// Applies one of the first kind: what the row was, as far as that is another, and all that it is.
fn change_first(
    table: &mut HashMap<Uuid, Row>,
    columns: &Table,
    uuid: Uuid,
    update: &Value,
) -> Result<Change, Malformed> {
    let missing = || Malformed::of_text("a row that is there", &uuid.to_string());
    match (update.get("old"), update.get("new")) {
        (None, Some(values)) => change(table, columns, uuid, &json!({ "insert": values })),
        (Some(_), None) => table.remove(&uuid).map(Change::Deleted).ok_or_else(missing),
        (Some(_), Some(values)) => {
            let row = table.get_mut(&uuid).ok_or_else(missing)?;
            let before = row.clone();
            row.0.extend(values_of(values, columns)?);
            Ok(Change::Modified(differing(&before, row)))
        }
        (None, None) => Err(Malformed::new("old, new or both", update)),
    }
}

/// Applies one of the second kind.
fn change(
    table: &mut HashMap<Uuid, Row>,
    columns: &Table,
    uuid: Uuid,
    update: &Value,
) -> Result<Change, Malformed> {
    let update = object(update, "a row")?;
    let mut kinds = update.iter();
    match (kinds.next().map(|(kind, columns)| (kind.as_str(), columns)), kinds.next()) {
        (Some(("initial" | "insert", values)), None) => {
            let mut row: Row =
                columns.iter().map(|(name, column)| (name, column.default_datum())).collect();
            for (name, datum) in values_of(values, columns)? {
                row.0.insert(name, datum);
            }
            table.insert(uuid, row);
            Ok(Change::Inserted)
        }
        (Some(("modify", values)), None) => {
            let row = table.get_mut(&uuid);
            let row =
                row.ok_or_else(|| Malformed::of_text("a row that is there", &uuid.to_string()))?;
            let mut changed = Vec::new();
            for (name, difference) in values_of(values, columns)? {
                if let (Some(datum), Some(column)) = (row.0.get_mut(&name), columns.get(&name)) {
                    datum.apply(difference, column);
                    changed.push(name);
                }
            }
            Ok(Change::Modified(changed))
        }
        (Some(("delete", _)), None) => {
            let row = table.remove(&uuid);
            let row =
                row.ok_or_else(|| Malformed::of_text("a row that is there", &uuid.to_string()))?;
            Ok(Change::Deleted(row))
        }
        _ => {
            Err(Malformed::new("initial, insert, modify or delete", &Value::Object(update.clone())))
        }
    }
}

/// The columns of a row that are monitored.
fn values_of(values: &Value, columns: &Table) -> Result<Vec<(String, Datum)>, Malformed> {
    let mut read = Vec::new();
    for (name, value) in object(values, "columns")? {
        if let Some(column) = columns.get(name) {
            let datum = Datum::from_json(value, column).map_err(|error| error.within(name))?;
            read.push((name.clone(), datum));
        }
    }
    Ok(read)
}

fn object<'v>(value: &'v Value, what: &str) -> Result<&'v Map<String, Value>, Malformed> {
    value.as_object().ok_or_else(|| Malformed::new(format!("{what} as an object"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "00000000-0000-0000-0000-000000000001";

    fn cache() -> Cache {
        let text = json!({"type": "string"});
        let many = json!({"type": {"key": "integer", "min": 0, "max": "unlimited"}});
        let columns = json!({"name": text, "trunks": many});
        let schema = json!({"name": "D", "version": "1", "tables": {"Port": {"columns": columns}}});
        let wanted = ["name", "trunks", "not_in_this_schema"].map(str::to_owned);
        Cache::new(&Schema::from_json(&schema).unwrap(), [("Port", &wanted[..]), ("Nil", &[])])
    }

    fn update(cache: &mut Cache, row: &Value) -> Result<Changes, Malformed> {
        cache.update(&json!({"Port": {ROW: row}}))
    }

    #[test]
    fn rows_are_inserted_changed_and_deleted() {
        let mut cache = cache();
        assert!(cache.has("Port", "name") && !cache.has("Port", "not_in_this_schema"));
        let changes = update(&mut cache, &json!({"insert": {"name": "p1"}})).unwrap();
        assert_eq!(changes["Port"][&Uuid(1)], Change::Inserted);
        assert_eq!(cache.row("Port", Uuid(1)).unwrap().get("trunks"), &Datum::default());

        update(&mut cache, &json!({"modify": {"trunks": ["set", [1, 2]]}})).unwrap();
        let changes = update(&mut cache, &json!({"modify": {"trunks": 1}})).unwrap();
        assert_eq!(changes["Port"][&Uuid(1)], Change::Modified(vec!["trunks".to_owned()]));
        let row = cache.row("Port", Uuid(1)).unwrap().clone();
        assert_eq!((row.get("name").string(), row.get("trunks").integer()), (Some("p1"), Some(2)));

        let changes = update(&mut cache, &json!({"delete": null})).unwrap();
        assert_eq!(changes["Port"][&Uuid(1)], Change::Deleted(row));
        assert_eq!(cache.rows("Port").count(), 0);
    }

    #[test]
    fn updates_of_the_first_kind_say_all_that_a_row_is() {
        let mut cache = cache();
        let mut update = |row: Value| cache.update_first(&json!({"Port": {ROW: row}}));
        let all = |trunk: i64| json!({"name": "p1", "trunks": trunk, "not_asked_for": 7});
        let changes = update(json!({"new": all(1)})).unwrap();
        assert_eq!(changes["Port"][&Uuid(1)], Change::Inserted);
        let changes = update(json!({"old": {"trunks": 1}, "new": all(2)})).unwrap();
        assert_eq!(changes["Port"][&Uuid(1)], Change::Modified(vec!["trunks".to_owned()]));
        assert!(update(json!({})).unwrap_err().to_string().contains("old, new or both"));
        let changes = update(json!({"old": all(2)})).unwrap();
        assert!(matches!(changes["Port"][&Uuid(1)], Change::Deleted(_)));
        assert!(update(json!({"old": all(2)})).unwrap_err().to_string().contains("that is there"));
        assert_eq!(cache.rows("Port").count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        let mut cache = cache();
        let mut error = |row: Value| update(&mut cache, &row).unwrap_err().to_string();
        assert!(error(json!({"modify": {"name": "a"}})).contains("Port: a row that is there"));
        assert!(error(json!({"delete": null})).contains("a row that is there"));
        assert!(error(json!({"insert": {"name": 1}})).contains("Port: name: string, found 1"));
        assert!(error(json!({"replace": {}})).contains("initial, insert, modify or delete"));
        assert!(error(json!({"insert": {}, "delete": null})).contains("initial"));
        assert!(cache.update(&json!({"Port": {"x": {}}})).is_err());
        assert!(cache.update(&json!({"Unknown": {"x": {}}})).unwrap().is_empty());
    }

    #[test]
    fn what_happened_meanwhile_is_the_difference_of_two() {
        let (mut before, mut after) = (cache(), cache());
        let insert = |id: u8, name: &str| {
            let row = Uuid(u128::from(id)).to_string();
            json!({"Port": {row: {"initial": {"name": name}}}})
        };
        for (id, name) in [(1, "stays"), (2, "goes"), (3, "old")] {
            before.update(&insert(id, name)).unwrap();
        }
        for (id, name) in [(1, "stays"), (3, "new"), (4, "comes")] {
            after.update(&insert(id, name)).unwrap();
        }
        let changes = after.since(&before);
        let port = &changes["Port"];
        assert_eq!(port.len(), 3);
        assert!(matches!(port[&Uuid(2)], Change::Deleted(_)));
        assert_eq!(port[&Uuid(3)], Change::Modified(vec!["name".to_owned()]));
        assert_eq!(port[&Uuid(4)], Change::Inserted);
    }
}
