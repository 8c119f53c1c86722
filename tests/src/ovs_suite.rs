//! The test-suite of Open vSwitch, as Debian's package `openvswitch-source` has it.

use std::path::Path;

/// The package's archive.
pub const TARBALL: &str = "/usr/src/openvswitch/openvswitch.tar.gz";

/// Whether it is unpacked there.
#[must_use]
pub fn is_in(folder: &Path) -> bool {
    folder.join("tests/testsuite").is_file()
}
