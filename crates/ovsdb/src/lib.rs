//! A client of OVSDB, the database by which Open vSwitch is configured: RFC 7047, with the
//! extensions of ovsdb-server(7) that its own clients use.
//!
//! - [`datum`], [`uuid`](mod@uuid): values
//! - [`schema`]: tables and columns that a database has
//! - [`stream`]: messages in a stream of bytes
//! - [`error`]: what can be wrong with them

#![forbid(unsafe_code)]

pub mod datum;
pub mod error;
pub mod schema;
pub mod stream;
pub mod uuid;

pub use datum::{Atom, Datum};
pub use error::Malformed;
pub use schema::{AtomType, ColumnType, Schema};
pub use stream::Splitter;
pub use uuid::Uuid;
