//! A column of a table, and which of them there is room for.

use ordered::Order as _;

use super::value::Value;

/// A column for rows of type `R`.
#[derive(Debug)]
pub struct Column<R: 'static> {
    /// Its heading; with hyphens for blanks its name for `--sort`.
    pub title: &'static str,
    /// How important it is: those of a low rank go first where there is little room.
    pub rank: u8,
    /// Places that it takes at least, if a value is that long.
    pub least: usize,
    /// What it shows of a row.
    pub value: fn(&R) -> Value,
}

/// What there must be for a column.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// See [`Column::rank`].
    pub rank: u8,
    /// Places that it takes at least.
    pub least: usize,
    /// Places at which nothing is cut off.
    pub most: usize,
}

/// Places between two columns.
pub const GAP: usize = 1;

/// Shares out `width` places: for each column as many as it gets, or none.
pub fn share_out(wishes: &[Wish], width: usize) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.order_by_key(|index| wishes.get(*index).map_or(0, |wish| u8::MAX - wish.rank));
    let mut given = vec![None; wishes.len()];
    let mut left = width.saturating_add(GAP);
    for index in &order {
        let (Some(wish), Some(place)) = (wishes.get(*index), given.get_mut(*index)) else {
            continue;
        };
        let least = wish.least.min(wish.most);
        // Nothing less important in place of what has no room: columns would come and go.
        let Some(rest) = left.checked_sub(least.saturating_add(GAP)) else { break };
        *place = Some(least);
        left = rest;
    }
    for index in &order {
        if let (Some(wish), Some(Some(places))) = (wishes.get(*index), given.get_mut(*index)) {
            let more = wish.most.saturating_sub(*places).min(left);
            *places += more;
            left -= more;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wish(rank: u8, least: usize, most: usize) -> Wish {
        Wish { rank, least, most }
    }

    #[test]
    fn what_is_important_comes_first_and_gets_the_rest() {
        let wishes = [wish(9, 4, 20), wish(1, 5, 5), wish(5, 5, 8)];
        assert_eq!(share_out(&wishes, 3), [None, None, None]);
        assert_eq!(share_out(&wishes, 9), [Some(9), None, None]);
        assert_eq!(share_out(&wishes, 10), [Some(4), None, Some(5)]);
        assert_eq!(share_out(&wishes, 16), [Some(4), Some(5), Some(5)]);
        assert_eq!(share_out(&wishes, 20), [Some(8), Some(5), Some(5)]);
        assert_eq!(share_out(&wishes, 99), [Some(20), Some(5), Some(8)]);
    }

    proptest! {
        #[test]
        fn it_always_fits(
            wishes in prop::collection::vec((0..9_u8, 0..20_usize, 0..40_usize), 0..12),
            width in 0..300_usize,
        ) {
            let wishes: Vec<Wish> =
                wishes.into_iter().map(|(rank, least, most)| wish(rank, least, most)).collect();
            let given = share_out(&wishes, width);
            let count = given.iter().flatten().count();
            let sum: usize = given.iter().flatten().sum();
            prop_assert!(sum + count.saturating_sub(1) * GAP <= width);
            for (wish, given) in wishes.iter().zip(&given) {
                prop_assert!(given.is_none_or(|given| given <= wish.most));
            }
        }
    }
}
