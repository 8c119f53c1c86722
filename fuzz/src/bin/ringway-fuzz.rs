//! Makes inputs for the target that is named by RINGWAY_FUZZ_TARGET, or without that prints what
//! targets there are. Its arguments are those of libFuzzer; `cargo xtask fuzz` gives them.

#![no_main]
#![allow(clippy::expect_used, clippy::panic, reason = "tests: to panic is how they fail")]

use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use fuzz::{TARGETS, Target};

/// So many files may stay open over all runs: what is made once and kept.
const KEPT_FILES: i32 = 64;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

/// The target that was asked for.
fn target() -> &'static Target {
    let Ok(name) = std::env::var("RINGWAY_FUZZ_TARGET") else {
        for Target { name, about, .. } in TARGETS {
            println!("{name}\t{about}");
        }
        std::process::exit(0);
    };
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name}"))
}

/// The lowest number that no file has.
fn free_number() -> i32 {
    std::fs::File::open("/dev/null").expect("/dev/null opens").as_raw_fd()
}

libfuzzer_sys::fuzz_target!(init: { TARGET.get_or_init(target); }, |data: &[u8]| {
    (TARGET.get_or_init(target).run)(data);
    static FIRST: OnceLock<i32> = OnceLock::new();
    let first = *FIRST.get_or_init(free_number);
    // Files of peers are closed by another thread, which may be some of them behind.
    let closed = (0..1000).any(|tries| {
        std::thread::sleep(Duration::from_millis(if tries == 0 { 0 } else { 10 }));
        free_number() < first + KEPT_FILES
    });
    assert!(closed, "files are left open");
});
