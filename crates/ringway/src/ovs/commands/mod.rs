//! Commands of `ovs-appctl`, in Open vSwitch's words.
//!
//! - `bond`: bonds
//! - `connections`: tracked connections
//! - `coverage`: what has happened how often
//! - `dpctl`: the data path as `ovs-dpctl` shows it
//! - `dpif`: the data path
//! - `dump`: the flows that a datapath of Open vSwitch would have
//! - `fdb`: forwarding databases
//! - `features`: what the data path can, and all rules of a bridge
//! - `fragments`: fragments of packets whose connections are tracked
//! - `groups`: groups of IGMP and MLD
//! - `lacp`: bonds that speak LACP
//! - `orders`: what bonds are to do at once
//! - `pmd`: what workers do
//! - `spanning`: spanning tree
//! - `testing`: the clock and dummy ports, for tests
//! - `trace`: what becomes of a frame
//! - `tunnels`: what tunnels go by
//! - `vlog`: the log
//! - `watch`: links that are watched

mod bond;
mod connections;
mod coverage;
mod dpctl;
pub mod dpif;
mod dump;
mod fdb;
mod features;
mod fragments;
mod groups;
mod lacp;
mod orders;
mod pmd;
mod spanning;
mod testing;
pub mod trace;
mod tunnels;
mod vlog;
mod watch;

use std::fmt::Write as _;
use std::path::Path;

use daemon::Daemon;
use eal::time::Time;
use flow::VlanLimit;
use ovs::Agent;
use ovs::numbers::LOCAL;
use ovs::unixctl::Answer;
use switch::tunnel_settings;
use switch::tunnels::Settings;

pub use self::pmd::Baseline;
use super::flows::{self, PathFlows};
use super::underlay::Underlay;

/// A command: its name, its arguments for people, the fewest and the most of them.
struct Command {
    name: &'static str,
    usage: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Appctl<'_>, &[String]) -> Answer,
}

/// As many as there may be.
const ANY: usize = usize::MAX;

