//! What a lookup in the forwarding database costs, with few and with many entries.
//!
//! `cargo run --release -p ringway-switch --example fdb-bench`
//!
//! Lookups come in bursts of 32 as on the data path: first all keys are hashed and prefetched,
//! then looked up. The addresses are those in the database in random order, so that with many
//! entries nearly every lookup misses the caches.

use std::hint::black_box;
use std::time::Instant;

use switch::fdb::{Fdb, Key};

const BURST: usize = 32;
const LOOKUPS: usize = 1 << 22;
const ROUNDS: usize = 7;

fn main() {
    println!("{:>10} {:>12} {:>12} {:>12}", "entries", "ns/lookup", "ns/see", "ns/miss");
    for entries in [16, 1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20] {
        let fdb = Fdb::new(entries, 64, 300);
        let keys: Vec<Key> = (0..entries as u64).map(key).collect();
        for (index, key) in keys.iter().enumerate() {
            fdb.write().learn(*key, fdb.hash(*key), u16::try_from(index % 64).unwrap_or(0));
        }
        let order = shuffled(&keys);
        let absent: Vec<Key> = (0..order.len() as u64).map(|n| key(n + (1 << 30))).collect();
        let find = best(&order, |burst| lookup(&fdb, burst));
        let see = best(&order, |burst| see(&fdb, burst));
        let miss = best(&absent, |burst| lookup(&fdb, burst));
        println!("{entries:>10} {find:>12.2} {see:>12.2} {miss:>12.2}");
    }
}

fn key(number: u64) -> Key {
    Key::from_bits(0, 0x5254_0000_0000 + number)
}

/// As many keys as there are lookups, in an order that no prefetcher of the CPU foresees.
fn shuffled(keys: &[Key]) -> Vec<Key> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 8).unwrap_or(0) % keys.len()
    };
    (0..LOOKUPS).filter_map(|_| keys.get(next()).copied()).collect()
}

/// Nanoseconds per key of the fastest of some rounds.
#[allow(clippy::cast_precision_loss, reason = "a mean for people")]
fn best(keys: &[Key], mut burst: impl FnMut(&[Key])) -> f64 {
    let round = |_| {
        let start = Instant::now();
        keys.chunks_exact(BURST).for_each(&mut burst);
        start.elapsed().as_nanos() as f64 / keys.len() as f64
    };
    (0..ROUNDS).map(round).fold(f64::MAX, f64::min)
}

fn lookup(fdb: &Fdb, keys: &[Key]) {
    let Some(keys) = keys.first_chunk::<BURST>() else { return };
    let hashes = keys.map(|key| fdb.hash(key));
    hashes.iter().for_each(|hash| fdb.prefetch(*hash));
    for (key, hash) in keys.iter().zip(hashes) {
        black_box(fdb.find(*key, hash));
    }
}

fn see(fdb: &Fdb, keys: &[Key]) {
    let Some(keys) = keys.first_chunk::<BURST>() else { return };
    let hashes = keys.map(|key| fdb.hash(key));
    hashes.iter().for_each(|hash| fdb.prefetch(*hash));
    let now = fdb.now();
    for (key, hash) in keys.iter().zip(hashes) {
        black_box(fdb.see(*key, hash, 1, now));
    }
}
