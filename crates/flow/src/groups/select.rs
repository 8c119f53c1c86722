//! Which bucket a packet takes of a group of type select: by a hash of the packet, so that all of
//! a connection take one; of several, each as often as its weight says.
//!
//! The methods are those of Open vSwitch. Its hashes are its own, so a packet need not take the bucket
//! there that it takes here.

use openflow::Field;
use openflow::message::group::{GroupType, Selection};

use super::{Bucket, Group};
use crate::key::{Key, Slot, TAG_PRESENT, slot};
use crate::pattern::{finish, mix};
use crate::place::place;
use crate::reads::{field, hashed};
use crate::walk::write::holds;

/// Places for buckets, at most and at least.
const PLACES: (u64, u64) = (256, 16);

/// How a hash is made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// Of addresses and ports: the same in both directions.
    Symmetric,
    /// Of addresses and ports of IP.
    Tuple,
}

/// By which hash a packet has its place, and so its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceHash {
    /// Of what it is made.
    pub kind: HashKind,
    /// What it begins with.
    pub basis: u32,
}

impl PlaceHash {
    fn of(self, key: &Key) -> u64 {
        match self.kind {
            HashKind::Symmetric => symmetric(key, self.basis.into()),
            HashKind::Tuple => tuple(key, self.basis.into()),
        }
    }

    /// That of a packet in 32 bits, of which the lowest say its place. It is never 0, which stands for no hash.
    #[must_use]
    pub fn told(self, key: &Key) -> u32 {
        match u32::try_from(self.of(key) & u64::from(u32::MAX)) {
            Ok(0) | Err(_) => 1 << 16,
            Ok(hash) => hash,
        }
    }
}

/// What a bucket is chosen by.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'c> {
    /// The place that this hash gives, of so many.
    Place(PlaceHash, usize),
    /// Addresses and ports.
    Score,
    /// These fields, each with its mask.
    Fields(&'c [(Field, u128)]),
}

/// How a bucket is selected.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Method {
    /// No bucket is.
    None,
    /// The hash has a place, and each place a bucket: `dp_hash`.
    Places { places: Box<[u16]>, hash: PlaceHash },
    /// The bucket with the best score.
    Score,
    /// The same, by a hash of these fields alone, each with its mask.
    Fields { fields: Box<[(Field, u128)]>, basis: u64 },
}

impl Method {
    /// That of a group, which has a wish if it is said.
    pub(crate) fn of(kind: GroupType, wish: Option<&Selection>, buckets: &[Bucket]) -> Self {
        let places = || spread(buckets).map(Vec::into_boxed_slice);
        match (kind, wish) {
            (GroupType::Select, None) => places().map_or(Self::Score, |places| Self::Places {
                places,
                hash: PlaceHash { kind: HashKind::Symmetric, basis: 0 },
            }),
            (GroupType::Select, Some(wish)) if wish.method == "dp_hash" => {
                let is_symmetric = wish.parameter >> 32 == 1;
                let kind = if is_symmetric { HashKind::Symmetric } else { HashKind::Tuple };
                let basis = u32::try_from(wish.parameter & 0xFFFF_FFFF).unwrap_or_default();
                let hash = PlaceHash { kind, basis };
                places().map_or(Self::Score, |places| Self::Places { places, hash })
            }
            (GroupType::Select, Some(wish)) if wish.fields.is_empty() => Self::Score,
            (GroupType::Select, Some(wish)) => {
                Self::Fields { fields: wish.fields.clone().into(), basis: wish.parameter }
            }
            _ => Self::None,
        }
    }

    /// Adds the bits of packets that it depends on.
    pub(crate) fn reads(&self, key: &mut Key) {
        match self {
            Self::None => {}
            Self::Places { .. } | Self::Score => hashed(key),
            Self::Fields { fields, .. } => fields.iter().for_each(|(of, _)| field(*of, key)),
        }
    }

    /// What a bucket is chosen by, if one is.
    pub(crate) fn choice(&self) -> Option<Choice<'_>> {
        Some(match self {
            Self::None => return None,
            Self::Places { places, hash } => Choice::Place(*hash, places.len()),
            Self::Score => Choice::Score,
            Self::Fields { fields, .. } => Choice::Fields(fields),
        })
    }

    /// The bucket for a packet with this key, of those that are alive.
    pub(crate) fn pick<'b>(
        &self,
        buckets: &'b [Bucket],
        key: &Key,
        is_alive: impl FnMut(&'b Bucket) -> bool,
    ) -> Option<&'b Bucket> {
        match self {
            Self::None => None,
            Self::Places { places, hash } => by_place(buckets, places, hash.of(key), is_alive),
            Self::Score => best(buckets, symmetric(key, 0), is_alive),
            Self::Fields { fields, basis } => {
                best(buckets, of_fields(key, fields, *basis), is_alive)
            }
        }
    }
}

