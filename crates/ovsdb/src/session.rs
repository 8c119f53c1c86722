//! The conversation with a database, apart from the socket: bytes go in and come out, events tell
//! what has happened.
//!
//! After the start of a connection a session reads from the server's own database, `_Server`,
//! whether ours is there, then our database's schema. It takes the lock, if it is to have one, and
//! monitors the tables (ovsdb-server(7), "Monitor_cond_since"). When a connection follows another,
//! only what has changed is told, by the database if it knows what we had, otherwise by comparing.
//!
//! Servers before 2.12 do not tell what has changed since, those before 2.9 have no database of their own,
//! and those before 2.6 know the first kind of updates alone (RFC 7047): each is asked for what it knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ordered::Gather as _;
use serde_json::{Value, json};

use crate::cache::{Cache, Changes, Row};
use crate::error::Malformed;
use crate::rpc::{Message, answer, request};
use crate::schema::Schema;
use crate::stream::Splitter;
use crate::transaction::{Outcome, Transaction};
use crate::uuid::Uuid;

/// What is wanted of a database.
///
/// ```
/// let wanted = ovsdb::Wanted::new("Open_vSwitch")
///     .table("Bridge", ["name", "ports"])
///     .table("Port", ["name", "tag"])
///     .lock("ovs_vswitchd");
/// # let _ = wanted;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    database: String,
    tables: BTreeMap<String, Vec<String>>,
    lock: Option<String>,
    leader_only: bool,
}

impl Wanted {
    /// Nothing of `database` yet.
    #[must_use]
    pub fn new(database: impl Into<String>) -> Self {
        Self { database: database.into(), ..Self::default() }
    }

    /// These columns of `table`. Tables and columns that a database's schema does not have are left
    /// out: schemas grow from version to version.
    #[must_use]
    pub fn table<C: Into<String>>(
        mut self,
        table: impl Into<String>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        let place = self.tables.entry(table.into()).or_default();
        place.extend(columns.into_iter().map(Into::into));
        self
    }

    /// The lock of this name; transactions then fail while somebody else has it.
    #[must_use]
    pub fn lock(mut self, name: impl Into<String>) -> Self {
        self.lock = Some(name.into());
        self
    }

    /// Only the leader of a cluster, whose content is never behind.
    #[must_use]
    pub const fn leader_only(mut self) -> Self {
        self.leader_only = true;
        self
    }
}

/// A transaction that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(u64);

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// All content is there: transactions can be sent.
    Online,
    /// Rows are different; they are so in the cache already.
    Changed(Changes),
    /// We have the lock, or have it no more.
    Locked(bool),
    /// A transaction has ended.
    Ended(TransactionId, Outcome),
    /// The connection is gone, and why. What the cache has stays.
    Offline(String),
}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Offline,
    /// The server's own database was asked for: its schema, then its content.
    Server,
    /// The server does not serve the database, or not yet.
    Absent,
    /// The schema was asked for, then the content.
    Content,
    Online,
}

/// How content is asked for and told, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `monitor_cond_since` and `update3`.
    Since,
    /// `monitor_cond` and `update2`.
    Conditional,
    /// `monitor` and `update`, as in RFC 7047.
    First,
}

impl Way {
    const fn method(self) -> &'static str {
        match self {
            Self::Since => "monitor_cond_since",
            Self::Conditional => "monitor_cond",
            Self::First => "monitor",
        }
    }

    /// The way of older servers.
    const fn older(self) -> Option<Self> {
        match self {
            Self::Since => Some(Self::Conditional),
            Self::Conditional => Some(Self::First),
            Self::First => None,
        }
    }
}

/// What an answer that is awaited is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    ServerSchema,
    ServerContent,
    Lock,
    Schema,
    Content,
    Transaction,
    /// Nothing that matters.
    Other,
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    wanted: Wanted,
    stage: Stage,
    way: Way,
    input: Splitter,
    output: Vec<u8>,
    last_id: u64,
    asked: BTreeMap<u64, Asked>,
    server: Cache,
    schema: Option<Schema>,
    /// What the server's own database says of it, by which a change shows.
    shown: String,
    cache: Cache,
    /// The last transaction that the cache has.
    seen: Uuid,
    locked: bool,
    events: VecDeque<Event>,
}

