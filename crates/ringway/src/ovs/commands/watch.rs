//! Links that are watched: maintenance points (CFM) and sessions of BFD.

use std::fmt::Write as _;

use ovs::unixctl::Answer;
use switch::{BfdReport, BfdSide, CfmReport};

use super::Appctl;

/// Tells of all maintenance points, or of one.
pub fn cfm(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let asked = arguments.first();
    let reports = appctl.daemon.switch().cfm();
    let reports = reports.iter().filter(|(name, _)| asked.is_none_or(|asked| asked == name));
    let told: Vec<String> = reports.map(|(name, report)| describe_cfm(name, report)).collect();
    if told.is_empty() && asked.is_some() {
        return Err("no such CFM object".to_owned());
    }
    Ok(told.concat())
}

fn describe_cfm(name: &str, report: &CfmReport) -> String {
    let extended = if report.settings.extended { " extended" } else { "" };
    let overridden = if report.is_overridden { " fault_override" } else { "" };
    let mpid = report.settings.mpid;
    let mut text = format!("---- {name} ----\nMPID {mpid}:{extended}{overridden}\n");
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {key}: {value}");
    };
    let faults: Vec<&str> = report.faults.names().collect();
    if !faults.is_empty() {
        line("fault", &faults.join(" "));
    }
    match report.health {
        Some(health) => line("average health", &health),
        None => line("average health", &"undefined"),
    }
    line("opstate", &up_or_down(!report.settings.down));
    line("remote_opstate", &up_or_down(report.is_remote_up));
    line("interval", &format_args!("{}ms", report.interval));
    let [message, look] = report.next;
    line("next CCM tx", &format_args!("{message}ms"));
    line("next fault check", &format_args!("{look}ms"));
    for remote in &report.remotes {
        let (mpid, heard, state) = (remote.mpid, remote.is_heard, up_or_down(remote.is_up));
        let _ = writeln!(text, "Remote MPID {mpid}");
        let _ = writeln!(text, "  recv since check: {heard}\n  opstate: {state}");
    }
    text
}

const fn up_or_down(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

/// What an operator says: the port, if it is about one, and whether it is so.
fn told(arguments: &[String]) -> Result<(Option<&str>, Option<bool>), String> {
    let (name, word) = match arguments {
        [word] => (None, word),
        [name, word] => (Some(name.as_str()), word),
        _ => return Err("unknown fault string".to_owned()),
    };
    match word.to_ascii_lowercase().as_str() {
        "true" => Ok((name, Some(true))),
        "false" => Ok((name, Some(false))),
        "normal" => Ok((name, None)),
        _ => Err("unknown fault string".to_owned()),
    }
}

/// Has maintenance points find faults, or not, whatever they find.
pub fn set_fault(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (name, faults) = told(arguments)?;
    let is_there = appctl.daemon.switch().override_cfm(name, faults);
    is_there.then(|| "OK".to_owned()).ok_or_else(|| "no such CFM object".to_owned())
}

/// Has sessions of BFD find that links do, or not, whatever they find.
pub fn set_forwarding(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let (name, forwards) = told(arguments)?;
    let is_there = appctl.daemon.switch().override_bfd(name, forwards);
    is_there.then(|| "OK".to_owned()).ok_or_else(|| "no such BFD object".to_owned())
}

/// Tells of all sessions of BFD, or of one.
pub fn bfd(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let reports = appctl.daemon.switch().bfd();
    if let Some(asked) = arguments.first() {
        let found = reports.iter().find(|(name, _)| name == asked);
        return found
            .map(|(_, report)| describe_bfd(report))
            .ok_or_else(|| "no such bfd object".to_owned());
    }
    let each = |(name, report): &(String, BfdReport)| {
        format!("---- {name} ----\n{}", describe_bfd(report))
    };
    Ok(reports.iter().map(each).collect())
}

fn describe_bfd(report: &BfdReport) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {key}: {value}");
    };
    let [tx, rx] = report.intervals;
    let [detect, next, last] = report.times;
    line("Forwarding", &report.is_forwarding);
    line("Detect Multiplier", &report.local.mult);
    line("Concatenated Path Down", &report.settings.cpath_down);
    line("TX Interval", &format_args!("Approx {tx}ms"));
    line("RX Interval", &format_args!("Approx {rx}ms"));
    line("Detect Time", &format_args!("now {detect:+}ms"));
    line("Next TX Time", &format_args!("now {next:+}ms"));
    line("Last TX Time", &format_args!("now {last:+}ms"));
    text.push('\n');
    text += &describe_side("Local", &report.local);
    text.push('\n');
    text += &describe_side("Remote", &report.remote);
    let _ = writeln!(text, "  Remote Detect Multiplier: {}", report.remote.mult);
    text
}

