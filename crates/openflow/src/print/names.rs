//! Names of fields in short: what many begin with is written once, and what is numbered in a row by its ends.

/// Names behind each other, as in `in_port eth_{src,dst} reg0...reg15`.
pub(super) fn short(names: &[&str]) -> String {
    let mut text = String::new();
    put(&mut text, names, 0);
    text
}

/// Appends names without their first `common` bytes, which are the same.
fn put(text: &mut String, mut names: &[&str], common: usize) {
    let rest = |name: &'_ str| name.get(common..).unwrap_or_default().to_owned();
    let mut is_first = true;
    while let Some(first) = names.first() {
        if !is_first {
            text.push(if common > 0 { ',' } else { ' ' });
        }
        is_first = false;
        let (alike, more) = same_begin(names, common);
        let row = numbered(names);
        let count = alike.max(row);
        let (these, others) = names.split_at_checked(count).unwrap_or((names, &[]));
        if row >= alike {
            text.push_str(&rest(first));
            if let (Some(last), true) = (these.last(), count > 1) {
                text.push_str("...");
                text.push_str(&rest(last));
            }
        } else {
            let end = common.saturating_add(more);
            text.push_str(first.get(common..end).unwrap_or_default());
            text.push('{');
            put(text, these, end);
            text.push('}');
        }
        names = others;
    }
}

/// How many of the first names are numbered in a row: `reg0`, `reg1`, `reg2`; two are not worth it.
fn numbered(names: &[&str]) -> usize {
    let follows = |pair: &&[&str]| matches!(pair, [first, second] if is_next(first, second));
    match names.windows(2).take_while(follows).count() {
        0 | 1 => 1,
        more => more.saturating_add(1),
    }
}

fn is_next(first: &str, second: &str) -> bool {
    let same = first.bytes().zip(second.bytes()).take_while(|(one, other)| one == other).count();
    let number = |name: &str| {
        let digits = name.get(same..).filter(|digits| digits.len() < 10)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| is_number)
    };
    number(first)
        .and_then(|number| number.checked_add(1))
        .is_some_and(|next| number(second) == Some(next))
}

/// How many of the first names have a begin in common behind the first `common` bytes, up to an underscore, and how
/// long it is.
fn same_begin(names: &[&str], common: usize) -> (usize, usize) {
    let [first, second, ..] = names else { return (names.len(), 0) };
    let length = begin(first, second, common);
    if length == 0 {
        return (1, 0);
    }
    let others = names.iter().skip(2);
    (2 + others.take_while(|name| begin(first, name, common) > 0).count(), length)
}

/// How long the begin of two names is that is the same, up to its last underscore.
fn begin(first: &str, second: &str, common: usize) -> usize {
    let [first, second] =
        [first, second].map(|name| name.as_bytes().get(common..).unwrap_or_default());
    let same = first.iter().zip(second).take_while(|(one, other)| one == other).count();
    first.iter().take(same).rposition(|byte| *byte == b'_').map_or(0, |at| at.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_is_written_once() {
        let shown = |names: &str| short(&names.split(' ').collect::<Vec<_>>());
        assert_eq!(shown("a"), "a");
        assert_eq!(shown("eth_src eth_dst vlan_tci"), "eth_{src,dst} vlan_tci");
        assert_eq!(shown("reg0 reg1 reg2 xreg0 xreg1"), "reg0...reg2 xreg0 xreg1");
        assert_eq!(shown("tun_a tun_b_c tun_b_d ip"), "tun_{a,b_{c,d}} ip");
        assert_eq!(short(&[]), "");
    }
}
