//! What is logged, as `RUST_LOG` has it: `info,vhost=debug`.

use tracing::Metadata;
use tracing::level_filters::LevelFilter;

/// The level of all, and those of what begins with this or that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    default: LevelFilter,
    /// Longer ones first: the first that a target begins with is meant.
    targets: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// All at one level.
    pub const fn all(default: LevelFilter) -> Self {
        Self { default, targets: Vec::new() }
    }

    /// What a text asks for: levels, of all or behind the beginning of a target; what has none is wanted wholly.
    pub fn parse(text: &str) -> Option<Self> {
        let mut filter = Self::all(LevelFilter::OFF);
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((target, wanted)) => filter.set(name(target)?, Some(level(wanted)?)),
                None => match level(part) {
                    Some(level) => filter.default = level,
                    None => filter.set(name(part)?, Some(LevelFilter::TRACE)),
                },
            }
        }
        Some(filter)
    }

    /// Changes the level of what begins so; `None` is that of all.
    pub fn set(&mut self, target: &str, level: Option<LevelFilter>) {
        self.targets.retain(|(other, _)| other != target);
        if let Some(level) = level {
            let longer = self.targets.partition_point(|(other, _)| other.len() >= target.len());
            self.targets.insert(longer, (target.to_owned(), level));
        }
    }

    /// The level of what nothing is said of.
    pub const fn default_level(&self) -> LevelFilter {
        self.default
    }

    /// The levels of what something is said of.
    pub fn targets(&self) -> impl Iterator<Item = (&str, LevelFilter)> {
        self.targets.iter().map(|(target, level)| (target.as_str(), *level))
    }

    /// Whether this is logged.
    pub fn has(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level_of(metadata.target())
    }

    fn level_of(&self, name: &str) -> LevelFilter {
        let mut targets = self.targets();
        targets
            .find(|(target, _)| name.starts_with(target))
            .map_or(self.default, |(_, level)| level)
    }

    /// The level of that of which most is logged.
    pub fn most(&self) -> LevelFilter {
        self.targets().map(|(_, level)| level).fold(self.default, LevelFilter::max)
    }
}

/// A level by its name or number; there has to be one.
pub fn level(text: &str) -> Option<LevelFilter> {
    if text.is_empty() { None } else { text.parse().ok() }
}

/// The beginning of a target: names of crates and modules. There are no spans, whose fields others have in
/// brackets here.
fn name(text: &str) -> Option<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    (!text.is_empty() && text.chars().all(is_part)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_is_meant() {
        let filter = Filter::parse("vhost=debug,warn,vhost::control=off,igb").unwrap();
        for (target, level) in [
            ("vhost", LevelFilter::DEBUG),
            ("vhost::control::thread", LevelFilter::OFF),
            ("igb", LevelFilter::TRACE),
            ("switch", LevelFilter::WARN),
            ("", LevelFilter::WARN),
        ] {
            assert_eq!(filter.level_of(target), level, "{target}");
        }
        assert_eq!(filter.most(), LevelFilter::TRACE);
        assert_eq!(Filter::parse("off,switch=2").unwrap().most(), LevelFilter::WARN);
    }

    #[test]
    fn what_is_said_last_holds() {
        let mut filter = Filter::parse("error,vhost=info,info,vhost=debug").unwrap();
        assert_eq!(filter.default_level(), LevelFilter::INFO);
        assert_eq!(filter.targets().collect::<Vec<_>>(), [("vhost", LevelFilter::DEBUG)]);
        filter.set("vhost", None);
        assert_eq!(filter, Filter::all(LevelFilter::INFO));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in ["", ",", "info,", "=info", "a=", "a=loud", "a=b=c", "a[b]=info", "[b]", "a b"] {
            assert_eq!(Filter::parse(bad), None, "{bad}");
        }
    }
}
