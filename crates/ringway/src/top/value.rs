//! What stands in a place of a table: how it is shown, and what comes before what.

use std::cmp::Ordering;

use crate::table::{Cell, Tone, approximate, count, si};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text, by whose digits numbers are told: `vm2` comes before `vm10`.
    Text(String, Tone),
    /// The number of a worker or queue.
    Index(Option<usize>),
    /// A number of something, written out.
    Count(Option<u64>),
    /// Something per second.
    Rate(Option<f64>),
    /// Something per second that should not happen.
    Trouble(Option<f64>),
    /// A number of things that should not have happened.
    Troubles(u64),
    /// A share.
    Percent(Option<f64>),
    /// A mean.
    Mean(Option<f64>),
}

impl Value {
    /// A text that does not stand out.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into(), Tone::Plain)
    }

    /// Whether it is a number: those are aligned at their right, and never cut off.
    pub const fn is_number(&self) -> bool {
        !matches!(self, Self::Text(..))
    }

    /// Whether the largest comes first, as of what there is more or less of.
    pub const fn is_amount(&self) -> bool {
        !matches!(self, Self::Text(..) | Self::Index(_))
    }

    /// How it is shown.
    pub fn cell(&self) -> Cell {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned()).into();
        match self {
            Self::Text(text, tone) => Cell::toned(text.clone(), *tone),
            Self::Index(value) => or_dash(value.map(|index| index.to_string())),
            Self::Count(value) => or_dash(value.map(count)),
            Self::Rate(value) => or_dash(value.map(short)),
            Self::Trouble(value) => match value {
                Some(rate) => Cell::trouble_of(short(*rate), *rate > 0.0),
                None => or_dash(None),
            },
            Self::Troubles(value) => Cell::trouble_of(short(approximate(*value)), *value > 0),
            Self::Percent(value) => or_dash(value.map(|share| format!("{share:.0}%"))),
            Self::Mean(value) => or_dash(value.map(|mean| match mean < 99.95 {
                true => format!("{mean:.1}"),
                false => short(mean),
            })),
        }
    }

    /// Which of two values of one column is the smaller one; what is unknown is the smallest.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(one, _), Self::Text(other, _)) => natural(one, other),
            (one, other) => one.number().total_cmp(&other.number()),
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Text(..) => -1.0,
            Self::Index(value) => value.map_or(-1.0, |index| approximate(index as u64)),
            Self::Count(value) => value.map_or(-1.0, approximate),
            Self::Troubles(value) => approximate(*value),
            Self::Rate(value) | Self::Trouble(value) | Self::Percent(value) | Self::Mean(value) => {
                value.unwrap_or(-1.0)
            }
        }
    }
}

/// A number in five places at most, as `14.9M`. What happens less often than every other second is
/// not nothing.
pub fn short(value: f64) -> String {
    if value > 0.0 && value < 0.5 { "<1".to_owned() } else { si(value).replace(' ', "") }
}

/// Compares texts by their parts: digits as numbers, all else by its characters.
pub fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (digits, rest) = split(one, |c| c.is_ascii_digit());
        let (other_digits, other_rest) = split(other, |c| c.is_ascii_digit());
        if !digits.is_empty() && !other_digits.is_empty() {
            let (a, b) = (digits.trim_start_matches('0'), other_digits.trim_start_matches('0'));
            let order = a.len().cmp(&b.len()).then_with(|| a.cmp(b));
            match order.then_with(|| digits.len().cmp(&other_digits.len())) {
                Ordering::Equal => (one, other) = (rest, other_rest),
                order => return order,
            }
            continue;
        }
        let (Some(a), Some(b)) = (one.chars().next(), other.chars().next()) else {
            return one.len().cmp(&other.len());
        };
        if a != b {
            return a.cmp(&b);
        }
        (one, other) = (after(one, a), after(other, b));
    }
}

fn after(text: &str, first: char) -> &str {
    text.get(first.len_utf8()..).unwrap_or_default()
}

/// The characters at the beginning that are `wanted`, and the rest.
fn split(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_with_numbers_are_in_their_order() {
        let mut names = ["vm10", "vm2", "vm1", "uplink", "vm", "vm1.2", "vm1.10", "vm01", "é"];
        names.sort_by(|one, other| natural(one, other));
        let expected = ["uplink", "vm", "vm1", "vm1.2", "vm1.10", "vm01", "vm2", "vm10", "é"];
        assert_eq!(names, expected);
    }

    #[test]
    fn numbers_are_short_and_what_is_unknown_is_least() {
        for (value, text) in [
            (0.0, "0"),
            (0.3, "<1"),
            (7.0, "7"),
            (999.6, "1.00k"),
            (14_880_952.0, "14.9M"),
            (1e15, "1000T"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(Value::Rate(None).compare(&Value::Rate(Some(0.0))), Ordering::Less);
        assert_eq!(Value::Percent(Some(45.4)).cell(), Cell::from("45%"));
        assert_eq!(Value::Mean(Some(1234.0)).cell(), Cell::from("1.23k"));
        assert_eq!(Value::Trouble(Some(0.0)).cell(), Cell::trouble_of("0".to_owned(), false));
    }

    proptest! {
        #[test]
        fn the_order_of_names_is_one(a in "[a-b0-1é]{0,5}", b in "[a-b0-1é]{0,5}",
                                     c in "[a-b0-1é]{0,5}") {
            prop_assert_eq!(natural(&a, &b), natural(&b, &a).reverse());
            prop_assert_eq!(natural(&a, &b) == Ordering::Equal, a == b);
            if natural(&a, &b) != Ordering::Greater && natural(&b, &c) != Ordering::Greater {
                prop_assert!(natural(&a, &c) != Ordering::Greater);
            }
        }
    }
}
