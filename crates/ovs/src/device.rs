//! From a type of Open vSwitch's table `Interface` to a device of ours.

use std::fmt::Write as _;
use std::path::Path;

use crate::content::Interface;

/// Types that can be had, as `Open_vSwitch.iface_types` lists them.
pub const KINDS: [&str; 14] = [
    "dpdk",
    "dpdkvhostuser",
    "dpdkvhostuserclient",
    "erspan",
    "geneve",
    "gre",
    "gtpu",
    "internal",
    "ip6erspan",
    "ip6gre",
    "patch",
    "system",
    "tap",
    "vxlan",
];

/// Those of tunnels.
pub const TUNNELS: [&str; 7] = ["erspan", "geneve", "gre", "gtpu", "ip6erspan", "ip6gre", "vxlan"];

/// Queue pairs that a guest may use where nothing is said: those that it does not use cost next to
/// nothing.
const GUEST_QUEUES: &str = "8";

/// The most queues of one port.
const MAX_QUEUES: usize = 64;

/// Types of dummy ports, which there are where they are asked for.
pub const DUMMIES: [&str; 3] = ["dummy", "dummy-internal", "dummy-pmd"];

/// Which interfaces are dummy ports, that no device is behind: for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dummies {
    /// None.
    #[default]
    None,
    /// Those whose type says so, and the internal ones of bridges whose type of data path does.
    Named,
    /// Those of the system, too, and the internal ones of bridges of its data path.
    System,
    /// All but patch ports.
    All,
}

impl Dummies {
    /// Whether an interface of this type is one, in a bridge with this type of data path.
    #[must_use]
    pub fn has(self, kind: &str, datapath_type: &str) -> bool {
        let is_named = DUMMIES.contains(&kind) || (kind == "internal" && datapath_type == "dummy");
        match self {
            Self::None => false,
            Self::Named => is_named,
            // So is the system's data path, in which bridges are of which nothing is said.
            Self::System => match kind {
                "internal" => matches!(datapath_type, "" | "system" | "dummy"),
                _ => is_named || matches!(kind, "" | "system"),
            },
            Self::All => kind != "patch",
        }
    }
}

/// Where things are.
#[derive(Clone, Copy)]
pub struct Places<'p> {
    /// Which interfaces have no device.
    pub dummies: Dummies,
    /// The folder of sockets, `/run/openvswitch`.
    pub run: &'p Path,
    /// Whether the system has an interface of this name.
    pub exists: &'p dyn Fn(&str) -> bool,
    /// Whether the kernel shapes what goes out on an interface of the system, where that is wanted.
    pub shapes: &'p dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for Places<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Whether an interface is one that the system has to have already.
#[must_use]
pub fn is_of_system(interface: &Interface) -> bool {
    matches!(interface.kind.as_str(), "" | "system")
}

/// How many receive queues an interface is to have: of dummy ports, those have several that Open vSwitch
/// polls by threads. None: as many as the device has, as nobody says how many.
#[must_use]
pub fn rx_queues(interface: &Interface) -> Option<usize> {
    let asked = option(interface, "n_rxq").and_then(|count| count.parse().ok());
    let usual = match interface.kind.as_str() {
        "dpdkvhostuser" | "dpdkvhostuserclient" => GUEST_QUEUES.parse().ok(),
        "dpdk" | "dummy-pmd" => Some(1),
        _ if is_af_xdp(interface) => None,
        _ => return Some(1),
    };
    asked.or(usual).map(|count: usize| count.clamp(1, MAX_QUEUES))
}

/// Whether an interface is one of the system that is opened by AF_XDP.
#[must_use]
pub fn is_af_xdp(interface: &Interface) -> bool {
    is_of_system(interface) && option(interface, "driver") == Some("af-xdp")
}

