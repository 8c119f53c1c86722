//! TLS for connections of the switch, spoken by a process beside it.
//!
//! Who wants a connection to be secured hands its socket over ([`Identity::wrap`]) and gets another one, by
//! which what is said goes in plain. Between the two is a process of its own, the *worker*, which has
//! OpenSSL loaded, and the keys; the process that reads what guests write has neither. The worker opens no
//! files, has no privileges, and reaches no network by TCP but by the sockets that it was given.
//!
//! It is started with the first connection, by the *starter*, which does nothing else and starts another
//! one should it die. Should the starter die, there is one in reserve. All are the program itself once more, so
//! `main` must call [`serve_if_asked`] before it does anything else.
//!
//! In the switch:
//! - [`speaker`]: the way to the starter, and connections that are handed over
//! - [`settings`]: keys, certificates, and what is spoken
//! - `watch`: what is heard of the other processes
//! - `order`: what is said of a connection that is handed over
//!
//! In the other processes:
//! - `process`: what they are started as
//! - `starter`: who starts workers
//! - `worker`: all connections, in one loop
//! - `session`: one connection: its handshake, and what passes both ways
//! - `connection`: what OpenSSL does for it
//! - `context`: keys and certificates as OpenSSL has them
//! - `library`: OpenSSL's library

mod connection;
mod context;
mod library;
mod order;
mod process;
mod session;
pub mod settings;
pub mod speaker;
mod starter;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

pub use order::Side;
pub use process::serve_if_asked;
pub use session::PATIENCE;
pub use settings::Settings;
pub use speaker::{Identity, Speaker, Tunnel, Verdict};
pub use watch::Watch;
