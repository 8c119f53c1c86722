//! The word that was probably meant.

/// How alike two words have to be (Jaro-Winkler, 0 to 1).
const LIKE: f64 = 0.7;

/// The one of `valid` that is most like `word`, if any is at all.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    valid
        .into_iter()
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(likeness, _)| *likeness > LIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// What to say behind "there is no such word".
pub(crate) fn hint<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, valid).map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}