/// The device string of interface `name`, a dummy port.
#[must_use]
pub fn dummy(interface: &Interface, mac: Option<&str>) -> String {
    let (both, sent) = (option(interface, "pcap"), option(interface, "tx_pcap"));
    let received = option(interface, "rxq_pcap");
    let queues = rx_queues(interface).unwrap_or(1);
    let files = [("rx", both.or(received)), ("tx", both.or(sent))];
    let wire = ["stream", "pstream"].map(|key| (key, option(interface, key)));
    let others = files
        .into_iter()
        .chain(wire)
        .filter_map(|(key, value)| Some(format!("{key}={}", escaped(value?))));
    let several = (queues > 1).then(|| format!("queues={queues}"));
    let mac = mac.map(|mac| format!("mac={mac}"));
    let options: Vec<String> = mac.into_iter().chain(several).chain(others).collect();
    format!("dummy:{}", options.join(","))
}

/// The device string of interface `name`.
///
/// # Errors
/// The type or an option is wrong, in words for `Interface.error`.
pub fn device(
    name: &str,
    interface: &Interface,
    mac: Option<&str>,
    places: Places<'_>,
) -> Result<String, String> {
    let queues = || option(interface, "n_rxq").unwrap_or(GUEST_QUEUES);
    let text = match interface.kind.as_str() {
        "" | "system" => system(name, interface)?,
        "internal" | "tap" => with_mac(format!("tap:{}", escaped(name)), mac),
        "dpdkvhostuserclient" => {
            let path = option(interface, "vhost-server-path").ok_or(
                "expected options:vhost-server-path, the path of the VMM's socket, as in \
                 options:vhost-server-path=/run/vm1.sock",
            )?;
            format!("vhost-user:{},client=on,queues={}", escaped(path), escaped(queues()))
        }
        "dpdkvhostuser" => {
            let path = places.run.join(name);
            let path = path.to_str().ok_or("the run folder's name is not UTF-8")?;
            format!("vhost-user:{},queues={}", escaped(path), escaped(queues()))
        }
        "dpdk" => {
            let address = option(interface, "dpdk-devargs")
                .ok_or("expected options:dpdk-devargs, a PCI address as 0000:01:00.0")?;
            let driver = match option(interface, "driver").unwrap_or("igb") {
                driver @ ("igb" | "virtio-pci") => driver,
                other => {
                    return Err(format!("options:driver={other}: expected igb or virtio-pci"));
                }
            };
            let queues = option(interface, "n_rxq").unwrap_or("1");
            format!("{}:{},queues={}", driver, escaped(address), escaped(queues))
        }
        "patch" => {
            let peer = option(interface, "peer")
                .ok_or("expected options:peer, the name of the patch port at the other end")?;
            format!("patch:{}", escaped(peer))
        }
        kind if TUNNELS.contains(&kind) => tunnel(kind, interface)?,
        other => return Err(unknown(other)),
    };
    Ok(text)
}

/// A tunnel. What there is not makes no port, so that no packet goes another way than is asked for.
fn tunnel(kind: &str, interface: &Interface) -> Result<String, String> {
    // Over which IP it goes is said by its ends.
    let mut device = format!("{}:", kind.strip_prefix("ip6").unwrap_or(kind));
    let remote =
        option(interface, "remote_ip").ok_or("expected options:remote_ip, an address, or flow")?;
    let _ = write!(device, "remote={}", escaped(remote));
    let is_erspan = matches!(kind, "erspan" | "ip6erspan");
    for (key, value) in &interface.options {
        let own = match key.as_str() {
            "remote_ip" => continue,
            "local_ip" => "local",
            "key" => "key",
            "in_key" => "in-key",
            "out_key" => "out-key",
            "dst_port" => "port",
            "tos" => "tos",
            "ttl" => "ttl",
            "csum" => "csum",
            "df_default" => "df",
            "egress_pkt_mark" => "mark",
            "seq" if matches!(kind, "gre" | "ip6gre" | "gtpu") => "seq",
            "erspan_ver" if is_erspan => "version",
            "erspan_dir" if is_erspan => "direction",
            "erspan_idx" | "erspan_hwid" if is_erspan => {
                let own = if key == "erspan_idx" { "index" } else { "hwid" };
                let _ = write!(device, ",{own}={}", escaped(&in_hex(value)));
                continue;
            }
            "packet_type" => {
                let mode = match value.as_str() {
                    "legacy_l2" => "l2",
                    "legacy_l3" => "l3",
                    "ptap" => "any",
                    other => {
                        return Err(format!(
                            "options:packet_type={other}: expected legacy_l2, legacy_l3 or ptap"
                        ));
                    }
                };
                let _ = write!(device, ",packets={mode}");
                continue;
            }
            "exts" if kind == "vxlan" => {
                device += &extensions(value)?;
                continue;
            }
            other => return Err(format!("options:{other}={value}: not there for type {kind}")),
        };
        // A port without a key has the key 0, which is its usual one.
        let _ = write!(device, ",{own}={}", escaped(value));
    }
    Ok(device)
}

