//! How large the stripped program may be: it is to get smaller, and would grow by itself
//! (docs/decisions/0035).

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

/// Bytes of the program that is shipped.
const SHIPPED: u64 = 8_900_000;

/// Bytes of the one that is tested, which is linked without LTO, and what no frame passes of it is not
/// optimised (docs/decisions/0029).
const TESTED: u64 = 31_000_000;

/// Refuses a program that is larger than it may be.
pub fn check(program: &Path, is_shipped: bool) -> Result<()> {
    let limit = if is_shipped { SHIPPED } else { TESTED };
    let size = fs::metadata(program)?.len();
    println!("package: the program has {size} bytes, of {limit} at most");
    ensure!(
        size <= limit,
        "the stripped program has {size} bytes, {} more than it may: see what has grown with \
         'nm --size-sort --print-size' of one that is not stripped, or say in \
         docs/decisions/0035 why it has to be larger",
        size.saturating_sub(limit)
    );
    Ok(())
}
