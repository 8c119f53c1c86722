//! The virtual switch: what controls its ports, bridges and workers. What frames pass is
//! [`datapath`].
//!
//! ```
//! use switch::{PortOptions, Switch, SwitchConfig};
//!
//! # let folder = tempfile::tempdir()?;
//! let switch = Switch::start(&SwitchConfig::default())?;
//! for name in ["vm1", "vm2"] {
//!     let socket = folder.path().join(name);
//!     switch.open_port(name, &format!("vhost-user:{}", socket.display()), &PortOptions::default())?;
//! }
//! assert_eq!(switch.ports().len(), 2);
//! switch.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`bond`]: ports made of several others, their members
//! - `bridges`: the bridges as control threads see them
//! - [`capture`](mod@capture): what ports receive, send and drop, for somebody who looks
//! - [`config`]: settings of the switch and of its ports
//! - [`error`]: what can go wrong
//! - [`fdb`](mod@fdb): a bridge's forwarding database, shared by all workers
//! - [`identity`]: by what a switch is known to its neighbours
//! - [`mirror`]: copies for somebody who watches
//! - [`report`]: what the switch tells about itself
//! - [`sample`]: of so many frames one, with where it goes
//! - [`sight`]: a view of a switch for threads of others
//! - [`snoop`]: which ports have members of which groups of IGMP and MLD
//! - [`switch`](mod@switch): the switch as an application sees it
//! - [`flows`], [`guard`], [`limit`], [`record`], [`vlan`]: what is set and told of those parts of the data path
//! - `bench`: a worker without its thread, for measuring programs
//! - `housekeeper`: what happens once a second, and when a link changes
//! - `ports`: the ports as control threads see them
//! - `tunnel_device`: settings of a tunnel as a device string

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod bench;
pub mod bond;
mod bridges;
pub mod capture;
pub mod config;
pub mod error;
mod housekeeper;
pub mod identity;
pub mod mirror;
mod ports;
pub mod report;
pub mod sample;
pub mod sight;
pub mod snoop;
pub mod switch;
mod tunnel_device;

pub use crate::capture::{
    Capture, CaptureReader, Captured, CapturedPort, MAX_CAPTURES, Note as CaptureNote,
};
pub use ::tunnel as tunnels;
pub use bond::{
    BOND_DEVICE, BondMode, BondOrder, BondRefusal, Bonding, Lacp, LacpManner, LacpTime,
    MAX_ARP_TARGETS, MAX_MEMBERS, flow_part, source_part,
};
pub use config::{
    BridgeOptions, DEFAULT_BRIDGE, MAX_BRIDGES, MAX_FDB_LIMIT, MAX_PORTS, MAX_TX_RETRIES,
    MAX_WORKERS, PortOptions, SwitchConfig,
};
pub use datapath::flows::{
    BridgeFlows, FlowBegin, FlowEvent, FlowInlet, FlowPacket, FlowPacketOut, flow_queue,
};
pub use datapath::guard::PortGuard;
pub use datapath::limit::PortLimits;
pub use datapath::record::{Record, Recorded, Recording};
pub use datapath::trap::{Listens, Protocol, Watched};
pub use datapath::vlan::{PortVlan, PriorityTags, QinqEtherType, VlanMode, VlanSet};
pub use datapath::{flows, guard, limit, record, vlan};
pub use error::Error;
pub use fdb;
pub use identity::Identity;
pub use l2proto::{
    Bfd, BfdReport, BfdSession, BfdSide, Cfm, CfmReport, CfmSession, LldpMode, LldpReport,
    MAX_BFD_INTERVAL, Neighbour, PortLacp, PortRstp, Rstp, RstpRole, RstpState, RstpVersion,
};
pub use mirror::{MAX_MIRRORS, Mirror};
pub use ports::is_port_name;
pub use report::{
    BondPart, BondReport, BridgeReport, Decided, FdbEntry, FdbReport, Group, GroupCounts,
    GroupRouter, GroupTotals, GroupsReport, LacpReport, MemberArp, MemberLacp, MemberReport,
    MirrorReport, PortReport, RstpBridge, RstpPort, RstpReport, ShutdownReport, Traced,
    WorkerReport,
};
pub use sample::{
    MAX_SAMPLE, MAX_SAMPLINGS, Onward, Sample, SampleLoss, SampleReader, Sampled, Sampling, Sides,
};
pub use sight::Sight;
pub use snoop::{MAX_GROUPS, McastRouter, McastSnooping, PortSnooping};
pub use switch::Switch;
pub use switch::patches::patch_peer;
pub use switch::through::{
    IntoTunnel, NoTunnelWay, TunnelWay, tunnel_inner, tunnel_meta, tunnel_words,
};
pub use switch::tunnels::TunnelNeighbour;
pub use tunnel_device::tunnel_settings;
