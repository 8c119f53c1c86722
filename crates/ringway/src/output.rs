//! Standard output. A reader that goes away (`| head`) is no error: there is nobody left to
//! write for.

use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::exit::Failure;

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Something was lost that somebody waits for.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Writes `text` as it is and flushes it.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        CLOSED.store(true, Relaxed);
        if error.kind() != ErrorKind::BrokenPipe {
            tracing::error!("cannot write to standard output: {error}");
            FAILED.store(true, Relaxed);
        }
    }
}

/// Whether everything arrived that somebody was there to read.
///
/// # Errors
/// When it did not, as on a disk that is full.
pub fn finish() -> Result<(), Failure> {
    if FAILED.load(Relaxed) {
        return Err(Failure::runtime("standard output is not complete; see above"));
    }
    Ok(())
}

/// Whether nobody reads what is written.
pub fn is_closed() -> bool {
    CLOSED.load(Relaxed)
}

/// Writes a line.
pub fn line(line: &str) {
    text(&format!("{line}\n"));
}

/// Writes a JSON value on one line.
pub fn json_line(value: &serde_json::Value) {
    line(&value.to_string());
}

/// Writes a JSON value for people.
pub fn json_pretty(value: &serde_json::Value) {
    line(&format!("{value:#}"));
}
