//! Mirrors: copies of what passes through some ports, for somebody who watches.
//!
//! The settings are those of Open vSwitch's table `Mirror`, by the same names.
//!
//! - `file`: mirrors whose copies go to files
//! - `wanted`: the mirrors of a switch as control threads see them

mod file;
mod wanted;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ::capture::files::Turns;
use datapath::vlan::{MAX_VLAN, VlanSet};
use packet::MAX_FRAME_LEN;
use packet::headers::ethernet::HEADER_LEN;
use serde::{Deserialize, Serialize};

use self::file::Place;
pub(crate) use self::wanted::Mirrors;
use crate::config::DEFAULT_BRIDGE;

pub use datapath::mirror::MAX_MIRRORS;

/// A mirror: which frames it copies, and where the copies go.
///
/// It copies frames that come in on some ports, as far as these carry them, and frames that go out
/// on some, as far as the limits of these let them. A frame for which both is so is copied once.
///
/// ```
/// use switch::Mirror;
///
/// let mirror = Mirror {
///     select_src_port: ["vm1".to_owned()].into(),
///     output_port: Some("watcher".to_owned()),
///     ..Mirror::default()
/// };
/// assert!(mirror.check().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table [mirrors.NAME] with output-port = \"..\", output-vlan or output-file"
)]
pub struct Mirror {
    /// The bridge whose ports it is about; `None`: the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Whether all frames that come in on any port, or go out on one, are copied.
    #[serde(skip_serializing_if = "is_no")]
    pub select_all: bool,
    /// Ports of which what comes in is copied.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub select_src_port: BTreeSet<String>,
    /// Ports of which what goes out is copied.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub select_dst_port: BTreeSet<String>,
    /// The VLANs of which frames are copied, 0 for those without; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select_vlan: Option<VlanSet>,
    /// The port where copies go. It gets nothing else, and what comes in on it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_port: Option<String>,
    /// Or the VLAN where they go: to all ports that carry it, but the one that the frame came from,
    /// unless [`reflect`](Self::reflect) says so, with its tag in place of the frame's own.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "datapath::vlan::formats::vlan"
    )]
    pub output_vlan: Option<u16>,
    /// Whether copies to a VLAN go to the port that the frame came from, too, if it carries that.
    #[serde(skip_serializing_if = "is_no")]
    pub reflect: bool,
    /// Or the file where they are written, as pcapng: an absolute path. What is there is written on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_file: Option<PathBuf>,
    /// How many millions of bytes a file has before another one is begun, whose name has a number;
    /// `None`: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// How many seconds the frames of a file are apart before another one is begun; `None`: any
    /// number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_seconds: Option<u64>,
    /// How many files are kept, the newest; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<usize>,
    /// How many bytes of a frame are copied at most; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u16>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_no(value: &bool) -> bool {
    !*value
}

