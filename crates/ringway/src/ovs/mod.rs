//! `ringway ovs-vswitchd`: a switch that Open vSwitch's database configures, with the options,
//! files and commands of the program of that name.
//!
//! - [`args`]: its command line, which is not ours
//! - [`import`]: `ringway config from-ovs`
//! - [`run`]: the switch
//! - [`commands`]: what `ovs-appctl` asks for
//! - [`detach`]: running in the background
//! - [`vlog`]: lines of the log
//! - [`pidfile`]: by which scripts and `ovs-appctl` find it

pub mod args;
pub mod commands;
pub mod detach;
mod flows;
pub mod import;
pub mod pidfile;
pub mod run;
mod tls;
mod underlay;
pub mod vlog;

use std::ffi::OsString;
use std::path::Path;

/// The name by which it is called.
pub const NAME: &str = "ovs-vswitchd";

/// The arguments, if `all` of this process, its name first, call it: as a command, or by its name.
pub fn arguments(all: impl IntoIterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut all: Vec<OsString> = all.into_iter().collect();
    let named = |word: &OsString| Path::new(word).file_name().is_some_and(|name| name == NAME);
    if all.first().is_some_and(named) {
        return Some(all);
    }
    if all.get(1).is_some_and(|word| word == NAME) {
        all.remove(0);
        return Some(all);
    }
    None
}

/// The arguments behind the command's name, with it.
pub fn called(arguments: &[OsString]) -> Vec<OsString> {
    std::iter::once(NAME.into()).chain(arguments.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_by_name_or_as_a_command() {
        let call = |line: &str| arguments(line.split(' ').map(OsString::from));
        let own = Some(vec![OsString::from(NAME), "--detach".into()]);
        assert_eq!(call("ringway ovs-vswitchd --detach"), own);
        assert_eq!(call("ovs-vswitchd --detach"), own);
        assert!(call("/usr/sbin/ovs-vswitchd unix:db").is_some());
        assert_eq!(call("ringway switch ovs-vswitchd"), None);
    }
}
