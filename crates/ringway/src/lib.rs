//! What the `ringway` command shares with programs that talk to a running switch: requests,
//! answers, and both ends of the control socket. The command itself is no library.
//!
//! ```
//! use ringway::control::protocol::{Request, Response};
//! use ringway::control::refusal::Code;
//!
//! // One object per line, in either direction.
//! let line = serde_json::to_string(&Request::PortDel { name: "vm1".to_owned() })?;
//! assert_eq!(line, r#"{"command":"port-del","name":"vm1"}"#);
//! let answer = r#"{"error":"there is no port 'vm1'","code":"not-found"}"#;
//! let answer = serde_json::from_str(answer)?;
//! assert!(matches!(answer, Response::Error(refusal) if refusal.code == Code::NotFound));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! - [`control`]: the control socket, both ends
//! - [`exit`]: how a command fails

#![forbid(unsafe_code)]

pub mod control;
pub mod exit;
