//! Transactions: what is to be changed, all of it or nothing (RFC 7047 section 5.2).

use std::fmt;

use serde_json::{Map, Value, json};

use crate::datum::{Atom, Datum};
use crate::uuid::Uuid;

/// A row that a transaction is about: one that is there, or one that it inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One that is there.
    Row(Uuid),
    /// One that this transaction inserts.
    New(String),
}

impl From<Uuid> for Target {
    fn from(uuid: Uuid) -> Self {
        Self::Row(uuid)
    }
}

impl From<Target> for Atom {
    fn from(target: Target) -> Self {
        match target {
            Target::Row(uuid) => Self::Uuid(uuid),
            Target::New(name) => Self::Named(name),
        }
    }
}

/// How a column is changed beside the value that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutator {
    /// Add to a number.
    Add,
    /// Subtract from a number.
    Subtract,
    /// Add elements, or those pairs of a map whose keys it does not have.
    Insert,
    /// Remove elements, pairs, or those pairs of a map that have these keys.
    Delete,
}

impl Mutator {
    const fn name(self) -> &'static str {
        match self {
            Self::Add => "+=",
            Self::Subtract => "-=",
            Self::Insert => "insert",
            Self::Delete => "delete",
        }
    }
}

/// A transaction that is being written.
///
/// ```
/// use ovsdb::{Datum, Mutator, Transaction, Uuid};
///
/// let root = Uuid(1);
/// let mut transaction = Transaction::default();
/// let bridge = transaction.insert("Bridge", [("name", Datum::from("br0"))]);
/// transaction.mutate("Open_vSwitch", root, "bridges", Mutator::Insert, &Datum::from(bridge));
/// transaction.mutate("Open_vSwitch", root, "next_cfg", Mutator::Add, &Datum::from(1));
/// transaction.comment("add a bridge");
/// assert_eq!(transaction.len(), 4);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    operations: Vec<Value>,
    inserted: usize,
}

impl Transaction {
    /// Number of operations.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Inserts a row; what is returned stands for it in the rest of this transaction.
    pub fn insert<N: Into<String>>(
        &mut self,
        table: &str,
        columns: impl IntoIterator<Item = (N, Datum)>,
    ) -> Target {
        self.inserted = self.inserted.saturating_add(1);
        let name = format!("row{}", self.inserted);
        let row = row(columns);
        self.add(json!({"op": "insert", "table": table, "uuid-name": name, "row": row}));
        Target::New(name)
    }

    /// Gives columns of a row other values.
    pub fn update<N: Into<String>>(
        &mut self,
        table: &str,
        target: impl Into<Target>,
        columns: impl IntoIterator<Item = (N, Datum)>,
    ) {
        let (selected, row) = (selects(target.into()), row(columns));
        self.add(json!({"op": "update", "table": table, "where": selected, "row": row}));
    }

    /// Changes the value that a column of a row has.
    pub fn mutate(
        &mut self,
        table: &str,
        target: impl Into<Target>,
        column: &str,
        mutator: Mutator,
        by: &Datum,
    ) {
        let (selected, mutation) =
            (selects(target.into()), [(column, mutator.name(), by.to_json())]);
        self.add(json!({"op": "mutate", "table": table, "where": selected, "mutations": mutation}));
    }

    /// Deletes a row.
    pub fn delete(&mut self, table: &str, target: impl Into<Target>) {
        self.add(json!({"op": "delete", "table": table, "where": selects(target.into())}));
    }

    /// Reads columns of a row, as they are at this place of the transaction.
    pub fn select(&mut self, table: &str, target: impl Into<Target>, columns: &[&str]) {
        let selected = selects(target.into());
        self.add(json!({"op": "select", "table": table, "where": selected, "columns": columns}));
    }

    /// Fails the transaction, so that it can be written anew, unless columns of a row have these
    /// values.
    pub fn expect<N: Into<String>>(
        &mut self,
        table: &str,
        target: impl Into<Target>,
        columns: impl IntoIterator<Item = (N, Datum)>,
    ) {
        let row = row(columns);
        let names: Vec<&String> = row.keys().collect();
        self.add(json!({
            "op": "wait", "timeout": 0, "table": table, "where": selects(target.into()),
            "columns": names, "until": "==", "rows": [row],
        }));
    }

    /// A line for the database's log.
    pub fn comment(&mut self, text: &str) {
        self.add(json!({"op": "comment", "comment": text}));
    }

    /// Fails the transaction unless we have the lock.
    pub(crate) fn assert_lock(&mut self, lock: &str) {
        self.add(json!({"op": "assert", "lock": lock}));
    }

    fn add(&mut self, operation: Value) {
        self.operations.push(operation);
    }

    /// The parameters of the request.
    pub(crate) fn into_params(self, database: &str) -> Value {
        let mut params = vec![Value::from(database)];
        params.extend(self.operations);
        Value::Array(params)
    }
}

