//! Lets the interrupts of an interface rest while a worker polls it.
//!
//! With busy polling alone, frames that arrive still run the device's poll function at once, wherever
//! that is, and a worker that looks next finds few of them. These two settings leave it to the
//! worker (Linux `Documentation/networking/napi.rst`, "Busy polling" and "IRQ mitigation"); should
//! that not look, a timer does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::kernel::interface::Interface;

/// How often in a row the device may be found empty before its interrupts come again, and after how
/// many nanoseconds it is looked at when nobody does.
const SETTINGS: [(&str, &str); 2] =
    [("gro_flush_timeout", "200000"), ("napi_defer_hard_irqs", "2")];

/// Settings of an interface that are undone when this is dropped.
#[derive(Debug)]
pub(super) struct Rest {
    /// Files of those that were changed: an interface may get another name meanwhile.
    changed: Vec<File>,
}

impl Rest {
    /// Changes those settings that are 0; others somebody has chosen.
    ///
    /// # Errors
    /// Where the interface is not in this process's sysfs, or the settings may not be changed.
    pub(super) fn new(interface: &Interface<'_>) -> io::Result<Self> {
        let directory = PathBuf::from("/sys/class/net").join(&interface.name);
        // A sysfs may be that of another network namespace.
        let index = fs::read_to_string(directory.join("ifindex"))?;
        if index.trim() != interface.index.to_string() {
            return Err(io::Error::other("/sys is that of another network namespace"));
        }
        let mut rest = Self { changed: Vec::new() };
        for (name, value) in SETTINGS {
            let path = directory.join(name);
            if fs::read_to_string(&path)?.trim() == "0" {
                let file = File::options().write(true).open(&path)?;
                file.write_all_at(value.as_bytes(), 0)?;
                rest.changed.push(file);
            }
        }
        Ok(rest)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        for file in self.changed.iter().rev() {
            // It fails where the interface is gone.
            let _ = file.write_all_at(b"0", 0);
        }
    }
}
