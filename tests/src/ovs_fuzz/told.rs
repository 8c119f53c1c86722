use super::frame::{has_wrong_nsh, labels, tags};
use super::lab::Bridge;

/// What the line of a trace begins with that says what a datapath does.
const ACTIONS: &str = "Datapath actions: ";

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

/// Leaves out of what a controller is told by the action set of which rule it is told: table and cookie.
pub fn forget_rule_of_set(line: &mut String) {
    let Some((packet, about)) = line.split_once(": action_set, ") else { return };
    let rest = about.splitn(3, ", ").nth(2).unwrap_or_default();
    *line = format!("{packet}: action_set, {rest}");
}

/// Whether Open vSwitch damages a packet, of which its trace has these lines.
pub fn is_damaged(bytes: &[u8], lines: &[String]) -> bool {
    let mut is_bare = false;
    let has_wrong_nsh = has_wrong_nsh(bytes);
    lines.iter().any(|line| {
        if line.starts_with("Flow: ") {
            is_bare = line.contains("packet_type=(");
        }
        let actions = line.strip_prefix(ACTIONS);
        actions.is_some_and(|actions| {
            is_miswritten(bytes, actions)
                || tags_without_ethernet(is_bare, actions)
                // It writes to what is no header, and behind the packet's end.
                || has_wrong_nsh && actions.contains("set(nsh(")
        })
    })
}

/// Whether a packet comes to the second bridge from which all labels were taken that are known, for others that are not
/// (`pop_mpls:0x8847`): Open vSwitch goes on there with one of no labels, whatever is behind those.
pub fn crosses_without_labels(bytes: &[u8], lines: &[String]) -> bool {
    let (mut labels, mut has_none) = (labels(bytes), false);
    let second = format!("bridge(\"{}\")", Bridge::Second.name());
    for line in lines {
        match line.trim_start().split_once(':') {
            Some(("push_mpls", _)) => labels += 1,
            Some(("pop_mpls", kind)) => {
                labels = labels.saturating_sub(1);
                has_none |= labels == 0 && ["0x8847", "0x8848"].contains(&kind);
            }
            _ if has_none && *line == second => return true,
            _ => {}
        }
    }
    false
}

/// Whether tables that a `clone` leads to put headers on in front of all, or take them off: Open vSwitch does not see that
/// a copy is not to be undone then, and goes on behind it with those headers.
pub fn changes_headers_in_copy(lines: &[String]) -> bool {
    // How deep the line of a copy is, how many tables it leads to that are still to come, and whether it is at one.
    let (mut depth, mut left, mut is_within) = (0, 0, false);
    for line in lines {
        let text = line.trim_start();
        let own = line.len() - text.len();
        let is_header = text.starts_with("encap(") || text.starts_with("decap(");
        if is_within && own > depth && is_header {
            return true;
        }
        if own > depth && (left > 0 || is_within) {
            continue;
        }
        is_within = left > 0 && own == depth && text.starts_with("resubmit(");
        left = if own < depth { 0 } else { left - usize::from(is_within) };
        if text.starts_with("clone(") {
            (depth, left) = (own, text.matches("resubmit(").count());
        }
    }
    false
}

/// The same in the second bridge: its first rule leads to tables that do so.
pub fn changes_headers_in_second(lines: &[String]) -> bool {
    let second = format!("bridge(\"{}\")", Bridge::Second.name());
    // How many tables the packet has come to there.
    let mut tables = None;
    for line in lines {
        let text = line.trim_start();
        let is_table =
            text.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        if text.starts_with("bridge(") {
            tables = (text == second).then_some(0);
        } else if let Some(count) = &mut tables {
            *count += usize::from(is_table);
            if *count > 1 && (text.starts_with("encap(") || text.starts_with("decap(")) {
                return true;
            }
        }
    }
    false
}

/// Whether Open vSwitch writes to wrong places of a packet that it does this with: it reads a packet anew that
/// it hands to controllers, with one tag at most (`vlan-limit`), and takes what is behind that for the
/// network header.
fn is_miswritten(bytes: &[u8], actions: &str) -> bool {
    let mut tags = tags(bytes);
    let mut is_lost = false;
    for action in parts(actions) {
        match action.split_once('(').map_or(action, |(name, _)| name) {
            "push_vlan" => tags += 1,
            "pop_vlan" => tags = tags.saturating_sub(1),
            "userspace" => is_lost |= tags > 1,
            "set" if is_lost && !action.starts_with("set(eth(") => return true,
            "push_mpls" | "pop_mpls" if is_lost => return true,
            _ => {}
        }
    }
    false
}

