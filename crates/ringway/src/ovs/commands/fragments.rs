//! Fragments of packets whose connections are tracked, as `ovs-dpctl` shows and sets them.

use std::fmt::Write as _;
use std::sync::Arc;

use conntrack::{Conntrack, FragmentCounts, FragmentVersion, Whole};
use ovs::unixctl::Answer;

use super::Appctl;
use super::connections::{check_path, invalid};

/// The table of connections, where a data path that is named before the last so many words is there.
fn connections(
    appctl: &Appctl<'_>,
    arguments: &[String],
    words: usize,
) -> Result<Arc<Conntrack>, String> {
    check_path(appctl, arguments.first().filter(|_| arguments.len() > words))?;
    Ok(appctl.daemon.switch().connections())
}

/// Whether a word is IPv6; `None` if it is no version.
fn version(word: Option<&String>) -> Option<bool> {
    match word?.as_bytes() {
        [b'v', b'4', ..] => Some(false),
        [b'v', b'6', ..] => Some(true),
        _ => None,
    }
}

fn set(appctl: &Appctl<'_>, arguments: &[String], is_enabled: bool) -> Answer {
    let all = connections(appctl, arguments, 1)?;
    let is_v6 = version(arguments.last())
        .ok_or_else(|| invalid("parameter missing: 'v4' for IPv4 or 'v6' for IPv6"))?;
    all.fragments().enable(is_v6, is_enabled);
    let what = if is_enabled { "enabling" } else { "disabling" };
    Ok(format!("{what} fragmentation reassembly successful"))
}

/// Has them be put together.
pub fn enable(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    set(appctl, arguments, true)
}

/// Has them not be put together.
pub fn disable(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    set(appctl, arguments, false)
}

/// Sets how short they may be.
pub fn set_shortest(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let all = connections(appctl, arguments, 2)?;
    let word = arguments.len().checked_sub(2).and_then(|at| arguments.get(at));
    let is_v6 =
        version(word).ok_or_else(|| invalid("parameter missing: v4 for IPv4 or v6 for IPv6"))?;
    let len = arguments.last().and_then(|word| word.parse().ok());
    let len = len.ok_or_else(|| invalid("parameter missing for minimum fragment size"))?;
    match all.fragments().set_shortest(is_v6, len) {
        true => Ok("setting minimum fragment size successful".to_owned()),
        false => Err(invalid("requested minimum fragment size too small; see documentation")),
    }
}

/// Sets how many may wait.
pub fn set_limit(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let all = connections(appctl, arguments, 1)?;
    let limit = arguments.last().and_then(|word| word.parse().ok());
    let limit = limit.ok_or_else(|| invalid("parameter missing for maximum fragments"))?;
    match all.fragments().set_limit(limit) {
        true => Ok("setting maximum fragments successful".to_owned()),
        false => Err(invalid("setting maximum fragments failed")),
    }
}

/// What became of them, and with `-m` those that wait.
pub fn status(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (options, words): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|word| word.starts_with('-'));
    check_path(appctl, words.first().copied())?;
    let status = appctl.daemon.switch().connections().fragments().status();
    let [v4, v6] = &status.versions;
    let mut text = format!(
        "        Fragmentation Module Status\n        ---------------------------\n        \
         v4 enabled: {}\n        v6 enabled: {}\n        max num frags (v4/v6): {}\n        \
         num frag: {}\n",
        u8::from(v4.is_enabled),
        u8::from(v6.is_enabled),
        status.limit,
        status.count
    );
    text += &of_version("v4", v4);
    text += &of_version("v6", v6);
    if !options.is_empty() {
        text += "\n        Fragment Lists:\n\n";
        status.packets.iter().for_each(|(whole, count, state)| {
            let _ = writeln!(text, "({},num_fragments={count},state={state})", packet(whole));
        });
    }
    Ok(text)
}

fn of_version(name: &str, version: &FragmentVersion) -> String {
    let FragmentVersion { shortest, counts, .. } = version;
    let FragmentCounts { accepted, completed, expired, too_small, overlapped, purged } = counts;
    let mut text = format!("        min {name} frag size: {shortest}\n");
    for (what, count) in [
        ("accepted", accepted),
        ("completed", completed),
        ("expired", expired),
        ("too small", too_small),
        ("overlapped", overlapped),
        ("purged", purged),
    ] {
        let _ = writeln!(text, "        {name} frags {what}: {count}");
    }
    text
}

/// What fragments of a packet have in common. What Open vSwitch numbers by `recirc_id` is a table here.
fn packet(whole: &Whole) -> String {
    let Whole { source, destination, id, protocol, zone, next, .. } = whole;
    let ether_type = if source.is_ipv6() { "0x86dd" } else { "0x800" };
    format!(
        "src={source},dst={destination},recirc_id={next},ip_id={id},dl_type={ether_type},\
         zone={zone},nw_proto={protocol}"
    )
}
