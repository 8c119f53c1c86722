//! A bridge that looks at groups: it decides as one that does not, but that what goes to a group
//! goes to some ports alone.

use std::sync::Arc;

use ethdev::DropReason;
use packet::{Edit, Frame};

use super::kind::Kind;
use super::view::{Reach, View};
use crate::datapath::Source;
use crate::header::Addresses;
use crate::inlet::Inlet;
use crate::marks::bits;
use crate::stage::Stage;

/// Bytes of a frame that are looked at: a message of IGMP or MLD fits into the MTU of the link
/// (RFC 3376, section 4.2.16), and of one on a link of larger frames the first groups count.
pub const LONGEST: usize = 1_536;

/// What a worker has for that.
#[derive(Clone, Debug)]
pub struct Snoop {
    /// The groups.
    pub groups: Arc<View>,
    /// Where it puts what hosts and routers say.
    pub inlet: Inlet,
}

/// The decisions, on top of those of another kind of bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snooping<'b, S> {
    inner: S,
    snoop: &'b Snoop,
    /// Whether a router may be behind the port where the burst came in.
    may_have_router: bool,
}

impl<'b, S> Snooping<'b, S> {
    /// For a burst from `port`.
    pub(crate) fn new(inner: S, snoop: &'b Snoop, port: u16) -> Self {
        let may_have_router = snoop.groups.may_have_router(port);
        Self { inner, snoop, may_have_router }
    }
}

/// What is known of a run's frames: what the other kind of bridge knows, where they go, and whether
/// they say something to the bridge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Known<'b, M> {
    inner: M,
    reach: Reach<'b>,
    is_said: bool,
}

impl<'b, S: Stage> Stage for Snooping<'b, S> {
    type Key = (S::Key, Kind);
    type Glance = ();
    type Meta = Known<'b, S::Meta>;

    #[inline]
    fn read(frame: &Frame<'_>) -> (Self::Key, ()) {
        ((S::read(frame).0, Kind::of(frame)), ())
    }

    /// What a frame says is told by no glance.
    #[inline(always)]
    fn is_alike(_frame: &Frame<'_>, _addresses: Addresses, (): &()) -> bool {
        false
    }

    #[inline(always)]
    fn has_key_of(_frame: &Frame<'_>, (): &()) -> bool {
        false
    }

    #[inline(always)]
    fn telling((): &()) -> u64 {
        u64::MAX
    }

    #[inline]
    fn admit(&self, (key, kind): Self::Key) -> Result<Self::Meta, DropReason> {
        let inner = self.inner.admit(key)?;
        if kind == Kind::FromRouter && !self.may_have_router {
            return Err(DropReason::MulticastQuery);
        }
        let reach = self.snoop.groups.reach(S::vlan(&inner), kind);
        let is_said = matches!(kind, Kind::Report | Kind::FromRouter);
        Ok(Known { inner, reach, is_said })
    }

    #[inline]
    fn vlan(meta: &Self::Meta) -> u16 {
        S::vlan(&meta.inner)
    }

    #[inline]
    fn edit(&self, port: u16, meta: &Self::Meta) -> Option<Edit> {
        self.inner.edit(port, &meta.inner)
    }

    fn refusal(&self, port: u16) -> DropReason {
        self.inner.refusal(port)
    }

    #[inline]
    fn reaches(port: u16, meta: &Self::Meta) -> bool {
        meta.reach.has(port)
    }

    #[inline]
    fn is_for_all(meta: &Self::Meta) -> bool {
        matches!(meta.reach, Reach::All)
    }

    #[inline]
    fn lost(meta: &Self::Meta) -> DropReason {
        match meta.reach {
            Reach::All => DropReason::LinkDown,
            Reach::Ports(_) => DropReason::NoListener,
        }
    }

    #[inline]
    fn hear(&self, frames: &[Frame<'_>], mask: u32, meta: &Self::Meta, source: &Source<'_>) -> u32 {
        if meta.is_said { self.put(frames, mask, Self::vlan(meta), source) } else { 0 }
    }
}

impl<S> Snooping<'_, S> {
    /// Has control threads hear these frames; returns those for which there is no room, counted as
    /// dropped.
    #[cold]
    fn put(&self, frames: &[Frame<'_>], mask: u32, vlan: u16, source: &Source<'_>) -> u32 {
        let mut dropped = 0;
        for bit in bits(mask) {
            let Some(frame) = frames.get(bit as usize) else { continue };
            if !self.snoop.inlet.put((source.port, vlan), frame, source.now) {
                dropped |= 1_u32.wrapping_shl(bit);
            }
        }
        if dropped != 0 {
            let count = dropped.count_ones() as usize;
            source.stats.count_drops(DropReason::RateLimited, count);
        }
        dropped
    }
}
