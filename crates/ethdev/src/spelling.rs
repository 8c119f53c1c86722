//! The name that somebody may have meant.

/// The one of `names` that is most like `typed`, if any is: a third of its letters, or one, may be
/// wrong or exchanged, or one is the beginning of the other, such as `vhost`. Capitals, and `_` in
/// place of `-`, are no difference.
#[must_use]
pub fn closest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = plain(typed);
    let mut begun = None;
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        let known = plain(name);
        let distance = strsim::damerau_levenshtein(&typed, &known);
        if distance <= (known.len() / 3).max(1) && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
        if typed.len() > 2 && (known.starts_with(&typed) || typed.starts_with(&known)) {
            begun = begun.or(Some(name));
        }
    }
    best.map(|(_, name)| name).or(begun)
}

/// What to say behind "there is no `typed`": `; did you mean 'NAME'?`, or nothing.
#[must_use]
pub fn hint<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    closest(typed, names).map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_found() {
        let names = ["vhost-user", "virtio-user", "tap", "pcap", "null", "vm_1"];
        for (typed, expected) in [
            ("vhostuser", Some("vhost-user")),
            ("vhost_user", Some("vhost-user")),
            ("vhost", Some("vhost-user")),
            ("virtio", Some("virtio-user")),
            ("virtio-usr", Some("virtio-user")),
            ("TAP", Some("tap")),
            ("nul", Some("null")),
            ("vm_2", Some("vm_1")),
            ("VM-1", Some("vm_1")),
            ("eth", None),
            ("", None),
            ("e1000", None),
        ] {
            assert_eq!(closest(typed, names), expected, "{typed}");
        }
    }

    #[test]
    fn the_hint_follows_what_is_wrong() {
        assert_eq!(hint("nul", ["tap", "null"]), "; did you mean 'null'?");
        assert_eq!(hint("eth", ["tap", "null"]), "");
    }
}
