//! OpenFlow tables: which rule is for a packet, and what becomes of it then.
//!
//! - `key`: all that rules can match on, of one packet
//! - `extract`: the key of a frame
//! - `shape`: frames that are told apart without a key
//! - `pattern`: what a rule asks of a key
//! - `classifier`: the rules of one table, by what they match on
//! - `shards`: a map of which old versions stay
//! - [`place`]: where fields of OpenFlow are in a key
//! - `hash`: the hashes that links are chosen by
//! - `rewrite`: changes of frames
//! - `rule`: a rule, and what it has done
//! - `reads`: what actions depend on
//! - `onward`: rules that only write to packets or beside them and go on
//! - `touched`: which words actions may write to
//! - `kinds`: what the ways of packets of a kind depend on
//! - `tables`: all tables of a bridge, and changes of them
//! - `groups`: groups of buckets that rules send packets to
//! - `lengths`: lengths that packets are compared with
//! - `meters`: meters that rules send packets through
//! - `uses`: what rules use of what else there is
//! - `possible`: which actions there are
//! - `pipeline`: all that decides about a bridge's packets
//! - [`walk`]: the way of a packet through the tables
//! - `path`: that way as few operations
//! - `frozen`: where it was stopped, and what it takes to go on
//! - `cache`: the ways of packets that have come before
//!
//! ```
//! use flow::{Classifier, Depth, Key, Pattern, Ranked, extract, slot};
//!
//! /// A rule that only has a name.
//! #[derive(Clone)]
//! struct Rule(Pattern, u16, &'static str);
//!
//! impl Ranked for Rule {
//!     fn pattern(&self) -> &Pattern {
//!         &self.0
//!     }
//!
//!     fn priority(&self) -> u16 {
//!         self.1
//!     }
//! }
//!
//! let (mut key, mut mask) = (Key::default(), Key::default());
//! key.set(slot::ETH_TYPE, 0x0806);
//! mask.set(slot::ETH_TYPE, slot::ETH_TYPE.ones());
//! let mut table = Classifier::default();
//! table.insert(Rule(Pattern::new(&key, &mask), 100, "arp"));
//! table.insert(Rule(Pattern::default(), 0, "all else"));
//!
//! let frame = b"\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x01\x08\x06";
//! let mut key = Key::default();
//! extract(&mut key, frame, frame.len(), 1, Depth::All);
//! assert_eq!(table.lookup(&key).map(|rule| rule.2), Some("arp"));
//! ```

#![forbid(unsafe_code)]

mod cache;
mod classifier;
mod extract;
mod frozen;
mod groups;
mod hash;
mod key;
mod kinds;
mod lengths;
mod meters;
mod onward;
mod path;
mod pattern;
mod pipeline;
pub mod place;
mod possible;
mod reads;
mod rewrite;
mod rule;
mod shape;
mod shards;
mod tables;
mod touched;
mod uses;
pub mod walk;

pub use cache::{CacheStats, PathCache, PathCounts, PathId, Run};
pub use classifier::{Classifier, Clause, Ranked, Tuple};
pub use extract::{Depth, Layers, extract};
pub use frozen::{Frozen, Rest, Zone};
pub use groups::{Bucket, Choice, Group, GroupRefusal, Groups, HashKind, MAX_GROUP, PlaceHash};
pub use key::{
    FRAG_ANY, FRAG_LATER, INSIDE, Key, NO_ETHER_TYPE, PACKET_WORDS, Slot, TAG_PRESENT,
    TRACKED_WORDS, TunnelWords, WORDS, slot,
};
pub use lengths::unpadded;
pub use meters::{
    CONTROLLER_METER, MAX_BANDS, MAX_METERS, Meter, MeterRefusal, MeterStats, Meters,
};
pub use path::{
    Basis, Cause, Edit, Lost, NshPush, Op, PacketIn, Path, Sample, TableSet, Track, Visit,
};
pub use pattern::{Mask, Pattern};
pub use pipeline::{OptionField, Pipeline, Port, Tunnelling, VlanLimit};
pub use rewrite::{adjust, push_nsh, rewrite, translate};
pub use rule::{Ended, Flags, Rule, Stats, Timeouts};
pub use tables::{
    Change, Command, DEFAULT_LIMIT, Filter, Fragments, HIDDEN_TABLE, HiddenRule, LookUps, Miss,
    Outcome, Refusal, Selector, TABLES, TableSettings, Tables,
};
