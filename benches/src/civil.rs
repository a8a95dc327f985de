//! Dates, without a library for them.

use std::fmt;
use std::time::SystemTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A day of the Gregorian calendar. Shown as `2026-11-22`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// Days since Thursday, 1 January 1970.
    days: u64,
}

impl Date {
    /// Today, in UTC.
    pub fn now() -> Self {
        Self::of_days(unix_seconds() / 86_400)
    }

    /// So many days after 1 January 1970, as in Howard Hinnant's `civil_from_days`.
    pub fn of_days(days: u64) -> Self {
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            days,
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// An HTTP date (RFC 9110, section 5.6.7).
pub fn http_date(unix_seconds: u64) -> String {
    let (date, second) = (Date::of_days(unix_seconds / 86_400), unix_seconds % 86_400);
    let week_day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(date.days % 7) as usize];
    let month = MONTHS[(date.month - 1) as usize];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{week_day}, {:02} {month} {} {hour:02}:{minute:02}:{second:02} GMT", date.day, date.year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT"); // the example of RFC 9110
        assert_eq!(http_date(1_709_164_799), "Wed, 28 Feb 2024 23:59:59 GMT");
        assert_eq!(http_date(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
        assert_eq!(Date::of_days(20_779).to_string(), "2026-11-22");
    }
}
