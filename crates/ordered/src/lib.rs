//! Maps, sets and lists that are put in order by one copy of the sort for all types.
//!
//! The standard library has a copy of its stable sort, of 4 kB, for each type that is sorted, and sorts what
//! is collected into a map or a set as well. Where nobody waits for it, in what controls, these take their
//! place (docs/decisions/0035):
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use ordered::{Gather as _, Order as _};
//!
//! let lengths: BTreeMap<&str, usize> = ["one", "three"].map(|word| (word, word.len())).into_iter().gather();
//! assert_eq!(lengths["three"], 5);
//! let mut words = ["three", "one", "two"];
//! words.order_by_key(|word| word.len());
//! assert_eq!(words, ["one", "two", "three"]);
//! ```
//!
//! - [`gather`](mod@gather): what an iterator gives as a map or a set
//! - [`order`](mod@order): lists

#![forbid(unsafe_code)]

pub mod gather;
pub mod order;

pub use gather::{Gather, Gathered};
pub use order::Order;