fn describe_side(who: &str, side: &BfdSide) -> String {
    let values: [(&str, &dyn std::fmt::Display); 6] = [
        ("Flags", &side.flags),
        ("Session State", &side.state.name()),
        ("Diagnostic", &side.diag.name()),
        ("Discriminator", &format_args!("{:#x}", side.discriminator)),
        ("Minimum TX Interval", &format_args!("{}ms", side.min_tx)),
        ("Minimum RX Interval", &format_args!("{}ms", side.min_rx)),
    ];
    values.map(|(name, value)| format!("  {who} {name}: {value}\n")).concat()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use switch::{Bfd, Cfm};

    use super::*;

    #[test]
    fn a_maintenance_point_is_told_as_open_vswitch_does() {
        let settings = Cfm { extended: true, interval: 300, ..Cfm::new(1) };
        let now = Instant::now();
        let mut report = switch::CfmSession::new(settings, 0, now).report(now);
        let expected = "---- p0 ----\nMPID 1: extended\n  average health: undefined\n  opstate: up\n  \
                        remote_opstate: up\n  interval: 300ms\n  next CCM tx: 0ms\n  \
                        next fault check: 1050ms\n";
        assert_eq!(describe_cfm("p0", &report), expected);
        (report.health, report.is_overridden) = (Some(100), true);
        assert!(describe_cfm("p0", &report).contains("MPID 1: extended fault_override\n"));
        assert!(describe_cfm("p0", &report).contains("average health: 100\n"));
    }

    #[test]
    fn a_session_is_told_as_open_vswitch_does() {
        let now = Instant::now();
        let mut report = switch::BfdSession::new(Bfd::default(), 0, now).report(now);
        report.local.discriminator = 0x1f;
        let expected = "  Forwarding: false\n  Detect Multiplier: 3\n  Concatenated Path Down: false\n  \
                        TX Interval: Approx 1000ms\n  RX Interval: Approx 1000ms\n  \
                        Detect Time: now +0ms\n  Next TX Time: now +0ms\n  Last TX Time: now +0ms\n\n  \
                        Local Flags: none\n  Local Session State: down\n  Local Diagnostic: No Diagnostic\n  \
                        Local Discriminator: 0x1f\n  Local Minimum TX Interval: 1000ms\n  \
                        Local Minimum RX Interval: 1000ms\n\n  Remote Flags: none\n  \
                        Remote Session State: down\n  Remote Diagnostic: No Diagnostic\n  \
                        Remote Discriminator: 0x0\n  Remote Minimum TX Interval: 0ms\n  \
                        Remote Minimum RX Interval: 1ms\n  Remote Detect Multiplier: 0\n";
        assert_eq!(describe_bfd(&report), expected);
    }

    #[test]
    fn what_an_operator_says_is_a_word_perhaps_of_one_port() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(told(&words("p0 TRUE")), Ok((Some("p0"), Some(true))));
        assert_eq!(told(&words("normal")), Ok((None, None)));
        assert!(told(&words("p0 perhaps")).is_err());
    }
}
