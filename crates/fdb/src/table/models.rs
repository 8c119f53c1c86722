//! Every order in which readers and the writer can get at an entry (`cargo xtask loom`).

use std::sync::Arc;

use eal::sync::check_all;
use loom::thread;

use super::*;

/// Keys whose port is their number, so that a value that goes with another key is told.
fn entry(number: u16) -> (Key, Value) {
    (Key::from_bits(0, number.into()), Value::new(number, false, number.into()))
}

fn belongs_together(found: Option<(Key, Value)>) {
    if let Some((key, value)) = found {
        assert_eq!(entry(value.port()).0, key, "the value of another key");
    }
}

/// A bucket whose first entry is that of key 1.
fn bucket() -> Arc<Bucket> {
    let bucket = Arc::new(Bucket::default());
    let (key, value) = entry(1);
    bucket.0[0].set(key, value);
    bucket
}

#[test]
fn a_key_is_never_read_with_the_value_of_another() {
    check_all(|| {
        let bucket = bucket();
        let reading = Arc::clone(&bucket);
        let reader = thread::spawn(move || {
            belongs_together(reading.0[0].entry());
            for number in [1, 2] {
                let key = entry(number).0;
                if let Ok(hit) = reading.find(key) {
                    assert_eq!(hit.value.port(), number);
                }
            }
        });
        for number in [2, 1] {
            let (key, value) = entry(number);
            bucket.0[0].set(key, value);
        }
        reader.join().unwrap();
    });
}

#[test]
fn an_entry_that_had_many_keys_meanwhile_is_none_of_them() {
    check_all(|| {
        let bucket = bucket();
        let reading = Arc::clone(&bucket);
        let reader = thread::spawn(move || belongs_together(reading.0[0].entry()));
        // As many as the version in a key can count.
        for number in 2..=5 {
            let (key, value) = entry(number);
            bucket.0[0].set(key, value);
        }
        reader.join().unwrap();
    });
}

#[test]
fn an_address_that_was_seen_again_does_not_age_another() {
    check_all(|| {
        let bucket = bucket();
        let seeing = Arc::clone(&bucket);
        let reader = thread::spawn(move || {
            if let Ok(hit) = seeing.find(entry(1).0) {
                hit.slot.refresh(hit.value, 99);
            }
        });
        let (key, value) = entry(2);
        bucket.0[0].set(key, value);
        reader.join().unwrap();
        // Loom does not know that what a compare-and-swap has stored comes before what was stored
        // over it, so it may read a value of another version here, which is none.
        let Some((found, value)) = bucket.0[0].entry() else { return };
        assert_eq!((found, value.port()), (key, 2));
        assert!(value.seen() == 2, "seen {} by what another address did", value.seen());
    });
}

#[test]
fn a_moved_address_is_behind_one_port_or_the_other() {
    check_all(|| {
        let bucket = bucket();
        let reading = Arc::clone(&bucket);
        let reader = thread::spawn(move || {
            let hit = reading.find(entry(1).0).unwrap();
            assert!([1, 5].contains(&hit.value.port()));
        });
        bucket.0[0].update(Value::new(5, false, 3));
        bucket.mark_overflowed(true);
        reader.join().unwrap();
    });
}
