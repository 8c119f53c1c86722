//! What a clone of the packet has of its own.

use super::dirty::Dirty;
use super::mpls::Labels;
use super::nsh::Metadata;
use super::outer;
use super::tags::Tags;
use crate::frozen::Zone;
use crate::key::{Key, TunnelWords, slot};
use crate::path::Cause;

/// What a clone of the packet has of its own.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) key: Key,
    /// What was written to words of the packet since the last operation.
    pub(super) dirty: Dirty,
    /// What has become of its tags since then.
    pub(super) tags: Tags,
    /// And of its labels.
    pub(super) labels: Labels,
    /// Whether labels were taken off, and it was not looked at anew.
    pub(super) is_uncovered: bool,
    /// A network service header that was put on since then.
    pub(super) nsh: Option<Metadata>,
    /// By how many bytes it has grown until then.
    pub(super) grown: i32,
    /// What is known by now of the tunnel that it goes into; `None` where that is not known.
    pub(super) tunnel: Option<TunnelWords>,
    /// What it is known by now to begin with, where it goes out.
    pub(super) begins: u32,
    /// The mark that it is known by now to have, where it goes to another bridge, and by what it goes there.
    pub(super) mark: u32,
    pub(super) cause: Cause,
    /// Where it was tracked when it went on; `None` once it may be of another connection.
    pub(super) zone: Option<Zone>,
}

impl State {
    #[inline]
    pub(super) fn new(key: &Key) -> Self {
        let (tags, labels) = (Tags::new(key), Labels::new(key));
        let (grown, begins) = (outer::longer(key), key.get_u32(slot::PACKET_TYPE));
        let (dirty, mark) = (Dirty::NONE, key.get_u32(slot::PKT_MARK));
        Self {
            key: *key,
            dirty,
            tags,
            labels,
            is_uncovered: false,
            nsh: None,
            grown,
            tunnel: None,
            begins,
            mark,
            cause: Cause::Rule,
            zone: None,
        }
    }

    /// By how many bytes it is to grow since, and by how many to shrink.
    pub(super) fn changes(&self) -> (u32, u32) {
        let (tags, labels) = (self.tags.growth(&self.key), self.labels.growth(&self.key));
        let nsh = self.nsh.as_ref().map_or(0, Metadata::header_len);
        let more = tags.0.saturating_add(labels.0).saturating_add(nsh);
        (more, tags.1.saturating_add(labels.1))
    }

    /// By how many bytes it has grown since.
    pub(super) fn growth(&self) -> i32 {
        let (more, less) = self.changes();
        more.cast_signed().saturating_sub(less.cast_signed())
    }
}
