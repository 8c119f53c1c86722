//! The targets, one in a file.

mod announced;
mod bfd_session;
mod capture_file;
mod cfm_session;
mod configuration;
mod control_request;
mod device_ring;
mod driver_ring;
mod fragments;
mod groups;
mod guarded_frame;
mod kernel_segments;
mod lldp_frame;
mod openflow_flow;
mod openflow_session;
mod segments;
mod spanning_tree;
mod translated;
mod tunnel_header;
mod vduse_session;
mod vhost_frontend;
mod vhost_message;
mod vhost_session;
mod virtio_pci;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What it plays.
    pub about: &'static str,
    /// Plays one input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "vhost_message",
        about: "bytes and files on a vhost-user socket, for both sides",
        run: vhost_message::run,
    },
    Target {
        name: "vhost_session",
        about: "a front-end and its guest: messages, files, memory, while frames pass",
        run: |data| vhost_session::run(data, false),
    },
    Target {
        name: "vhost_options",
        about: "the same to a port behind an IOMMU, with notifications as messages",
        run: |data| vhost_session::run(data, true),
    },
    Target {
        name: "split_device",
        about: "the driver of a split ring that a device serves, with log and records in flight",
        run: |data| device_ring::run(data, false),
    },
    Target {
        name: "packed_device",
        about: "the same with a packed ring",
        run: |data| device_ring::run(data, true),
    },
    Target {
        name: "split_driver",
        about: "the device of a split ring that is driven here",
        run: |data| driver_ring::run(data, false),
    },
    Target {
        name: "packed_driver",
        about: "the same with a packed ring",
        run: |data| driver_ring::run(data, true),
    },
    Target {
        name: "segments",
        about: "frames that leave checksums and cutting to the device",
        run: segments::run,
    },
    Target {
        name: "kernel_segments",
        about: "large segments that the host's kernel cuts as well; needs root",
        run: kernel_segments::run,
    },
    Target {
        name: "vhost_frontend",
        about: "the back-end of a front-end of ours: its answers, and its channel",
        run: vhost_frontend::run,
    },
    Target {
        name: "vduse_session",
        about: "the kernel's side of a VDUSE device, its driver and that one's memory",
        run: vduse_session::run,
    },
    Target {
        name: "virtio_pci",
        about: "a virtio network device on the PCI bus: configuration space and registers",
        run: virtio_pci::run,
    },
    Target {
        name: "configuration",
        about: "a switch's configuration file, and the way from one to another",
        run: configuration::run,
    },
    Target {
        name: "control_request",
        about: "requests at a switch's control socket, and what they make of its desired state",
        run: control_request::run,
    },
    Target {
        name: "capture_file",
        about: "files that a pcap port receives",
        run: capture_file::run,
    },
    Target {
        name: "guarded_frame",
        about: "frames from ports that may not send everything",
        run: guarded_frame::run,
    },
    Target {
        name: "translated",
        about: "frames whose connections are tracked, and their addresses translated",
        run: translated::run,
    },
    Target {
        name: "announced",
        about: "sides of FTP and TFTP that announce connections to come",
        run: announced::run,
    },
    Target {
        name: "fragments",
        about: "parts of packets, which are put together for their connections",
        run: fragments::run,
    },
    Target {
        name: "tunnel_header",
        about: "frames of VXLAN, Geneve, GRE, ERSPAN and GTP-U, and what neighbours say of their addresses",
        run: tunnel_header::run,
    },
    Target {
        name: "lldp_frame",
        about: "what neighbours say of themselves by LLDP",
        run: lldp_frame::run,
    },
    Target {
        name: "spanning_tree",
        about: "neighbours of a bridge that say what they like by RSTP and STP",
        run: spanning_tree::run,
    },
    Target {
        name: "bfd_session",
        about: "a neighbour that says what it likes by BFD",
        run: bfd_session::run,
    },
    Target {
        name: "cfm_session",
        about: "neighbours that say what they like by CFM",
        run: cfm_session::run,
    },
    Target {
        name: "groups",
        about: "what hosts and routers say of groups of IGMP and MLD",
        run: groups::run,
    },
    Target {
        name: "openflow_session",
        about: "a controller of a bridge: messages of OpenFlow, beside another one",
        run: openflow_session::run,
    },
    Target {
        name: "openflow_flow",
        about: "messages of OpenFlow about flows and packets",
        run: openflow_flow::run,
    },
    Target {
        name: "openflow_text",
        about: "flows as people write them for ovs-ofctl",
        run: openflow_flow::run_text,
    },
];
