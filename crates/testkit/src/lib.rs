//! What tests of several crates share. It uses no other crate, so that the tests of each can have it.
//!
//! ```
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! let done = AtomicBool::new(false);
//! std::thread::scope(|scope| {
//!     scope.spawn(|| done.store(true, Ordering::Release));
//!     testkit::wait_for("the other thread", || done.load(Ordering::Acquire));
//! });
//! ```

mod process;

use std::time::{Duration, Instant};

pub use process::ProcessStatus;

/// How long anything may take on a machine that is busy with other tests; what takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks: others have to get on meanwhile, perhaps on the same core.
const PAUSE: Duration = Duration::from_micros(100);

/// Waits until something is so, for what tells nobody when it is: looks often.
///
/// # Panics
/// When it takes longer than [`PATIENCE`]; `what` says what was waited for.
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not seen in {PATIENCE:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
