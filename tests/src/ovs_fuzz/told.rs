use super::frame::tags;

/// What the line of a trace begins with that says what a datapath does.
pub const ACTIONS: &str = "Datapath actions: ";

/// Brings what is done in a line of its own in order where a packet may flood: in which one it comes to
/// ports, is open.
pub fn sort_ports(line: &mut String) {
    if let Some(actions) = line.strip_prefix(ACTIONS) {
        *line = format!("{ACTIONS}{}", in_order_of_text(actions));
    }
}

/// A list in order, and lists in its parts likewise.
fn in_order_of_text(list: &str) -> String {
    let mut parts: Vec<String> = parts(list)
        .map(|part| match part.strip_suffix(')').and_then(|part| part.split_once('(')) {
            Some((name, inner)) => format!("{name}({})", in_order_of_text(inner)),
            None => part.to_owned(),
        })
        .collect();
    parts.sort_unstable();
    parts.join(",")
}

/// The parts of a list between commas, of which there may be more in brackets.
pub fn parts(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    list.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    })
}

/// Whether Open vSwitch writes to wrong places of a packet that it does this with: it reads a packet anew that
/// it hands to controllers, with one tag at most (`vlan-limit`), and takes what is behind that for the
/// network header.
pub fn is_miswritten(bytes: &[u8], actions: &str) -> bool {
    let mut tags = tags(bytes);
    let mut is_lost = false;
    for action in parts(actions) {
        match action.split_once('(').map_or(action, |(name, _)| name) {
            "push_vlan" => tags += 1,
            "pop_vlan" => tags = tags.saturating_sub(1),
            "userspace" => is_lost |= tags > 1,
            "set" if is_lost && !action.starts_with("set(eth(") => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_with_tags_that_are_written_to_behind_a_copy_for_controllers_are_found() {
        let plain = [&[0; 12][..], &[0x08, 0x00]].concat();
        let tagged = [&[0; 12][..], &[0x81, 0, 0, 1, 0x88, 0xA8, 0, 1, 0x08, 0x00]].concat();
        let found = is_miswritten;
        let (push, copy) = ("push_vlan(vid=0,pcp=0)", "userspace(pid=0,controller(reason=2))");
        let write = "set(ipv6(hlimit=2))";
        assert!(found(&plain, &[push, push, copy, "1", write].join(",")));
        assert!(found(&tagged, &[copy, "pop_vlan", write].join(",")));
        assert!(!found(&tagged, &["pop_vlan", copy, write].join(",")));
        assert!(!found(&tagged, &[write, copy, "set(eth(src=1))", "1"].join(",")));
        assert!(!found(&plain, &[push, copy, write].join(",")));
    }

    #[test]
    fn ports_of_a_flood_are_in_order_wherever_it_is() {
        let mut line =
            format!("{ACTIONS}5,check_pkt_len(size=9,gt(3,100,set(ipv4(src=1))),le(2,1)),1");
        sort_ports(&mut line);
        let text = "1,5,check_pkt_len(gt(100,3,set(ipv4(src=1))),le(1,2),size=9)";
        assert_eq!(line.strip_prefix(ACTIONS), Some(text));
    }
}