/// The first alive bucket from the place of this hash on: the others of a bucket that is dead are
/// spread over the rest.
fn by_place<'b>(
    buckets: &'b [Bucket],
    places: &[u16],
    hash: u64,
    mut is_alive: impl FnMut(&'b Bucket) -> bool,
) -> Option<&'b Bucket> {
    // There are 256 places at most.
    let start = usize::try_from(hash & 0xFFFF).unwrap_or_default() % places.len().max(1);
    let (before, behind) = places.split_at_checked(start)?;
    let in_turn = behind.iter().chain(before).map(|place| usize::from(*place));
    in_turn.filter_map(|place| buckets.get(place)).find(|bucket| is_alive(bucket))
}

/// The alive bucket whose number, with this hash, gives the best score.
fn best<'b>(
    buckets: &'b [Bucket],
    hash: u64,
    mut is_alive: impl FnMut(&'b Bucket) -> bool,
) -> Option<&'b Bucket> {
    let score = |bucket: &&Bucket| {
        let hash = finish(mix(hash, bucket.desc.id.into()));
        (hash & 0xFFFF) * u64::from(bucket.desc.weight)
    };
    buckets.iter().filter(|bucket| is_alive(bucket)).max_by_key(score)
}

/// How many places buckets of these weights take: as many as give the lightest of them one. `None`
/// where none has weight.
fn places(weights: &[u64]) -> Option<u64> {
    let least = weights.iter().copied().filter(|weight| *weight > 0).min()?;
    let all: u64 = weights.iter().sum();
    let some = u64::try_from(weights.len()).ok()?.saturating_mul(4).min(PLACES.0);
    all.div_ceil(least).max(some).max(PLACES.1).checked_next_power_of_two()
}

fn weights(buckets: &[Bucket]) -> Vec<u64> {
    buckets.iter().map(|bucket| bucket.desc.weight.into()).collect()
}

/// Spreads buckets over places by their weights, by Webster's method: the next place is for the bucket
/// that has the least of what it should have. `None` where that takes too many places, or none
/// has weight.
fn spread(buckets: &[Bucket]) -> Option<Vec<u16>> {
    let weights = weights(buckets);
    let count = places(&weights).filter(|count| *count <= PLACES.0)?;
    // Weights as fractions of odd numbers.
    let mut shares: Vec<(u64, u64)> = weights.into_iter().map(|weight| (weight, 1)).collect();
    let mut places = Vec::new();
    for _ in 0..count {
        let mut winner = 0;
        let mut best = (0, 1);
        for (index, share) in shares.iter().enumerate() {
            if share.0 * best.1 > best.0 * share.1 {
                (winner, best) = (index, *share);
            }
        }
        if let Some((_, divisor)) = shares.get_mut(winner) {
            *divisor += 2;
        }
        places.push(u16::try_from(winner).ok()?);
    }
    Some(places)
}

/// How a bucket is selected, in the words of Open vSwitch's log.
pub(super) fn explain(group: &Group) -> Vec<String> {
    let mut lines = Vec::new();
    match &group.selection {
        None => lines.push("No selection method specified. Trying dp_hash.".to_owned()),
        Some(wish) => lines.push(format!("Selection method specified: {}.", wish.method)),
    }
    let is_hash = group.selection.as_ref().is_some_and(|wish| wish.method == "hash");
    if !is_hash {
        lines.extend(explain_places(group));
    }
    match &group.method {
        Method::Places { places, hash, .. } => {
            let algorithm = u8::from(hash.kind == HashKind::Symmetric);
            let count = places.len();
            lines
                .push(format!("Use dp_hash with {count} hash values using algorithm {algorithm}."));
        }
        Method::Fields { fields, .. } => {
            let names: Vec<&str> = fields.iter().map(|(field, _)| field.name()).collect();
            lines.push(format!("Hash fields: {}", names.join(",")));
        }
        _ => {
            let why = if is_hash { "No hash fields. " } else { "" };
            lines.push(format!("{why}Falling back to default hash method."));
        }
    }
    lines
}

