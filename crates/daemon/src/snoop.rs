//! What bridges of a desired state do about groups of IGMP and MLD.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Section `[mcast-snooping]`, and that of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct McastSnooping {
    /// Whether groups are looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Seconds without a report until a port is taken for no member any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aging_time: Option<u32>,
    /// The most groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<usize>,
    /// Whether what goes to a group without members goes to routers alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_flood_unregistered: Option<bool>,
    /// Whether the bridge asks for members itself, where no router does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub querier: Option<bool>,
    /// The address from which it asks by IGMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub querier_address: Option<Ipv4Addr>,
}

impl From<&switch::McastSnooping> for McastSnooping {
    fn from(options: &switch::McastSnooping) -> Self {
        Self {
            enabled: Some(options.enabled),
            aging_time: Some(options.aging_time),
            table_size: Some(options.table_size),
            disable_flood_unregistered: Some(options.disable_flood_unregistered),
            querier: Some(options.querier),
            querier_address: options.querier_address,
        }
    }
}

impl McastSnooping {
    /// What is said here, and for the rest what `base` says.
    #[must_use]
    pub(crate) fn over(&self, base: &Self) -> Self {
        let disable_flood_unregistered =
            self.disable_flood_unregistered.or(base.disable_flood_unregistered);
        Self {
            enabled: self.enabled.or(base.enabled),
            aging_time: self.aging_time.or(base.aging_time),
            table_size: self.table_size.or(base.table_size),
            disable_flood_unregistered,
            querier: self.querier.or(base.querier),
            querier_address: self.querier_address.or(base.querier_address),
        }
    }

    /// The settings, with those of `default` for what is not said.
    pub(crate) fn options(&self, default: &switch::McastSnooping) -> switch::McastSnooping {
        switch::McastSnooping {
            enabled: self.enabled.unwrap_or(default.enabled),
            aging_time: self.aging_time.unwrap_or(default.aging_time),
            table_size: self.table_size.unwrap_or(default.table_size),
            disable_flood_unregistered: self
                .disable_flood_unregistered
                .unwrap_or(default.disable_flood_unregistered),
            querier: self.querier.unwrap_or(default.querier),
            querier_address: self.querier_address.or(default.querier_address),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{State, diff, file};

    fn state(text: &str) -> State {
        file::parse(text).unwrap().resolved()
    }

    #[test]
    fn bridges_are_as_the_default_one_where_they_say_nothing_else() {
        let text = "[mcast-snooping]\nenabled = true\nquerier = true\nquerier-address = \"192.0.2.1\"\n\
                    [bridges.red.mcast-snooping]\naging-time = 60\nquerier = false\n[bridges.blue]\n";
        let state = state(text);
        let of = |name: &str| state.bridge(name).unwrap().mcast_snooping;
        assert!(of("default").enabled && of("default").querier);
        assert_eq!((of("red").enabled, of("red").aging_time, of("red").querier), (true, 60, false));
        assert_eq!(of("blue"), of("default"));
        assert_eq!(of("blue").querier_address, Some([192, 0, 2, 1].into()));
    }

    #[test]
    fn changes_are_told_by_their_keys_and_what_makes_no_sense_is_refused() {
        let (old, mut new) = (state("[bridges.red]\n"), state("[bridges.red]\n"));
        let settings = |text: &str| serde_json::from_str(text).unwrap();
        new.set_bridge("default", settings(r#"{"mcast-snooping.enabled":true}"#)).unwrap();
        let shown: Vec<String> = diff(&old, &new).changes.iter().map(ToString::to_string).collect();
        let expected = "mcast-snooping.enabled false -> true";
        assert_eq!(shown, [expected.to_owned(), format!("bridge red: {expected}")]);
        let mut made = old.clone();
        diff(&old, &new).changes.iter().for_each(|change| change.apply(&mut made));
        assert_eq!(made.bridge("default"), new.bridge("default"));
        for (name, part) in [
            ("default", "mcast-snooping.aging-time"),
            ("red", "bridges.red.mcast-snooping.aging-time"),
        ] {
            let mut wrong = old.clone();
            wrong.set_bridge(name, settings(r#"{"mcast-snooping.aging-time":3}"#)).unwrap();
            let error = crate::check::check(&old, &wrong).unwrap_err();
            assert_eq!(error.part().unwrap().0, part);
            assert!(error.to_string().contains("expected 15 to 3600 seconds"), "{error}");
        }
        let unknown = settings(r#"{"mcast-snooping.ageing-time":60}"#);
        let error = new.set_bridge("red", unknown).unwrap_err().to_string();
        assert!(error.contains("did you mean 'aging-time'?"), "{error}");
    }

    #[test]
    fn a_port_keeps_what_is_not_named_and_a_member_of_a_bond_has_none() {
        let mut state = state("[ports.a]\ndevice = \"null:\"\nmcast-snooping.flood = true\n");
        let settings = |text: &str| serde_json::from_str(text).unwrap();
        let router = settings(r#"{"mcast-snooping":{"router":"never"}}"#);
        state.set_port("a", router).unwrap();
        let own = &state.ports["a"].mcast_snooping;
        assert!(own.flood && own.router == switch::McastRouter::Never);
        assert_eq!(state.ports["a"].options().mcast_snooping, *own);
        state.add_bond("up", crate::Port::bond(), &["a".to_owned()]).unwrap();
        let error = crate::check::check(&State::default(), &state).unwrap_err().to_string();
        assert!(error.contains("has no 'mcast-snooping': say it of port 'up'"), "{error}");
    }
}
