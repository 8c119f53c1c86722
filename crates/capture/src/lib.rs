//! Packet filters and capture files.
//!
//! ```
//! use capture::bpf::{Instruction, Program};
//!
//! // Frames with the EtherType of ARP, as a whole.
//! let ether_type = Instruction { code: 0x28, jt: 0, jf: 0, k: 12 };
//! let is_arp = Instruction { code: 0x15, jt: 0, jf: 1, k: 0x806 };
//! let [all, none] = [65_535, 0].map(|k| Instruction { code: 0x06, jt: 0, jf: 0, k });
//! let program = Program::new(&[ether_type, is_arp, all, none])?;
//! assert!(program.matches(&[&[0; 12][..], &[8, 6], &[0; 46]].concat()));
//! assert!(!program.matches(&[0; 60]));
//! # Ok::<(), capture::bpf::BadProgram>(())
//! ```
//!
//! - [`bpf`]: classic BPF programs: checked, and run on frames
//! - [`calendar`]: the dates of frames
//! - [`files`]: capture files that take turns
//! - [`libpcap`]: filter expressions made into such programs, by the system's libpcap
//! - [`pcapng`]: capture files, written and read

pub mod bpf;
pub mod calendar;
pub mod files;
pub mod libpcap;
pub mod pcapng;