fn explain_places(group: &Group) -> Vec<String> {
    let weights = weights(&group.buckets);
    let all: u64 = weights.iter().sum();
    if weights.is_empty() {
        return vec!["  Don't apply dp_hash method without buckets.".to_owned()];
    }
    let Some(least) = weights.iter().copied().filter(|weight| *weight > 0).min() else {
        return vec!["  Total weight is zero. No active buckets.".to_owned()];
    };
    let mut lines = vec![format!("  Minimum weight: {least}, total weight: {all}")];
    let Method::Places { places: taken, .. } = &group.method else {
        let count = places(&weights).unwrap_or(u64::MAX);
        lines.push(format!("  Too many hash values required: {count}"));
        return lines;
    };
    let count = taken.len() as u64;
    lines.push(format!("  Using {count} hash values:"));
    for (index, weight) in weights.iter().enumerate() {
        // Hundredths, rounded.
        let target = (count * weight * 100 + all / 2) / all;
        let hits = taken.iter().filter(|place| usize::from(**place) == index).count();
        let (whole, part) = (target / 100, target % 100);
        let line =
            format!("  Bucket {index}: weight={weight}, target={whole}.{part:02} hits={hits}");
        lines.push(line);
    }
    lines
}

/// The ports of a packet of IP. Fragments have none, so that all of them go together.
fn ports(key: &Key, with_udp: bool) -> Option<(u64, u64)> {
    let is_whole = key.get_u8(slot::IP_FRAG) == 0;
    let has_ports = match key.get_u8(slot::IP_PROTO) {
        6 | 132 => true,
        17 => with_udp,
        _ => false,
    };
    let of = |slot: Slot| key.get_u64(slot);
    (is_whole && has_ports).then(|| (of(slot::TP_SRC), of(slot::TP_DST)))
}

fn mix_wide(hash: u64, value: u128) -> u64 {
    let part = |value: u128| u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default();
    mix(mix(hash, part(value >> 64)), part(value))
}

/// The addresses of IP, joined.
fn addresses(key: &Key, join: impl Fn(u128, u128) -> u128) -> u128 {
    match key.get_u16(slot::ETH_TYPE) {
        0x0800 => join(key.get(slot::IPV4_SRC), key.get(slot::IPV4_DST)),
        0x86DD => join(key.get(slot::IPV6_SRC), key.get(slot::IPV6_DST)),
        _ => 0,
    }
}

/// A hash that is the same for a connection's two directions. Of UDP it is without ports, so that
/// fragments go with the rest.
fn symmetric(key: &Key, basis: u64) -> u64 {
    let ether_type = key.get_u64(slot::ETH_TYPE);
    let tci = key.get_u16(slot::VLAN_TCI);
    let vlan = if tci & TAG_PRESENT == 0 { 0 } else { tci & 0x0FFF };
    let mut hash = mix(basis, key.get_u64(slot::ETH_SRC) ^ key.get_u64(slot::ETH_DST));
    hash = mix(hash, ether_type << 16 | u64::from(vlan));
    if matches!(ether_type, 0x0800 | 0x86DD) {
        hash = mix_wide(hash, addresses(key, |source, target| source ^ target));
        hash = mix(hash, key.get_u64(slot::IP_PROTO));
        if let Some((source, target)) = ports(key, false) {
            hash = mix(hash, source ^ target);
        }
    }
    finish(hash)
}

/// A hash of addresses, protocol and ports of IP.
fn tuple(key: &Key, basis: u64) -> u64 {
    let mut hash = basis;
    if matches!(key.get_u16(slot::ETH_TYPE), 0x0800 | 0x86DD) {
        hash = mix_wide(hash, addresses(key, |source, _| source));
        hash = mix_wide(hash, addresses(key, |_, target| target));
        hash = mix(hash, key.get_u64(slot::IP_PROTO));
        if let Some((source, target)) = ports(key, true) {
            hash = mix(hash, source << 16 | target);
        }
    }
    finish(hash)
}

/// A hash of those fields that a packet has.
fn of_fields(key: &Key, fields: &[(Field, u128)], basis: u64) -> u64 {
    let mut hash = mix(1, basis);
    for (field, mask) in fields.iter().filter(|(field, _)| holds(field.prerequisite(), key)) {
        if let Some(slot) = place(*field) {
            hash = mix_wide(hash, key.get(slot) & mask);
        }
    }
    finish(hash)
}
