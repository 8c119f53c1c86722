//! Which worker has which queues.

/// Spreads `items` over workers: `per_worker` to each until there are none left, or evenly over
/// `workers` where that is `None`. `workers` is the most that there may be, if there is a limit.
/// Neighbours stay together.
///
/// # Errors
/// When that many workers are not enough, with the number that would be.
pub fn spread<T>(
    items: Vec<T>,
    per_worker: Option<usize>,
    workers: Option<usize>,
) -> Result<Vec<Vec<T>>, usize> {
    let all = items.len();
    let needed = per_worker.map(|count| all.div_ceil(count.max(1)));
    let count = match (needed, workers) {
        (Some(needed), Some(limit)) if needed > limit => return Err(needed),
        (Some(needed), _) => needed,
        (None, limit) => limit.unwrap_or(1).min(all),
    };
    let mut items = items.into_iter();
    let share = |worker| {
        let share = per_worker.unwrap_or_else(|| part(all, count, worker));
        items.by_ref().take(share).collect()
    };
    Ok((0..count).map(share).collect())
}

/// The part of `total` for one of `count`: the first ones get the remainder.
const fn part(total: usize, count: usize, index: usize) -> usize {
    total / count + if index < total % count { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(items: usize, per_worker: Option<usize>, workers: Option<usize>) -> Vec<usize> {
        let spread = spread((0..items).collect(), per_worker, workers).unwrap();
        assert_eq!(spread.concat(), (0..items).collect::<Vec<_>>(), "all of them, in order");
        spread.iter().map(Vec::len).collect()
    }

    #[test]
    fn queues_are_spread_evenly_unless_told() {
        assert_eq!(sizes(4, None, None), [4]);
        assert_eq!(sizes(5, None, Some(2)), [3, 2]);
        assert_eq!(sizes(2, None, Some(4)), [1, 1], "no worker is without work");
        assert_eq!(sizes(0, None, Some(4)), Vec::<usize>::new());
        assert_eq!(sizes(5, Some(2), None), [2, 2, 1]);
        assert_eq!(sizes(5, Some(2), Some(3)), [2, 2, 1]);
        assert_eq!(sizes(5, Some(8), Some(3)), [5]);
        assert_eq!(spread(vec![(); 5], Some(2), Some(2)), Err(3));
    }
}
