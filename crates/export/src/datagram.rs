//! What is sent at once.

/// What is sent to collectors at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// How many records are in it: samples, or flows.
    pub records: u32,
}