fn row<N: Into<String>>(columns: impl IntoIterator<Item = (N, Datum)>) -> Map<String, Value> {
    columns.into_iter().map(|(name, datum)| (name.into(), datum.to_json())).collect()
}

/// The condition that selects one row.
fn selects(target: Target) -> Value {
    json!([["_uuid", "==", Atom::from(target).to_json()]])
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All of it was done; what each operation says.
    Done(Vec<Value>),
    /// Nothing was done, since a row is not as was [expected](Transaction::expect).
    Changed,
    /// Nothing was done, since somebody else has the lock.
    NotLocked,
    /// Nothing was done.
    Failed {
        /// What kind of error, in the database's words.
        error: String,
        /// What about.
        details: String,
    },
    /// The connection was lost: whether it was done is not known.
    Lost,
}

impl Outcome {
    /// Reads the answer to a transaction.
    pub(crate) fn from_answer(answer: Result<Value, Value>) -> Self {
        let results = match answer {
            Ok(Value::Array(results)) => results,
            Ok(other) | Err(other) => return Self::failed(&other),
        };
        // Operations behind one that failed have null; an error of the whole follows the last.
        match results
            .iter()
            .find(|result| result.get("error").is_some_and(|error| !error.is_null()))
        {
            Some(failed) => Self::failed(failed),
            None => Self::Done(results),
        }
    }

    fn failed(result: &Value) -> Self {
        let text = |name: &str| result.get(name).and_then(Value::as_str).map(str::to_owned);
        match text("error").as_deref() {
            Some("timed out") => Self::Changed,
            Some("not owner") => Self::NotLocked,
            Some(error) => Self::Failed {
                error: error.to_owned(),
                details: text("details").unwrap_or_default(),
            },
            None => Self::Failed { error: result.to_string(), details: String::new() },
        }
    }

    /// The identifier of the row that operation `index` inserted.
    #[must_use]
    pub fn inserted(&self, index: usize) -> Option<Uuid> {
        let Self::Done(results) = self else { return None };
        let uuid = results.get(index)?.get("uuid")?;
        uuid.get(1)?.as_str()?.parse().ok()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(_) => f.write_str("done"),
            Self::Changed => f.write_str("the database has changed meanwhile"),
            Self::NotLocked => f.write_str("another process has the lock"),
            Self::Failed { error, details } if details.is_empty() => f.write_str(error),
            Self::Failed { error, details } => write!(f, "{error}: {details}"),
            Self::Lost => f.write_str("the connection was lost; it may have been done or not"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_form_of_the_rfc() {
        let mut transaction = Transaction::default();
        let port = transaction.insert("Port", [("name", Datum::from("p1"))]);
        transaction.expect("Bridge", Uuid(2), [("name", Datum::from("br0"))]);
        transaction.update("Bridge", Uuid(2), [("ports", Datum::from(port))]);
        transaction.delete("Port", Uuid(3));
        transaction.select("Open_vSwitch", Uuid(4), &["next_cfg"]);
        transaction.assert_lock("ours");
        let row = |number: u8| json!(["uuid", Uuid(u128::from(number)).to_string()]);
        let wait = json!({
            "op": "wait", "timeout": 0, "table": "Bridge", "where": [["_uuid", "==", row(2)]],
            "columns": ["name"], "until": "==", "rows": [{"name": "br0"}],
        });
        let insert =
            json!({"op": "insert", "table": "Port", "uuid-name": "row1", "row": {"name": "p1"}});
        let ports = json!({"ports": ["named-uuid", "row1"]});
        let update = json!({"op": "update", "table": "Bridge", "where": [["_uuid", "==", row(2)]], "row": ports});
        let delete = json!({"op": "delete", "table": "Port", "where": [["_uuid", "==", row(3)]]});
        let select = json!({
            "op": "select", "table": "Open_vSwitch", "where": [["_uuid", "==", row(4)]],
            "columns": ["next_cfg"],
        });
        let lock = json!({"op": "assert", "lock": "ours"});
        let expected = json!(["D", insert, wait, update, delete, select, lock]);
        assert_eq!(transaction.into_params("D"), expected);
    }

    #[test]
    fn answers_tell_what_went_wrong() {
        let read = |answer| Outcome::from_answer(Ok(answer));
        let uuid = json!({"uuid": ["uuid", Uuid(7).to_string()]});
        assert_eq!(read(json!([uuid, {}])).inserted(0), Some(Uuid(7)));
        assert_eq!(read(json!([{}, {"error": "timed out"}, null])), Outcome::Changed);
        assert_eq!(read(json!([{"error": "not owner"}])), Outcome::NotLocked);
        let failed = read(json!([{}, {"error": "constraint violation", "details": "tag 5000"}]));
        assert_eq!(failed.to_string(), "constraint violation: tag 5000");
        let refused = Outcome::from_answer(Err(json!({"error": "unknown database"})));
        assert_eq!(refused.to_string(), "unknown database");
        assert!(matches!(read(json!(3)), Outcome::Failed { .. }));
    }
}