/// A number of base 16, with or without what says so.
fn in_hex(value: &str) -> String {
    let is_number = !value.starts_with("0x") && value != "flow";
    if is_number { format!("0x{value}") } else { value.to_owned() }
}

/// Extensions of VXLAN, as options of a device.
fn extensions(all: &str) -> Result<String, String> {
    let one = |extension: &str| match extension {
        "" => Ok(""),
        "gpe" => Ok(",gpe=on"),
        "gbp" => Ok(",gbp=on"),
        other => Err(format!("options:exts={other}: expected gpe or gbp")),
    };
    all.split(',').map(one).collect()
}

/// The ports of UDP that tunnels of a kind go to where nothing else is said, and what the data path calls
/// their ports; of what is not over UDP, all is one port.
const PATH_NAMES: [(&str, &str, Option<u16>); 7] = [
    ("erspan", "erspan_sys", None),
    ("geneve", "genev_sys", Some(6_081)),
    ("gre", "gre_sys", None),
    ("gtpu", "gtpu_sys", Some(2_152)),
    ("ip6erspan", "ip6erspan_sys", None),
    ("ip6gre", "ip6gre_sys", None),
    ("vxlan", "vxlan_sys", Some(4_789)),
];

/// What Open vSwitch's data path calls an interface, if that is not its name.
#[must_use]
pub fn path_name(interface: &Interface) -> Option<String> {
    let (_, name, usual) = PATH_NAMES.iter().find(|(kind, ..)| *kind == interface.kind)?;
    let Some(usual) = usual else { return Some((*name).to_owned()) };
    let port = option(interface, "dst_port").and_then(|port| port.parse().ok());
    Some(format!("{name}_{}", port.unwrap_or(*usual)))
}

/// An interface that the system has already. By default it stays one of the system's, too: it may
/// be a TAP interface that a VMM has open.
fn system(name: &str, interface: &Interface) -> Result<String, String> {
    match option(interface, "driver").unwrap_or("af-packet") {
        // As with Open vSwitch, tcpdump sees what is sent: `ovs-tcpdump` listens there.
        "af-packet" => Ok(format!("af-packet:{},qdisc=on", escaped(name))),
        "af-xdp" => {
            let queues = option(interface, "n_rxq");
            let queues = queues.map(|count| format!(",queues={}", escaped(count)));
            Ok(format!("af-xdp:{}{}", escaped(name), queues.unwrap_or_default()))
        }
        "tap" => Ok(format!("tap:{}", escaped(name))),
        other => Err(format!("options:driver={other}: expected af-packet, af-xdp or tap")),
    }
}

fn unknown(kind: &str) -> String {
    let meant = ethdev::closest(kind, KINDS);
    let meant = meant.map(|kind| format!("; did you mean {kind}?")).unwrap_or_default();
    format!("type {kind} is not supported: expected {}{meant}", KINDS.join(", "))
}

