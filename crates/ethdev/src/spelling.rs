//! The name that somebody may have meant.

/// The name that is most like `typed`, if any is: a third of its letters, or one, may be wrong
/// or exchanged, or one is the beginning of the other, such as `vhost`.
#[must_use]
pub fn closest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase().replace('_', "-");
    let begins =
        |name: &&str| typed.len() > 2 && (name.starts_with(&typed) || typed.starts_with(*name));
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&typed, name), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
        .or_else(|| names.iter().copied().find(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_found() {
        let names = ["vhost-user", "virtio-user", "tap", "pcap", "null"];
        for (typed, expected) in [
            ("vhostuser", Some("vhost-user")),
            ("vhost_user", Some("vhost-user")),
            ("vhost", Some("vhost-user")),
            ("virtio", Some("virtio-user")),
            ("virtio-usr", Some("virtio-user")),
            ("TAP", Some("tap")),
            ("nul", Some("null")),
            ("eth", None),
            ("", None),
            ("e1000", None),
        ] {
            assert_eq!(closest(typed, &names), expected, "{typed}");
        }
    }
}
