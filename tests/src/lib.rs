//! What the end-to-end tests stand on: real peers, started, talked to and
//! cleaned up. Everything waits for events with a deadline and ends its
//! processes, sockets and namespaces when dropped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code: a failed expectation ends the test"
)]

/// The profiles of AppArmor that packages have, in guests.
pub mod apparmor;
/// Collectors of flows and samples.
pub mod collector;
/// Frames with recognisable payloads, written to and read from pcap files.
pub mod frames;
/// The agent inside a guest: commands in, output and status out.
pub mod guest;
/// What guests boot: their initramfs, and the kernel.
pub mod image;
/// The guests' kernel, out of its package.
pub mod kernel;
/// The `ringway l2fwd` command.
pub mod l2fwd;
/// Cases at the same time.
mod lanes;
/// A machine of namespaces, with libvirt.
pub mod libvirt;
/// What guests have for memory.
mod memory;
/// Live migration of guests.
pub mod migration;
/// Linux network namespaces.
pub mod netns;
/// A guest's network device on a vhost-user socket.
pub mod nic;
/// OVN, which drives switches.
pub mod ovn;
/// Open vSwitch with its DPDK datapath.
pub mod ovs;
/// Open vSwitch and ours, by the same rules and packets.
pub mod ovs_fuzz;
/// The test-suite of Open vSwitch.
pub mod ovs_suite;
/// The database of Open vSwitch.
pub mod ovsdb;
/// What machines are put together from.
mod part;
/// Guests whose network devices are driven by programs: VFIO and UIO.
pub mod pci;
/// Which peers this machine has, and tests skipped for the lack of one.
pub mod peers;
/// Pings of which each is to be answered.
pub mod ping;
/// A child process whose output can be waited for.
pub mod process;
/// A QEMU virtual machine.
pub mod qemu;
/// QEMU's machine protocol.
pub mod qmp;
/// Frames through something and back, compared.
pub mod relay;
/// The `ringway` binary.
pub mod ringway;
/// Machines that have booted, kept for others to go on from.
mod snapshot;
/// A terminal in which a program runs.
pub mod terminal;
/// DPDK's testpmd.
pub mod testpmd;
/// What guests send each other.
pub mod traffic;
/// User Mode Linux.
pub mod uml;
/// Open vSwitch and ours, driven alike.
pub mod vswitch;
/// Waiting for files, with a deadline.
pub mod wait;
/// The cable of a guest's network device.
pub mod wire;

pub use guest::{Guest, Output};
pub use image::{GuestImage, ImageSpec};
pub use l2fwd::L2fwd;
pub use lanes::side_by_side;
pub use libvirt::Host;
pub use netns::Netns;
pub use nic::Nic;
pub use ovn::{Chassis, Ovn};
pub use ovs::Ovs;
pub use ovsdb::OvsDatabase;
pub use pci::{Model, PciNic};
pub use peers::{Peer, require, require_shared};
pub use process::Process;
pub use qemu::{Qemu, Vm};
pub use relay::Relay;
pub use ringway::Ringway;
pub use terminal::Terminal;
pub use testpmd::Testpmd;
pub use uml::Uml;
pub use vswitch::Vswitch;
pub use wire::Wire;
