//! The ways of packets that fragments go on by.

use std::any::Any;
use std::fmt::Debug;

/// The way that a fragment goes on by once its packet is whole. All of the packet goes by the one of the
/// fragment that came last: nobody may bring a fragment of his in between those of others whose way is
/// another one. Only who adds fragments knows what such a way is.
pub trait Way: Any + Debug + Send + Sync {
    /// Whether it is the same way.
    fn is_same(&self, other: &dyn Way) -> bool;
}

impl<T: Any + Debug + Eq + Send + Sync> Way for T {
    fn is_same(&self, other: &dyn Way) -> bool {
        (other as &dyn Any).downcast_ref::<T>().is_some_and(|other| other == self)
    }
}