const COMMANDS: &[Command] = &[
    command("bfd/set-forwarding", "[interface] normal|false|true", (1, 2), watch::set_forwarding),
    command("bfd/show", "[interface]", (0, 1), watch::bfd),
    command("bond/disable-member", "port member", (2, 2), orders::disable),
    command("bond/enable-member", "port member", (2, 2), orders::enable),
    command("bond/hash", "mac [vlan] [basis]", (1, 3), bond::hash),
    command("bond/list", "", (0, 0), bond::list),
    command("bond/migrate", "port hash member", (3, 3), orders::migrate),
    command("bond/set-active-member", "port member", (2, 2), orders::activate),
    command("bond/show", "[port]", (0, 1), bond::show),
    command("bridge/dump-flows", "[--offload-stats] bridge", (1, 2), features::dump_rules),
    command("cfm/set-fault", "[interface] normal|false|true", (1, 2), watch::set_fault),
    command("cfm/show", "[interface]", (0, 1), watch::cfm),
    command("coverage/read-counter", "counter", (1, 1), coverage::read),
    command("coverage/show", "", (0, 0), coverage::show),
    command("dpctl/add-if", "dp netdev...", (2, ANY), dpctl::add_ports),
    command("dpctl/del-flows", "[dp]", (0, 1), dump::remove),
    command("dpctl/del-if", "dp netdev...", (2, ANY), dpctl::remove_ports),
    command("dpctl/ct-bkts", "[dp] [gt=N]", (0, 2), connections::shares),
    command("dpctl/ct-del-limits", "[dp] zone=N1[,N2]...", (1, 2), connections::forget_zone_limits),
    command("dpctl/ct-disable-tcp-seq-chk", "[dp]", (0, 1), connections::disable_checks),
    command("dpctl/ct-enable-tcp-seq-chk", "[dp]", (0, 1), connections::enable_checks),
    command("dpctl/ct-get-limits", "[dp] [zone=N1[,N2]...]", (0, 2), connections::zone_limits),
    command("dpctl/ct-get-maxconns", "[dp]", (0, 1), connections::limit),
    command("dpctl/ct-get-nconns", "[dp]", (0, 1), connections::count),
    command("dpctl/ct-get-tcp-seq-chk", "[dp]", (0, 1), connections::checks),
    command(
        "dpctl/ct-set-limits",
        "[dp] [default=L] [zone=N,limit=L]...",
        (1, ANY),
        connections::set_zone_limits,
    ),
    command("dpctl/ct-set-maxconns", "[dp] maxconns", (1, 2), connections::set_limit),
    command("dpctl/ct-stats-show", "[dp] [zone=N]", (0, 4), connections::stats),
    command("dpctl/dump-conntrack", "[-m] [-s] [dp] [zone=N]", (0, 4), connections::dump),
    command("dpctl/dump-dps", "", (0, 0), dpctl::dump_paths),
    command(
        "dpctl/dump-flows",
        "[-m] [--names | --no-names] [dp] [filter=..] [type=..] [pmd=..]",
        (0, 8),
        dump::dump_path,
    ),
    command("dpctl/get-flow", "[-m] [--names | --no-names] [dp] ufid", (1, 5), dump::get),
    command(
        "dpctl/flush-conntrack",
        "[dp] [zone=N] [mark=X[/M]] [labels=Y[/N]] [ct-orig-tuple [ct-reply-tuple]]",
        (0, 6),
        connections::flush,
    ),
    command("dpctl/ipf-get-status", "[-m] [dp]", (0, 2), fragments::status),
    command("dpctl/ipf-set-disabled", "[dp] v4|v6", (1, 2), fragments::disable),
    command("dpctl/ipf-set-enabled", "[dp] v4|v6", (1, 2), fragments::enable),
    command("dpctl/ipf-set-max-nfrags", "[dp] maxfrags", (1, 2), fragments::set_limit),
    command("dpctl/ipf-set-min-frag", "[dp] v4|v6 minfragment", (2, 3), fragments::set_shortest),
    command("dpctl/show", "[-s] [dp]", (0, ANY), dpctl::show),
    command("dpif-dummy/change-port-number", "dp port new-number", (3, 3), testing::renumber),
    command("dpif-netdev/bond-show", "[dp]", (0, 1), bond::tables),
    command("dpif-netdev/pmd-perf-show", "[-pmd core] [dp]", (0, 3), pmd::perf),
    command("dpif-netdev/pmd-rxq-rebalance", "[dp]", (0, 1), pmd::rebalance),
    command("dpif-netdev/pmd-rxq-show", "[-pmd core] [-secs n] [dp]", (0, 5), pmd::queues),
    command("dpif-netdev/pmd-stats-clear", "[-pmd core] [dp]", (0, 3), pmd::clear),
    command("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", (0, 3), pmd::stats),
    command("dpif/dump-dps", "", (0, 0), dpif::dump_paths),
    command("dpif/dump-flows", "[-m] [--names | --no-names] bridge", (1, 4), dump::dump_bridge),
    command("dpif/show", "", (0, 0), dpif::show),
    command("dpif/set-dp-features", "bridge", (1, 3), features::set),
    command("dpif/show-dp-features", "bridge", (1, 1), features::show),
    command("exit", "[--cleanup]", (0, 1), exit),
    command("fdb/add", "bridge port vlan mac", (4, 4), fdb::add),
    command("fdb/del", "bridge vlan mac", (3, 3), fdb::remove),
    command("fdb/flush", "[bridge]", (0, 1), fdb::flush),
    command("fdb/show", "bridge", (1, 1), fdb::show),
    command("fdb/stats-show", "bridge", (1, 1), fdb::stats),
    command("lacp/show", "[port]", (0, 1), lacp::show),
    command("lacp/show-stats", "[port]", (0, 1), lacp::stats),
    command("list-commands", "", (0, 0), list_commands),
    command("mdb/flush", "[bridge]", (0, 1), groups::flush),
    command("mdb/show", "bridge", (1, 1), groups::show),
    command("memory/show", "", (0, 0), dpif::memory),
    command(
        "netdev-dummy/ip4addr",
        "[netdev] ipaddr/mask-prefix-len",
        (2, 2),
        tunnels::add_dummy_address,
    ),
    command("netdev-dummy/ip6addr", "[netdev] ip6addr", (2, 2), tunnels::add_dummy_address),
    command(
        "netdev-dummy/receive",
        "name [--qid queue_id] packet|flow [--len packet_len]",
        (2, ANY),
        testing::receive,
    ),
    command("netdev-dummy/set-admin-state", "[netdev] up|down", (1, 2), testing::set_admin_state),
    command("ofproto/list", "", (0, 0), list_bridges),
    command("ofproto/list-tunnels", "", (0, 0), tunnels::list),
    command(
        "ofproto/trace",
        "{[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]",
        (1, ANY),
        trace::trace,
    ),
    command(
        "ofproto/trace-packet-out",
        "[-consistent] {[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet] actions",
        (2, ANY),
        trace::trace_packet_out,
    ),
    command(
        "ovs/route/add",
        "ip/plen output_bridge [gw] [pkt_mark=mark]",
        (2, 4),
        tunnels::add_route,
    ),
    command("ovs/route/del", "ip/plen [pkt_mark=mark]", (1, 2), tunnels::remove_route),
    command("ovs/route/lookup", "ip_addr [pkt_mark=mark]", (1, 2), tunnels::look_up_route),
    command("ovs/route/show", "", (0, 0), tunnels::show_routes),
    command("qos/show", "interface", (1, 1), dpctl::show_qos),
    command("qos/show-types", "interface", (1, 1), dpctl::show_qos_kinds),
    command("revalidator/pause", "", (0, 0), dump::pause),
    command("revalidator/purge", "", (0, 0), dump::purge),
    command("revalidator/resume", "", (0, 0), dump::resume),
    command("revalidator/wait", "", (0, 0), dump::wait),
    command("rstp/show", "[bridge]", (0, 1), spanning::show),
    command("rstp/tcn", "[bridge]", (0, 1), spanning::change),
    command("stp/show", "[bridge]", (0, 1), spanning::show_old),
    command("stp/tcn", "[bridge]", (0, 1), spanning::change_old),
    command("time/stop", "", (0, 0), testing::time_stop),
    command("time/warp", "[large_msecs] msecs", (1, 2), testing::time_warp),
    command("tnl/arp/flush", "", (0, 0), tunnels::flush_neighbours),
    command("tnl/arp/set", "BRIDGE IP MAC", (3, 3), tunnels::set_neighbour),
    command("tnl/arp/show", "", (0, 0), tunnels::show_neighbours),
    command("tnl/neigh/flush", "", (0, 0), tunnels::flush_neighbours),
    command("tnl/neigh/set", "BRIDGE IP MAC", (3, 3), tunnels::set_neighbour),
    command("tnl/neigh/show", "", (0, 0), tunnels::show_neighbours),
    command("tnl/ports/show", "-v", (0, 1), tunnels::show_ports),
    command("upcall/disable-megaflows", "", (0, 0), dump::disable_masks),
    command("upcall/disable-ufid", "", (0, 0), dump::disable_ids),
    command("upcall/enable-megaflows", "", (0, 0), dump::enable_masks),
    command("upcall/enable-ufid", "", (0, 0), dump::enable_ids),
    command("upcall/set-flow-limit", "flow-limit-number", (1, 1), dump::set_limit),
    command("upcall/show", "", (0, 0), dump::show),
    command("version", "", (0, 0), version),
    command("vlog/close", "", (0, 0), vlog::close),
    command("vlog/disable-rate-limit", "[module]...", (0, ANY), vlog::limit),
    command("vlog/enable-rate-limit", "[module]...", (0, ANY), vlog::limit),
    command("vlog/list", "", (0, 0), vlog::list),
    command("vlog/list-pattern", "", (0, 0), vlog::patterns),
    command("vlog/reopen", "", (0, 0), vlog::reopen),
    command("vlog/set", "{spec | PATTERN:destination:pattern}", (1, ANY), vlog::set),
];

