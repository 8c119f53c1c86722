//! Samples as control threads see them: which are wanted of which bridges, and what workers have sampled.
//!
//! What workers do for that is [`datapath::sample`].
//!
//! - `reader`: what workers have sampled, for a thread that takes its time
//! - `wanted`: the samplings of a switch

mod reader;
mod wanted;

pub use self::reader::SampleReader;
pub(crate) use self::wanted::Wanted;
pub use datapath::sample::{
    MAX_SAMPLE, MAX_SAMPLINGS, Onward, Sample, SampleLoss, Sampled, Sampling, Sides,
};