/// Columns of `_Server` that matter.
const SERVER: [&str; 5] = ["connected", "leader", "model", "name", "schema"];

impl Session {
    /// One that is not connected.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            stage: Stage::Offline,
            way: Way::Since,
            input: Splitter::default(),
            output: Vec::new(),
            last_id: 0,
            asked: BTreeMap::new(),
            server: Cache::default(),
            schema: None,
            shown: String::new(),
            cache: Cache::default(),
            seen: Uuid::default(),
            locked: false,
            events: VecDeque::new(),
        }
    }

    /// The monitored rows, as they were last told.
    #[must_use]
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The database's schema, once it was seen.
    #[must_use]
    pub const fn schema(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    /// Whether transactions can be sent.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self.stage, Stage::Online)
    }

    /// Whether we have the lock.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.locked
    }

    /// What has happened and was not told yet, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Notes that so many bytes of the [output](Self::output) are sent.
    pub fn sent(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
    }

    /// A connection has been made.
    pub fn connected(&mut self) {
        (self.stage, self.way) = (Stage::Server, Way::Since);
        self.ask(Asked::ServerSchema, "get_schema", &json!(["_Server"]));
    }

    /// The connection is gone, for a `reason` that people can read.
    pub fn disconnected(&mut self, reason: impl Into<String>) {
        self.stage = Stage::Offline;
        self.input = Splitter::default();
        self.output.clear();
        self.server = Cache::default();
        for (id, asked) in std::mem::take(&mut self.asked) {
            if asked == Asked::Transaction {
                self.events.push_back(Event::Ended(TransactionId(id), Outcome::Lost));
            }
        }
        self.set_locked(false);
        self.events.push_back(Event::Offline(reason.into()));
    }

    /// Asks for any answer, to see whether the other side is alive.
    pub fn probe(&mut self) {
        self.ask(Asked::Other, "echo", &json!([]));
    }

    /// Sends a transaction, unless there is no connection or the content is not there yet: then
    /// it is given back. Its end is an [event](Event::Ended).
    ///
    /// # Errors
    /// The transaction, if it cannot be sent.
    pub fn transact(&mut self, mut transaction: Transaction) -> Result<TransactionId, Transaction> {
        if !self.is_online() {
            return Err(transaction);
        }
        if let Some(lock) = &self.wanted.lock {
            transaction.assert_lock(lock);
        }
        let params = transaction.into_params(&self.wanted.database);
        Ok(TransactionId(self.ask(Asked::Transaction, "transact", &params)))
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// Why the connection is to be given up.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.input.push(bytes);
        while let Some(message) = self.input.next()? {
            self.take(Message::from_json(message)?)?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Request { id, method, params } => {
                let known = method == "echo";
                let result = if known { Ok(&params) } else { Err("unknown method") };
                self.send(&answer(&id, result));
                Ok(())
            }
            Message::Notification { method, params } => self.notified(&method, &params),
            Message::Response { id, result } => match self.asked.remove(&id) {
                Some(asked) => self.answered(asked, id, result),
                None => Err(Malformed::new("an answer to a question", &json!(id)).into()),
            },
        }
    }

    fn notified(&mut self, method: &str, params: &Value) -> Result<(), Failure> {
        match method {
            "update3" => {
                let seen = uuid(params.get(1))?;
                self.changed(params.get(2).unwrap_or(&Value::Null))?;
                self.seen = seen;
            }
            "update2" if self.is_ours(params) => {
                self.changed(params.get(1).unwrap_or(&Value::Null))?;
            }
            "update" => self.changed_first(params.get(1).unwrap_or(&Value::Null))?,
            "update2" => {
                self.server.update(params.get(1).unwrap_or(&Value::Null))?;
                self.look_at_server()?;
            }
            "locked" => self.set_locked(true),
            "stolen" => self.set_locked(false),
            "monitor_canceled" => return Err(Failure::Removed),
            other => tracing::debug!(method = other, "a database told something unknown"),
        }
        Ok(())
    }

    /// Whether an update is of our database's monitor, and not of that of the server's own.
    fn is_ours(&self, params: &Value) -> bool {
        let monitor = params.get(0).and_then(|monitor| monitor.get(1));
        monitor.and_then(Value::as_str) == Some(&self.wanted.database)
    }

    fn answered(
        &mut self,
        asked: Asked,
        id: u64,
        result: Result<Value, Value>,
    ) -> Result<(), Failure> {
        match (asked, result) {
            (Asked::Transaction, result) => {
                let outcome = Outcome::from_answer(result);
                self.events.push_back(Event::Ended(TransactionId(id), outcome));
            }
            (Asked::Other, _) => {}
            (Asked::ServerSchema, Ok(schema)) => self.ask_server(&Schema::from_json(&schema)?),
            // An older server has no database about itself, or cannot tell of it: there is nothing to
            // wait for.
            (Asked::ServerSchema | Asked::ServerContent, Err(_)) => self.open(),
            (Asked::ServerContent, Ok(content)) => {
                self.server.update(&content)?;
                self.look_at_server()?;
            }
            (Asked::Lock, Ok(answer)) => {
                self.set_locked(answer.get("locked") == Some(&Value::Bool(true)));
            }
            (Asked::Schema, Ok(schema)) => self.monitor(Schema::from_json(&schema)?),
            (Asked::Content, Ok(content)) => self.take_content(&content)?,
            (Asked::Content, Err(error)) => match self.way.older() {
                Some(older) => {
                    self.way = older;
                    self.ask_content();
                }
                None => return Err(Failure::Refused(error.to_string())),
            },
            (_, Err(error)) => return Err(Failure::Refused(error.to_string())),
        }
        Ok(())
    }

    fn ask_server(&mut self, schema: &Schema) {
        let columns = SERVER.map(str::to_owned);
        self.server = Cache::new(schema, [("Database", &columns[..])]);
        let params = json!(["_Server", ["monid", "_Server"], {"Database": [{"columns": SERVER}]}]);
        self.ask(Asked::ServerContent, "monitor_cond", &params);
    }

    /// Looks whether the server has our database, and whether its schema is another.
    fn look_at_server(&mut self) -> Result<(), Failure> {
        let schema = match self.served() {
            Ok(schema) => schema,
            Err(reason) => return self.absent(reason),
        };
        if matches!(self.stage, Stage::Server | Stage::Absent) {
            self.shown = schema;
            // ovsdb-server 3.1 goes on showing the old schema in its own database when another one
            // was put in place: only this answer is right.
            self.open();
        } else if self.shown != schema {
            return Err(Failure::NewSchema);
        }
        Ok(())
    }

    /// Asks for our database's schema.
    fn open(&mut self) {
        self.stage = Stage::Content;
        self.ask(Asked::Schema, "get_schema", &json!([self.wanted.database]));
    }

    /// What is shown as our database's schema, if the server serves it in the way that is wanted; otherwise
    /// why not.
    fn served(&self) -> Result<String, String> {
        let database = &self.wanted.database;
        let is_ours = |row: &&Row| row.get("name").string() == Some(database);
        let rows = || self.server.rows("Database").map(|(_, row)| row);
        let Some(row) = rows().find(is_ours) else {
            let names: BTreeSet<&str> = rows().filter_map(|row| row.get("name").string()).gather();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            return Err(format!("it has no database {database}, but {names}"));
        };
        let has = |flag: &str| row.get(flag).boolean() == Some(true);
        let is_clustered = row.get("model").string() == Some("clustered");
        if self.wanted.leader_only && is_clustered && !has("leader") {
            return Err("it is not the leader of its cluster".to_owned());
        }
        let schema = row.get("schema").string().filter(|_| has("connected"));
        schema
            .map(str::to_owned)
            .ok_or_else(|| format!("{database} is not connected to its cluster"))
    }

    /// The database is not there: to be waited for, unless it was there before.
    fn absent(&mut self, reason: String) -> Result<(), Failure> {
        match self.stage {
            Stage::Server | Stage::Absent => {
                tracing::info!("waiting for the database: {reason}");
                self.stage = Stage::Absent;
                Ok(())
            }
            _ => Err(Failure::Unavailable(reason)),
        }
    }

    fn wanted_cache(&self) -> Cache {
        let wanted = self.wanted.tables.iter();
        let wanted = wanted.map(|(table, columns)| (table.as_str(), columns.as_slice()));
        self.schema.as_ref().map(|schema| Cache::new(schema, wanted)).unwrap_or_default()
    }

    fn monitor(&mut self, schema: Schema) {
        if self.schema.as_ref() != Some(&schema) {
            // What was before is kept, to be compared; the database cannot tell the difference.
            self.seen = Uuid::default();
        }
        self.schema = Some(schema);
        if let Some(lock) = self.wanted.lock.clone() {
            self.ask(Asked::Lock, "lock", &json!([lock]));
        }
        // Otherwise it would hang up when a database's schema changes.
        self.ask(Asked::Other, "set_db_change_aware", &json!([true]));
        self.ask_content();
    }

    fn ask_content(&mut self) {
        let tables: serde_json::Map<String, Value> = self
            .wanted_cache()
            .monitored()
            .iter()
            .map(|(table, columns)| {
                let columns: Vec<&String> = columns.keys().collect();
                (table.clone(), json!([{ "columns": columns }]))
            })
            .collect();
        let database = &self.wanted.database;
        let mut params = vec![json!(database), json!(["monid", database]), Value::Object(tables)];
        params.extend((self.way == Way::Since).then(|| json!(self.seen.to_string())));
        self.ask(Asked::Content, self.way.method(), &Value::Array(params));
    }

    /// The content as it is now, or what has changed since we saw it last.
    fn take_content(&mut self, content: &Value) -> Result<(), Failure> {
        let has_history = self.way == Way::Since;
        let is_difference = has_history && content.get(0) == Some(&Value::Bool(true));
        let seen = if has_history { uuid(content.get(1))? } else { Uuid::default() };
        let tables = if has_history { content.get(2).unwrap_or(&Value::Null) } else { content };
        if is_difference {
            self.changed(tables)?;
        } else {
            let mut fresh = self.wanted_cache();
            match self.way {
                Way::First => fresh.update_first(tables)?,
                Way::Since | Way::Conditional => fresh.update(tables)?,
            };
            let before = std::mem::replace(&mut self.cache, fresh);
            self.tell(self.cache.since(&before));
        }
        self.seen = seen;
        self.stage = Stage::Online;
        self.events.push_back(Event::Online);
        Ok(())
    }

    fn changed(&mut self, tables: &Value) -> Result<(), Failure> {
        let updated = self.cache.update(tables);
        self.tell_update(updated)
    }

    fn changed_first(&mut self, tables: &Value) -> Result<(), Failure> {
        let updated = self.cache.update_first(tables);
        self.tell_update(updated)
    }

    fn tell_update(&mut self, updated: Result<Changes, Malformed>) -> Result<(), Failure> {
        match updated {
            Ok(changes) => {
                self.tell(changes);
                Ok(())
            }
            Err(error) => {
                // A part of it may be in the cache by now: all is to be told anew.
                self.seen = Uuid::default();
                Err(error.into())
            }
        }
    }

    fn tell(&mut self, changes: Changes) {
        if !changes.is_empty() {
            self.events.push_back(Event::Changed(changes));
        }
    }

    fn set_locked(&mut self, locked: bool) {
        if self.locked != locked {
            self.locked = locked;
            self.events.push_back(Event::Locked(locked));
        }
    }

    fn ask(&mut self, what: Asked, method: &str, params: &Value) -> u64 {
        self.last_id = self.last_id.wrapping_add(1);
        self.asked.insert(self.last_id, what);
        self.send(&request(self.last_id, method, params));
        self.last_id
    }

    fn send(&mut self, message: &Value) {
        self.output.extend_from_slice(message.to_string().as_bytes());
    }
}

fn uuid(value: Option<&Value>) -> Result<Uuid, Malformed> {
    let value = value.unwrap_or(&Value::Null);
    let text = value.as_str().unwrap_or_default();
    text.parse().map_err(|_| Malformed::new("the identifier of a transaction", value))
}

/// Why a connection is given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What came is not as the protocol has it.
    #[error("it does not speak as an OVSDB server does: {0}")]
    Malformed(#[from] Malformed),
    /// The server refused a question that we cannot do without.
    #[error("it refused: {0}")]
    Refused(String),
    /// It cannot be used now.
    #[error("{0}")]
    Unavailable(String),
    /// The schema has changed: another connection will be with the new one.
    #[error("its schema has changed")]
    NewSchema,
    /// The database was removed from its server, or is about to have another schema.
    #[error("it was removed, or its schema is being changed")]
    Removed,
}

#[cfg(test)]
mod tests;