const fn command(
    name: &'static str,
    usage: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Appctl<'_>, &[String]) -> Answer,
) -> Command {
    Command { name, usage, arguments, run }
}

/// What commands look at.
pub struct Appctl<'a> {
    /// The switch.
    pub daemon: &'a mut Daemon,
    /// Its database.
    pub agent: &'a mut Agent,
    /// The flows that a datapath of Open vSwitch would have.
    pub flows: &'a mut PathFlows,
    /// What tunnels go by.
    pub underlay: &'a mut Underlay,
    /// Its clock.
    pub time: &'a Time,
    /// What workers had done when that was cleared.
    pub baseline: &'a mut Baseline,
    /// The file of its log, if it has one.
    pub log_file: Option<&'a Path>,
    /// The command cannot be answered yet, and is to be asked again.
    pub waits: bool,
    /// Whether the process is to end.
    pub ends: &'a mut bool,
}

impl Appctl<'_> {
    /// Answers a command; `None`: it is to be asked again.
    pub fn answer(&mut self, name: &str, arguments: &[String]) -> Option<Answer> {
        let answer = self.run(name, arguments);
        (!std::mem::take(&mut self.waits)).then_some(answer)
    }

    fn run(&mut self, name: &str, arguments: &[String]) -> Answer {
        let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
            return Err(format!(
                "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            ));
        };
        let (fewest, most) = command.arguments;
        if arguments.len() < fewest {
            return Err(format!("\"{name}\" command requires at least {fewest} arguments"));
        }
        if arguments.len() > most {
            return Err(format!("\"{name}\" command takes at most {most} arguments"));
        }
        (command.run)(self, arguments)
    }

    /// Makes the switch what the database says.
    pub fn follow_database(&mut self) {
        if self.agent.hear() {
            flows::collect_for_collectors(self);
        }
        self.agent.run(self.daemon);
    }

    /// Tells collectors what they were not told yet, since the switch ends.
    pub fn end_exports(&mut self) {
        flows::collect_for_collectors(self);
        self.agent.end_exports(self.daemon);
    }

    /// How many tags rules of a bridge can match on.
    pub fn vlan_limit(&self, bridge: &str) -> VlanLimit {
        let flows = self.daemon.switch().flows(bridge).ok().flatten();
        flows.map(|flows| flows.pipeline.vlans).unwrap_or_default()
    }

    /// What a tunnel's port is set to; `None` if it is none.
    pub fn tunnel_settings(&self, port: &str) -> Option<Settings> {
        tunnel_settings(&self.daemon.state().ports.get(port)?.device)?.ok()
    }

    fn check_bridge(&self, name: &str) -> Result<(), String> {
        let known = self.agent.content().is_some_and(|content| content.bridges.contains_key(name));
        known.then_some(()).ok_or_else(|| "no such bridge".to_owned())
    }

    /// How a port is called in tables: by its OpenFlow number. A bond, which has none, is known by that
    /// of a member.
    fn number(&self, bridge: &str, port: &str) -> String {
        let member = self.daemon.state().members(port).next();
        match self.agent.number(bridge, member.unwrap_or(port)) {
            Some(LOCAL) => "LOCAL".to_owned(),
            Some(number) => number.to_string(),
            None => "?".to_owned(),
        }
    }
}

fn list_commands(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    let mut text = "The available commands are:\n".to_owned();
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<23} {}", command.name, command.usage);
    }
    Ok(text)
}

fn version(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    Ok(format!("ovs-vswitchd (Ringway) {}", env!("CARGO_PKG_VERSION")))
}

fn exit(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    *appctl.ends = true;
    Ok(String::new())
}

fn list_bridges(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let bridges = appctl.agent.content().into_iter().flat_map(|content| content.bridges.keys());
    Ok(bridges.map(|name| format!("{name}\n")).collect())
}
