//! A client of OVSDB, the database by which Open vSwitch is configured: RFC 7047, with the
//! extensions of ovsdb-server(7) that its own clients use.
//!
//! A [`Client`] keeps a copy of the tables that it is to watch, tells what has changed in them, and
//! sends transactions. It never waits: it has a descriptor to be polled, and goes on when
//! [`run`](Client::run) is called. Connections that are lost are made again.
//!
//! The conversation itself, [`Session`], knows of no socket, so that it can be tested, and used over
//! anything that carries bytes:
//!
//! ```
//! use ovsdb::{Session, Wanted};
//!
//! let mut session = Session::new(Wanted::new("Open_vSwitch").table("Bridge", ["name"]));
//! session.connected();
//! let question = std::str::from_utf8(session.output())?;
//! assert_eq!(question, r#"{"id":1,"method":"get_schema","params":["_Server"]}"#);
//! session.receive(br#"{"id":"echo","method":"echo","params":[]}"#)?;
//! assert!(session.output().ends_with(br#"{"id":"echo","result":[],"error":null}"#));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`client`]: sockets, and connections that follow each other
//! - [`session`]: the conversation
//! - [`transaction`]: what is to be changed
//! - [`cache`]: the watched tables
//! - [`datum`], [`uuid`](mod@uuid): values
//! - [`schema`]: tables and columns that a database has
//! - [`stream`], `rpc`: messages
//! - [`error`]: what can be wrong with them

#![forbid(unsafe_code)]

pub mod cache;
pub mod client;
pub mod datum;
pub mod error;
mod rpc;
pub mod schema;
pub mod session;
pub mod stream;
pub mod transaction;
pub mod uuid;

pub use cache::{Cache, Change, Changes, Row};
pub use client::{Client, Remote};
pub use datum::{Atom, Datum};
pub use error::Malformed;
pub use schema::{AtomType, ColumnType, Schema};
pub use session::{Event, Failure, Session, TransactionId, Wanted};
pub use stream::Splitter;
pub use transaction::{Mutator, Outcome, Target, Transaction};
pub use uuid::Uuid;
