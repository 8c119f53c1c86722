//! Names and their numbers, found by either.

use litemap::LiteMap;

/// Pairs of a name and a number: none of either is in two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs<N: Ord> {
    numbers: LiteMap<String, N>,
    names: LiteMap<N, String>,
}

impl<N: Ord> Default for Pairs<N> {
    fn default() -> Self {
        Self { numbers: LiteMap::new(), names: LiteMap::new() }
    }
}

impl<N: Ord + Copy> Pairs<N> {
    /// The number of this name.
    pub fn number(&self, name: &str) -> Option<N> {
        self.numbers.get(name).copied()
    }

    /// The name of this number.
    pub fn name(&self, number: N) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    /// Gives a name this number; what either had before ends.
    pub fn give(&mut self, name: &str, number: N) {
        if let Some(before) = self.numbers.insert(name.to_owned(), number) {
            self.names.remove(&before);
        }
        if let Some(before) = self.names.insert(number, name.to_owned())
            && before != name
        {
            self.numbers.remove(&before);
        }
    }

    /// Keeps pairs whose name is one of those.
    pub fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        self.numbers.retain(|name, _| stays(name));
        self.names.retain(|_, name| stays(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_found_by_either_and_once() {
        let mut pairs = Pairs::default();
        pairs.give("a", 1);
        pairs.give("b", 2);
        pairs.give("a", 3);
        let all = |pairs: &Pairs<u16>| (1..4).map(|n| pairs.name(n).map(str::to_owned)).collect();
        let some = |name: &str| Some(name.to_owned());
        let told: Vec<Option<String>> = all(&pairs);
        assert_eq!(told, [None, some("b"), some("a")]);
        // Who had it has none any more.
        pairs.give("a", 2);
        assert_eq!((pairs.number("a"), pairs.number("b")), (Some(2), None));
        pairs.give("a", 2);
        let told: Vec<Option<String>> = all(&pairs);
        assert_eq!(told, [None, some("a"), None]);
        pairs.retain(|name| name != "a");
        assert_eq!((pairs.number("a"), pairs.name(2)), (None, None));
    }
}
