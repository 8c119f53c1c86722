//! The virtual switch: forwarding database and data path.
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
//! - `bridge`: what a bridge decides about a burst of frames
//! - `bridges`: the bridges as control threads see them
//! - [`capture`](mod@capture): what ports receive, send and drop, for somebody who looks
//! - [`config`]: settings of the switch and of its ports
//! - [`error`]: what can go wrong
//! - [`fdb`](mod@fdb): a bridge's forwarding database, shared by all workers
//! - `gate`: which ports forward by spanning tree
//! - [`guard`]: what a port may send
//! - [`identity`]: by what a switch is known to its neighbours
//! - [`limit`]: limits of ports
//! - [`mirror`]: copies for somebody who watches
//! - [`record`]: which packets have come in
//! - [`report`]: what the switch tells about itself
//! - [`sample`]: of so many frames one, with where it goes
//! - `share`: a worker's share of a port's transmit queues
//! - [`sight`]: a view of a switch for threads of others
//! - [`snoop`]: which ports have members of which groups of IGMP and MLD
//! - [`flows`]: bridges whose frames go by the rules of OpenFlow tables
//! - `stage`: what kinds of bridges do beside learning and looking up
//! - [`switch`](mod@switch): the switch as an application sees it
//! - `bench`: a worker without its thread, for measuring programs
//! - `datapath`: from a burst of frames to the ports where they go out
//! - `header`: what the switch reads of a frame
//! - `housekeeper`: what happens once a second, and when a link changes
//! - `inlet`: what neighbours, hosts and routers say to the switch itself, on its way from workers to control
//!   threads
//! - `inputs`: the receive queues of a worker
//! - `marks`: the frames of a burst that go to one port
//! - `output`: one worker's way to send to a port
//! - `outputs`: its ways to all ports, and the verdicts on a burst
//! - `owners`: who has the transmit queues of a port
//! - `patch`: patch ports: from one bridge to another
//! - `port_set`: sets of ports
//! - `ports`: the ports as control threads see them
//! - `trap`: which frames are for the switch itself
//! - `tunnel`: ports of tunnels
//! - [`vlan`]: VLAN settings of ports, and what they mean for a frame
//! - `worker`: polls receive queues, sleeps, and takes queues on and gives them back

#![forbid(unsafe_code)]

mod answer;
#[doc(hidden)]
pub mod bench;
pub mod bond;
mod bridge;
mod bridges;
pub mod capture;
pub mod config;
mod datapath;
pub mod error;
pub mod flows;
mod gate;
pub mod guard;
mod header;
mod housekeeper;
pub mod identity;
mod inlet;
mod inputs;
pub mod limit;
mod marks;
pub mod mirror;
mod output;
mod outputs;
mod owners;
mod patch;
mod port_set;
mod ports;
pub mod record;
pub mod report;
pub mod sample;
mod share;
pub mod sight;
pub mod snoop;
mod stage;
pub mod switch;
mod trap;
mod tunnel;
pub mod vlan;
mod worker;

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
pub use error::Error;
pub use fdb;
pub use flows::{
    BridgeFlows, FlowBegin, FlowEvent, FlowInlet, FlowPacket, FlowPacketOut, flow_queue,
};
pub use guard::PortGuard;
pub use identity::Identity;
pub use l2proto::{
    Bfd, BfdReport, BfdSession, BfdSide, Cfm, CfmReport, CfmSession, LldpMode, LldpReport,
    MAX_BFD_INTERVAL, Neighbour, PortLacp, PortRstp, Rstp, RstpRole, RstpState, RstpVersion,
};
pub use limit::PortLimits;
pub use mirror::{MAX_MIRRORS, Mirror};
pub use ports::is_port_name;
pub use record::{Recorded, Recording};
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
pub use switch::through::{IntoTunnel, NoTunnelWay, TunnelWay, tunnel_meta, tunnel_words};
pub use switch::tunnels::TunnelNeighbour;
pub use tunnel::device::tunnel_settings;
pub use vlan::{PortVlan, PriorityTags, QinqEtherType, VlanMode, VlanSet};