impl Mirror {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// The key of the one that does not, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key: &'static str, reason: &str| Err((key, reason.to_owned()));
        let names = !self.select_src_port.is_empty() || !self.select_dst_port.is_empty();
        match (&self.output_port, self.output_vlan, &self.output_file) {
            (None, None, None) => {
                return wrong("output-port", "give output-port, output-vlan or output-file");
            }
            (Some(_), Some(_), _) => {
                return wrong("output-vlan", "give output-port or output-vlan, not both");
            }
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                let reason = "give output-file, or output-port or output-vlan, not both";
                return wrong("output-file", reason);
            }
            (None, Some(vlan), None) if !(1..=MAX_VLAN).contains(&vlan) => {
                let reason = format!("output-vlan {vlan}: expected 1 to {MAX_VLAN}");
                return Err(("output-vlan", reason));
            }
            _ => self.check_files()?,
        }
        if self.reflect && self.output_vlan.is_none() {
            return wrong("reflect", "reflect is for copies to a VLAN: give output-vlan");
        }
        if self.select_all && names {
            return wrong("select-all", "select-all selects all ports: leave the lists out");
        }
        if !self.select_all && !names {
            let reason = "it selects nothing: give select-src-port, select-dst-port or select-all";
            return wrong("select-all", reason);
        }
        if self.select_vlan.as_ref().is_some_and(VlanSet::is_empty) {
            return wrong("select-vlan", "select-vlan without a VLAN: leave it out for all");
        }
        match self.snaplen {
            Some(snaplen) if usize::from(snaplen) < HEADER_LEN => {
                Err(("snaplen", format!("snaplen {snaplen}: expected {HEADER_LEN} to 65535")))
            }
            _ => self.check_output(),
        }
    }

    /// Files take turns only where there are any.
    fn check_files(&self) -> Result<(), (&'static str, String)> {
        let Self { output_file, file_size, file_seconds, files, .. } = self;
        let numbers = [
            ("file-size", *file_size),
            ("file-seconds", *file_seconds),
            ("files", files.map(|files| files as u64)),
        ];
        for (key, number) in numbers {
            match number {
                Some(0) => return Err((key, format!("{key} 0: expected 1 or more"))),
                Some(_) if output_file.is_none() => {
                    return Err((key, format!("{key} is for files: give output-file")));
                }
                _ => {}
            }
        }
        if files.is_some() && file_size.is_none() && file_seconds.is_none() {
            let reason = "files without file-size or file-seconds: there is one file only";
            return Err(("files", reason.to_owned()));
        }
        let checked = output_file.as_deref().map_or(Ok(()), file::check);
        checked.map_err(|reason| ("output-file", reason))
    }

    /// Where its copies are written, if they are.
    fn place(&self) -> Option<Place> {
        let turns = Turns {
            size: self.file_size.map(|millions| millions.saturating_mul(1_000_000)),
            time: self.file_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000)),
            files: self.files,
        };
        let path = self.output_file.clone()?;
        let most = u32::try_from(MAX_FRAME_LEN).unwrap_or(u32::MAX);
        Some(Place { path, turns, snaplen: self.snaplen.map_or(most, u32::from) })
    }

    /// What goes to a mirror's port is a copy already.
    fn check_output(&self) -> Result<(), (&'static str, String)> {
        let Some(output) = &self.output_port else { return Ok(()) };
        for (key, ports) in
            [("select-src-port", &self.select_src_port), ("select-dst-port", &self.select_dst_port)]
        {
            if ports.contains(output) {
                let reason = format!(
                    "{key}: '{output}' is the output port, which has no frames of \
                                      its own"
                );
                return Err((key, reason));
            }
        }
        Ok(())
    }

    /// The name of the bridge whose ports it is about.
    #[must_use]
    pub fn bridge_name(&self) -> &str {
        self.bridge.as_deref().unwrap_or(DEFAULT_BRIDGE)
    }

    /// All ports that it names: the key, and the port.
    pub fn ports(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let src = self.select_src_port.iter().map(|name| ("select-src-port", name.as_str()));
        let dst = self.select_dst_port.iter().map(|name| ("select-dst-port", name.as_str()));
        let output = self.output_port.iter().map(|name| ("output-port", name.as_str()));
        src.chain(dst).chain(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_written_as_they_are_read() {
        let text =
            r#"{"select-src-port":["a","b"],"select-vlan":"5,7-9","output-port":"w","snaplen":96}"#;
        let mirror: Mirror = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&mirror).unwrap(), text);
        assert_eq!(mirror.check(), Ok(()));
        let ports: Vec<_> = mirror.ports().collect();
        let expected = [("select-src-port", "a"), ("select-src-port", "b"), ("output-port", "w")];
        assert_eq!(ports, expected);
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, key, expected) in [
            (r#""select-all":true"#, "output-port", "give output-port, output-vlan or output-f"),
            (
                r#""select-all":true,"output-port":"w","output-file":"/f""#,
                "output-file",
                "not both",
            ),
            (r#""select-all":true,"output-file":"f""#, "output-file", "an absolute path"),
            (r#""select-all":true,"output-file":"/""#, "output-file", "an absolute path"),
            (r#""select-all":true,"output-port":"w","file-size":1"#, "file-size", "for files"),
            (r#""select-all":true,"output-file":"/f","file-size":0"#, "file-size", "1 or more"),
            (r#""select-all":true,"output-file":"/f","files":2"#, "files", "one file only"),
            (r#""select-all":true,"output-port":"w","output-vlan":5"#, "output-vlan", "not both"),
            (r#""select-all":true,"output-vlan":0"#, "output-vlan", "expected 1 to 4094"),
            (
                r#""select-all":true,"output-port":"w","reflect":true"#,
                "reflect",
                "give output-vlan",
            ),
            (r#""output-port":"w""#, "select-all", "selects nothing"),
            (r#""output-port":"w","select-vlan":5"#, "select-all", "selects nothing"),
            (
                r#""output-port":"w","select-all":true,"select-dst-port":["a"]"#,
                "select-all",
                "leave the lists out",
            ),
            (
                r#""output-port":"w","select-all":true,"snaplen":13"#,
                "snaplen",
                "expected 14 to 65535",
            ),
            (
                r#""output-port":"w","select-all":true,"select-vlan":[]"#,
                "select-vlan",
                "without a VLAN",
            ),
            (
                r#""output-port":"w","select-dst-port":["a","w"]"#,
                "select-dst-port",
                "'w' is the output port",
            ),
        ] {
            let mirror: Mirror = serde_json::from_str(&format!("{{{text}}}")).unwrap();
            let (found, reason) = mirror.check().unwrap_err();
            assert_eq!(found, key, "{text}");
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }
}