fn option<'i>(interface: &'i Interface, key: &str) -> Option<&'i str> {
    interface.options.get(key).map(String::as_str)
}

fn with_mac(device: String, mac: Option<&str>) -> String {
    match mac {
        Some(mac) => format!("{device},mac={mac}"),
        None => device,
    }
}

/// A value as device strings have it: commas separate there.
fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ovsdb::Uuid;

    fn interface(kind: &str, options: &[(&str, &str)]) -> Interface {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Interface { options: options.collect(), ..Interface::bare(Uuid(1), kind) }
    }

    fn of(kind: &str, options: &[(&str, &str)]) -> Result<String, String> {
        let dummies = Dummies::None;
        let (run, exists, shapes) =
            (Path::new("/run/openvswitch"), &|_: &str| true, &|_: &str| true);
        let places = Places { dummies, run, exists, shapes };
        device("p1", &interface(kind, options), Some("02:00:00:00:00:01"), places)
    }

    #[test]
    fn each_type_has_its_device() {
        assert_eq!(of("", &[]).unwrap(), "af-packet:p1,qdisc=on");
        assert_eq!(of("system", &[("driver", "af-xdp")]).unwrap(), "af-xdp:p1");
        let several = of("system", &[("driver", "af-xdp"), ("n_rxq", "4")]).unwrap();
        assert_eq!(several, "af-xdp:p1,queues=4");
        assert_eq!(of("system", &[("driver", "tap"), ("n_rxq", "4")]).unwrap(), "tap:p1");
        assert_eq!(of("internal", &[]).unwrap(), "tap:p1,mac=02:00:00:00:00:01");
        let server = of("dpdkvhostuser", &[("n_rxq", "2")]).unwrap();
        assert_eq!(server, "vhost-user:/run/openvswitch/p1,queues=2");
        let client = of("dpdkvhostuserclient", &[("vhost-server-path", "/run/a,b")]).unwrap();
        assert_eq!(client, "vhost-user:/run/a,,b,client=on,queues=8");
        let nic = of("dpdk", &[("dpdk-devargs", "0000:01:00.0")]).unwrap();
        assert_eq!(nic, "igb:0000:01:00.0,queues=1");
        assert_eq!(of("patch", &[("peer", "p2")]).unwrap(), "patch:p2");
    }

    #[test]
    fn queues_are_as_many_as_the_database_says_or_the_device_has() {
        let count = |kind: &str, options: &[(&str, &str)]| rx_queues(&interface(kind, options));
        let four = ("n_rxq", "4");
        assert_eq!((count("dpdk", &[]), count("dpdk", &[four])), (Some(1), Some(4)));
        assert_eq!(
            (count("dpdkvhostuser", &[]), count("dpdkvhostuser", &[four])),
            (Some(8), Some(4))
        );
        assert_eq!((count("tap", &[four]), count("", &[four])), (Some(1), Some(1)));
        let xdp = ("driver", "af-xdp");
        assert_eq!((count("", &[xdp]), count("system", &[xdp, four])), (None, Some(4)));
        assert_eq!(count("", &[xdp, ("n_rxq", "many")]), None);
        assert_eq!(count("dummy-pmd", &[("n_rxq", "999")]), Some(MAX_QUEUES));
    }

    #[test]
    fn dummies_are_for_those_who_ask_for_them() {
        assert!(!Dummies::None.has("dummy", "dummy"));
        assert!(
            Dummies::Named.has("dummy-pmd", "netdev") && Dummies::Named.has("internal", "dummy")
        );
        assert!(!Dummies::Named.has("internal", "") && !Dummies::Named.has("system", "dummy"));
        assert!(Dummies::System.has("", "") && !Dummies::System.has("tap", ""));
        assert!(["", "system", "dummy"].iter().all(|path| Dummies::System.has("internal", path)));
        assert!(!Dummies::System.has("internal", "netdev"));
        assert!(Dummies::All.has("tap", "") && !Dummies::All.has("patch", "dummy"));
        let device = |options: &[(&str, &str)]| dummy(&interface("dummy", options), None);
        assert_eq!(device(&[]), "dummy:");
        let polled = |count| dummy(&interface("dummy-pmd", &[("n_rxq", count)]), None);
        assert_eq!((polled("8"), polled("1")), ("dummy:queues=8".into(), "dummy:".into()));
        assert_eq!((polled("0"), polled("999")), ("dummy:".into(), "dummy:queues=64".into()));
        assert_eq!(device(&[("n_rxq", "8")]), "dummy:");
        assert_eq!(device(&[("rxq_pcap", "a"), ("tx_pcap", "b,c")]), "dummy:rx=a,tx=b,,c");
        let both = dummy(&interface("dummy", &[("pcap", "a")]), Some("02:00:00:00:00:01"));
        assert_eq!(both, "dummy:mac=02:00:00:00:00:01,rx=a,tx=a");
        assert_eq!(device(&[("stream", "unix:/a")]), "dummy:stream=unix:/a");
        assert_eq!(
            device(&[("pstream", "ptcp:1"), ("pcap", "a")]),
            "dummy:rx=a,tx=a,pstream=ptcp:1"
        );
    }

    #[test]
    fn tunnels_have_their_options() {
        let vxlan =
            of("vxlan", &[("remote_ip", "10.0.0.2"), ("key", "flow"), ("dst_port", "8472")]);
        assert_eq!(vxlan.unwrap(), "vxlan:remote=10.0.0.2,port=8472,key=flow");
        let gre = [("remote_ip", "fd00::2"), ("packet_type", "legacy_l2"), ("df_default", "false")];
        assert_eq!(of("ip6gre", &gre).unwrap(), "gre:remote=fd00::2,df=false,packets=l2");
        assert!(of("geneve", &[]).unwrap_err().contains("remote_ip"));
        let gbp = of("vxlan", &[("remote_ip", "10.0.0.2"), ("exts", "gbp")]).unwrap();
        assert_eq!(gbp, "vxlan:remote=10.0.0.2,gbp=on");
        let error = of("vxlan", &[("remote_ip", "10.0.0.2"), ("exts", "gbq")]).unwrap_err();
        assert!(error.contains("options:exts=gbq"), "{error}");
        let numbered = of("gre", &[("remote_ip", "10.0.0.2"), ("seq", "true")]).unwrap();
        assert_eq!(numbered, "gre:remote=10.0.0.2,seq=true");
        let error = of("geneve", &[("remote_ip", "10.0.0.2"), ("seq", "true")]).unwrap_err();
        assert!(error.contains("options:seq=true: not there"), "{error}");
        let gpe = [("remote_ip", "10.0.0.2"), ("exts", "gpe"), ("packet_type", "legacy_l3")];
        assert_eq!(of("vxlan", &gpe).unwrap(), "vxlan:remote=10.0.0.2,gpe=on,packets=l3");
        let error = of("gre", &[("remote_ip", "10.0.0.2"), ("packet_type", "l4")]).unwrap_err();
        assert!(error.contains("expected legacy_l2, legacy_l3 or ptap"), "{error}");
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        assert!(of("dpdkvhostuserclient", &[]).unwrap_err().contains("vhost-server-path"));
        assert!(of("dpdk", &[]).unwrap_err().contains("dpdk-devargs"));
        let error = of("dpdkvhostusers", &[]).unwrap_err();
        assert!(error.contains("did you mean dpdkvhostuser?"), "{error}");
        assert!(of("", &[("driver", "igb")]).unwrap_err().contains("expected af-packet"));
        let options = [("dpdk-devargs", "0000:01:00.0"), ("driver", "vduse")];
        assert!(of("dpdk", &options).unwrap_err().contains("expected igb or virtio-pci"));
    }
}
