//! Dates as lines of the log have them: in UTC, as RFC 3339 writes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Days from the first of March of the year 0, with which years begin here, to the first of January 1970.
const DAYS_TO_1970: u64 = 719_468;

/// Days of 400 years, after which the calendar is the same again.
const DAYS_OF_400_YEARS: u64 = 146_097;

/// What it is now, with so many digits behind its seconds.
pub fn now(digits: usize) -> String {
    utc(SystemTime::now(), digits)
}

/// A moment, with so many digits behind its seconds, of six that there are.
fn utc(moment: SystemTime, digits: usize) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let micros = format!("{:06}", since.subsec_micros());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:.digits$}Z")
}

/// Year, month and day of a count of days since 1970. A year begins with March here, so that the day that
/// only some years have is its last.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(DAYS_TO_1970);
    let (centuries, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // Without the 29th of February of each fourth year, but for those of centuries, but for each fourth of them.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30 and 31 days, again and again: 153 of five.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (centuries * 400 + year + is_next_year as u64, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_as_date_writes_them() {
        // As `date --utc --date=@SECONDS` has them.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_795_969_231, "2026-11-29T16:20:31"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let moment = UNIX_EPOCH + Duration::new(seconds, 276_543_999);
            assert_eq!(utc(moment, 6), format!("{text}.276543Z"));
            assert_eq!(utc(moment, 3), format!("{text}.276Z"));
        }
    }

    #[test]
    fn every_day_of_400_years_comes_after_the_one_before() {
        let mut before = date(0);
        for days in 1..=DAYS_OF_400_YEARS {
            let (year, month, day) = date(days);
            let (last_year, last_month, last_day) = before;
            let next = match (last_month, last_day) {
                (12, 31) => (last_year + 1, 1, 1),
                (2, 28) if is_leap(last_year) => (last_year, 2, 29),
                (2, 28 | 29) => (last_year, 3, 1),
                (4 | 6 | 9 | 11, 30) | (_, 31) => (last_year, last_month + 1, 1),
                _ => (last_year, last_month, last_day + 1),
            };
            assert_eq!((year, month, day), next, "{days}");
            before = next;
        }
        assert_eq!(before, (2370, 1, 1));
    }

    const fn is_leap(year: u64) -> bool {
        year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
    }
}
