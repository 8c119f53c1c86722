//! The profiles of AppArmor that packages have. The kernel of a machine that builds need not have it, so
//! that nothing here sees them enforced: they are compiled, and compared with the unit.

use anyhow::{Result, ensure};

use super::stage::Stage;

/// The installed profiles are what AppArmor's parser understands, and have the names by which services
/// ask for them.
pub fn check(stage: &Stage) -> Result<()> {
    let file = "/etc/apparmor.d/ringway";
    stage.run(&format!("apparmor_parser --skip-kernel-load --skip-cache {file}"))?;
    let names = stage.run(&format!("apparmor_parser --names {file}"))?;
    let names: Vec<&str> = names.split_whitespace().collect();
    ensure!(names == ["ringway", "ringway-ovs-vswitchd"], "{file} has the profiles {names:?}");
    for unit in ["ringway.service", "ringway@lab.service"] {
        let asked = stage.run(&format!("systemctl show -P AppArmorProfile {unit}"))?;
        // Where there is none, or no AppArmor, it starts all the same.
        ensure!(asked.trim() == "-ringway", "{unit} asks for the profile {asked:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use e2e::peers::workspace;

    fn file(name: &str) -> String {
        fs::read_to_string(workspace().join("packaging").join(name)).unwrap()
    }

    /// What the unit says of `key`, of all its lines, in small letters.
    fn unit(key: &str) -> BTreeSet<String> {
        let text = file("ringway.service");
        let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.flat_map(str::split_whitespace).map(str::to_lowercase).collect()
    }

    /// The first words of rules of this kind in the profile of the service, and in what it includes.
    fn rules(kind: &str) -> BTreeSet<String> {
        let profile = file("apparmor/profile");
        let (service, _) = profile.split_once("profile ringway-ovs-vswitchd").unwrap();
        let text = service.to_owned() + &file("apparmor/abstraction");
        let lines =
            text.lines().filter_map(|line| line.trim().strip_prefix(kind)?.strip_prefix(' '));
        let words = lines.map(|rule| rule.trim_end_matches(',').split(' ').next().unwrap());
        words.map(str::to_owned).collect()
    }

    #[test]
    fn the_profile_allows_what_the_unit_does_and_no_more() {
        let capabilities = unit("CapabilityBoundingSet");
        let capabilities: BTreeSet<_> =
            capabilities.iter().map(|name| name.strip_prefix("cap_").unwrap()).collect();
        assert_eq!(
            rules("capability").iter().map(String::as_str).collect::<BTreeSet<_>>(),
            capabilities
        );
        let families = unit("RestrictAddressFamilies");
        let families: BTreeSet<_> =
            families.iter().map(|name| name.strip_prefix("af_").unwrap()).collect();
        assert_eq!(rules("network").iter().map(String::as_str).collect::<BTreeSet<_>>(), families);
        // Devices, by the files that they are.
        let devices: BTreeSet<String> =
            unit("DeviceAllow").into_iter().filter(|word| word != "rw").collect();
        let known = [
            ("/dev/net/tun", "/dev/net/tun"),
            ("/dev/vfio/vfio", "/dev/vfio/{,*}"),
            ("char-vfio", "/dev/vfio/{,*}"),
            ("char-vduse", "/dev/vduse/{,*}"),
            ("char-vhost-vdpa", "/dev/vhost-vdpa-[0-9]*"),
        ];
        assert_eq!(devices, known.iter().map(|(device, _)| (*device).to_owned()).collect());
        let text = file("apparmor/abstraction");
        for (_, rule) in known {
            assert!(text.contains(&format!("  {rule} rw,\n")), "{rule}");
        }
    }
}