/// Whether Open vSwitch puts a tag on a packet that has no header of Ethernet when it does this, and so writes it over the
/// packet's first bytes; whether it has none at first is said.
fn tags_without_ethernet(mut is_bare: bool, actions: &str) -> bool {
    const WITH_LISTS: [&str; 5] = ["clone", "check_pkt_len", "gt", "le", "actions"];
    for action in parts(actions) {
        let (name, rest) = action.split_once('(').unwrap_or((action, ""));
        match name {
            "pop_eth" | "push_nsh" => is_bare = true,
            "push_eth" => is_bare = false,
            "push_vlan" if is_bare => return true,
            _ if !WITH_LISTS.contains(&name) => {}
            _ => {
                let inner = rest.strip_suffix(')').unwrap_or(rest);
                if tags_without_ethernet(is_bare, inner) {
                    return true;
                }
            }
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
        assert!(found(&tagged, &[copy, "push_mpls(label=0,tc=0,ttl=64,bos=1)", "1"].join(",")));
        assert!(!found(&tagged, &["pop_vlan", copy, write].join(",")));
        assert!(!found(&tagged, &[write, copy, "set(eth(src=1))", "1"].join(",")));
        assert!(!found(&plain, &[push, copy, write].join(",")));
    }

    #[test]
    fn packets_that_are_damaged_are_found_by_what_traces_say_of_them() {
        let found = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            is_damaged(&[0; 14], &lines)
        };
        let (bare, push) = ("Flow: packet_type=(1,0x800),in_port=2", "push_vlan(vid=0,pcp=0),1");
        let actions = format!("{ACTIONS}{push}");
        assert!(found(&[bare, &actions]) && !found(&["Flow: ip,in_port=2", &actions]));
        assert!(!found(&[bare, "Datapath actions: pop_mpls(eth_type=0x800),recirc(0x1)"]));
    }

    #[test]
    fn packets_that_end_before_the_header_that_is_written_to_are_found() {
        let header = [0, 6, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let packet = |len: usize| [&[0; 12][..], &[0x89, 0x4F], &header[..len]].concat();
        let [written, sent] = ["set(nsh(ttl=1)),2", "2"].map(|of| vec![format!("{ACTIONS}{of}")]);
        assert!([1, 7, 23].iter().all(|len| is_damaged(&packet(*len), &written)));
        assert!(!is_damaged(&packet(24), &written) && !is_damaged(&packet(1), &sent));
        // One that says that it is longer.
        let longer = [&[0; 12][..], &[0x89, 0x4F, 0x3F, 0xC3, 2, 2, 0, 0, 0, 0xFF]].concat();
        assert!(is_damaged(&longer, &written));
        assert!(!is_damaged(&[0; 16], &written));
    }

    #[test]
    fn packets_that_cross_with_labels_that_are_not_known_are_found() {
        let found = |labels: usize, lines: &[&str]| {
            let bytes = [&[0; 12][..], &[0x88, 0x47], &[0, 0, 0, 7].repeat(labels)].concat();
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            crosses_without_labels(&bytes, &lines)
        };
        let (push, pop, second) =
            ("    push_mpls:0x8847", "    pop_mpls:0x8847", "bridge(\"br1\")");
        assert!(found(0, &[push, pop, "    output:11", second]) && found(1, &[pop, second]));
        assert!(!found(2, &[pop, second]) && !found(1, &[second, pop]) && !found(1, &[pop]));
        assert!(!found(1, &["    pop_mpls:0x0800", second]));
    }

    #[test]
    fn headers_in_tables_that_copies_lead_to_are_found() {
        let found = |lines: &[&str]| {
            changes_headers_in_copy(&lines.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (copy, on) =
            ("    clone(resubmit(,3),resubmit(,4),output:2)", "            encap(nsh)");
        let [three, four] = ["    resubmit(,3)", "    resubmit(,4)"];
        let [third, fourth] = ["     3. priority 0", "     4. priority 0"];
        assert!(found(&[copy, three, third, on]));
        assert!(found(&[copy, three, third, "            drop", four, fourth, "        decap()"]));
        // Behind the copy, in its own list, or in one that is done by itself.
        let behind = [
            copy,
            three,
            third,
            "            drop",
            four,
            fourth,
            "            drop",
            "    output:2",
        ];
        assert!(!found(&[&behind[..], &["    resubmit(,5)", "     5. priority 0", on]].concat()));
        assert!(!found(&["    clone(encap(nsh),output:2)", "    encap(nsh)", "    output:2"]));
        assert!(!found(&[three, third, on, copy]));
    }

    #[test]
    fn headers_in_tables_that_the_second_bridge_leads_to_are_found() {
        let found = |lines: &[&str]| {
            changes_headers_in_second(&lines.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (second, off) = ("    bridge(\"br1\")", "            decap()");
        let [zero, three] = ["         0. priority 0", "         3. priority 1"];
        assert!(found(&[second, zero, "            resubmit(,3)", three, off]));
        // Of the first rule itself Open vSwitch sees it.
        assert!(!found(&[second, zero, off, "            resubmit(,3)", three]));
        assert!(!found(&["bridge(\"br0\")", zero, three, off, second, zero]));
    }

    #[test]
    fn tags_of_packets_without_ethernet_are_found() {
        let found = tags_without_ethernet;
        let push = "push_vlan(vid=0,pcp=0)";
        assert!(found(true, push) && !found(false, push));
        assert!(found(false, &format!("1,pop_eth,{push},2")));
        assert!(!found(false, &format!("{push},pop_eth,push_eth(src=1,dst=2),{push},2")));
        assert!(found(
            false,
            &format!("pop_eth,clone(1,check_pkt_len(size=9,gt({push}),le(2))),1")
        ));
        assert!(found(false, &format!("push_nsh(flags=0),{push}")));
        assert!(!found(false, &format!("clone(pop_eth,1),clone({push})")));
    }

    #[test]
    fn what_is_told_by_the_action_set_is_compared_without_its_rule() {
        let told = |text: &str| {
            let mut line = format!("br0 tells of 0200 of 2 bytes: {text}");
            forget_rule_of_set(&mut line);
            line
        };
        let set = "action_set, table=0, cookie=None, in_port=4, userdata=";
        assert_eq!(told(set), told(&set.replace("0, cookie=None", "3, cookie=Some(0)")));
        assert!(told(set).ends_with("bytes: action_set, in_port=4, userdata="));
        let other = "action, table=0, cookie=None, in_port=4, userdata=";
        assert!(told(other).ends_with(other));
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
