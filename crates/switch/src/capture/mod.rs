//! Captures as control threads see them: what is wanted of which ports, and what workers have written down.
//!
//! What workers do for that is [`datapath::capture`].
//!
//! - `reader`: what workers have captured, for a thread that takes its time
//! - `wanted`: the captures of a switch

mod reader;
pub(crate) mod wanted;

pub(crate) use self::reader::Shared;
pub use self::reader::{CaptureReader, CapturedPort};
pub(crate) use self::wanted::Wanted;
pub use datapath::capture::{Capture, Captured, Direction, MAX_CAPTURES, Note};
