//! The ways that fragments have come by.

use std::any::Any;
use std::fmt::Debug;

/// The way that a fragment has come by, as far as only who adds fragments knows it. All of a packet goes on as
/// the fragment that came last: nobody may bring one of his in between those of others, who have come by
/// another way.
pub trait Way: Any + Debug + Send + Sync {
    /// Whether it is the same way.
    fn is_same(&self, other: &dyn Way) -> bool;
}

impl<T: Any + Debug + Eq + Send + Sync> Way for T {
    fn is_same(&self, other: &dyn Way) -> bool {
        (other as &dyn Any).downcast_ref::<T>().is_some_and(|other| other == self)
    }
}
