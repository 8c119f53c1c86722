//! The log.

use std::fmt::Write as _;

use ovs::unixctl::Answer;

use super::super::args::level;
use super::super::detach;
use super::super::vlog as lines;
use super::Appctl;
use crate::log;

/// A level for everything, or for one of our modules; those of Open vSwitch are taken, and are nothing
/// here.
pub fn set(_: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    for spec in arguments {
        if let Some((word, rest)) = spec.split_once(':')
            && word.eq_ignore_ascii_case("pattern")
        {
            set_pattern(rest)?;
            continue;
        }
        let words: Vec<&str> =
            spec.split([':', ' ', ',']).filter(|word| !word.is_empty()).collect();
        let is_place = |word: &&str| matches!(*word, "console" | "file" | "syslog" | "ANY" | "any");
        let is_other = |word: &&str| matches!(*word, "FACILITY" | "facility");
        if words.iter().any(is_other) || words == ["syslog"] {
            continue;
        }
        let named = words.iter().find(|word| level(word).is_none() && !is_place(word));
        let named = named.map(|name| ours(name));
        let wanted = words.iter().find_map(|word| level(word)).unwrap_or("debug");
        match named {
            None if words.contains(&"syslog") => {}
            None => log::set(wanted)?,
            Some(name) if words.len() == 1 && !log::has(name) => {
                return Err(format!("no destination, level, or module \"{name}\""));
            }
            Some(name) if log::has(name) => log::set_target(name, wanted)?,
            Some(_) => {}
        }
    }
    Ok(String::new())
}

/// Has lines look as a pattern says: `DESTINATION:PATTERN`, of which the log has one destination.
fn set_pattern(text: &str) -> Result<(), String> {
    let (place, pattern) = text.split_once(':').ok_or("missing pattern")?;
    match place.to_ascii_lowercase().as_str() {
        "any" | "console" | "file" => lines::set_pattern(pattern),
        "syslog" => Ok(()),
        _ => Err(format!("destination \"{place}\" does not exist")),
    }
}

/// Our name of a module of Open vSwitch that says the same.
fn ours(name: &str) -> &str {
    if name == "ofproto_dpif" { "ofproto" } else { name }
}

/// The levels of our modules, in the log's one destination.
pub fn list(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    let levels = log::levels();
    let mut text = "                 console    syslog    file\n".to_owned();
    text += "                 -------    ------    ------\n";
    for module in log::CRATES {
        let own = levels.targets.get(module).unwrap_or(&levels.level);
        let shown = shown(own);
        let _ = writeln!(text, "{module:<16}  {shown:>4}       {:>4}       {shown:>4}", "OFF");
    }
    Ok(text)
}

/// Open vSwitch's word for one of our levels.
fn shown(level: &str) -> &'static str {
    match level {
        "off" => "OFF",
        "error" => "ERR",
        "warn" => "WARN",
        "info" => "INFO",
        _ => "DBG",
    }
}

/// How lines look.
pub fn patterns(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    let pattern = lines::pattern();
    let mut text = "         prefix                            format\n".to_owned();
    text += "         ------                            ------\n";
    for place in ["CONSOLE", "FILE"] {
        let _ = writeln!(text, "{place:<8} none                              {pattern}");
    }
    Ok(text)
}

/// Opens the log file anew: whoever has moved it away wants another one.
pub fn reopen(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let Some(path) = appctl.log_file else {
        return Err("Logging to file not configured".to_owned());
    };
    detach::log_to(path).map_err(|failure| failure.to_string())?;
    Ok(String::new())
}

/// Has a module say all, or less of what repeats. All is said here in any case, and names of modules are
/// Open vSwitch's own: nothing is to be done.
pub const fn limit(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    Ok(String::new())
}

/// Lets the log file go; nothing is logged until it is opened anew.
pub fn close(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    if appctl.log_file.is_some() {
        detach::log_to("/dev/null".as_ref()).map_err(|failure| failure.to_string())?;
    }
    Ok(String::new())
}
