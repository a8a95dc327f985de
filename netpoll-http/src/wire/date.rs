//! Dates: rendered from a Unix time, and read in the three forms that HTTP has had.
//!
//! A second is counted from 1970 on and is negative before it: a file may be older than Unix, and so may the date that
//! a client holds against it.

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that is sent (RFC 9110 section 5.6.7).
pub type DateBytes = [u8; 29];

/// The first and the last second that four digits of a year can name.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;
const DAY_NAMES: &[u8; 21] = b"ThuFriSatSunMonTueWed";
const MONTH_NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
const SECONDS_IN_A_DAY: i64 = 86_400;
/// Days from 1 March of the year 0 to 1 January 1970.
const MARCH_OF_YEAR_0: i64 = 719_468;
const DAYS_IN_400_YEARS: i64 = 146_097;

/// Renders a Unix time in seconds. Times before the year 0 and after 9999 are shown as the first and the last second
/// of these.
pub fn imf_fixdate(unix_seconds: i64) -> DateBytes {
    let seconds = unix_seconds.clamp(*SECONDS.start(), *SECONDS.end());
    let (day, second) = (seconds.div_euclid(SECONDS_IN_A_DAY), seconds.rem_euclid(SECONDS_IN_A_DAY) as u64);
    let (year, month, day_of_month) = civil(day);

    let mut bytes = *b"Ddd, 00 Mmm 0000 00:00:00 GMT";
    name(&mut bytes[0..3], DAY_NAMES, day.rem_euclid(7) as u64);
    digits(&mut bytes[5..7], day_of_month);
    name(&mut bytes[8..11], MONTH_NAMES, month - 1);
    digits(&mut bytes[12..14], year / 100);
    digits(&mut bytes[14..16], year % 100);
    digits(&mut bytes[17..19], second / 3600);
    digits(&mut bytes[20..22], second / 60 % 60);
    digits(&mut bytes[23..25], second % 60);
    bytes
}

/// Reads a date of any of the three forms of RFC 9110 section 5.6.7; `None` for what is none. A day of the week has
/// to be one, and need not be that of the date.
///
/// Of a year that has two digits only, `now` says which is meant: the last one that is not more than fifty years ahead.
pub fn parse(text: &[u8], now: i64) -> Option<i64> {
    let (day_name, rest) = text.split_at_checked(3)?;
    match rest {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [b',', b' ', rest @ ..] => {
            index_of(DAY_NAMES, day_name)?;
            let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ ..] = rest else { return None };
            let year = 100 * number(*y1, *y2)? + number(*y3, *y4)?;
            seconds_of(year, &[*m1, *m2, *m3], number(*d1, *d2)?, time.strip_suffix(b" GMT")?)
        }
        // Sun Nov  6 08:49:37 1994
        [b' ', m1, m2, m3, b' ', d1, d2, b' ', rest @ ..] => {
            index_of(DAY_NAMES, day_name)?;
            let [time @ .., b' ', y1, y2, y3, y4] = rest else { return None };
            let year = 100 * number(*y1, *y2)? + number(*y3, *y4)?;
            let tens = if *d1 == b' ' { b'0' } else { *d1 };
            seconds_of(year, &[*m1, *m2, *m3], number(tens, *d2)?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        _ => {
            let comma = text.iter().position(|byte| *byte == b',')?;
            let (day_name, rest) = text.split_at(comma);
            let long_names: [&[u8]; 7] =
                [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
            let [b',', b' ', d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ ..] = rest else {
                return None;
            };
            if !long_names.contains(&day_name) {
                return None;
            }
            let year = full_year(number(*y1, *y2)?, now);
            seconds_of(year, &[*m1, *m2, *m3], number(*d1, *d2)?, time.strip_suffix(b" GMT")?)
        }
    }
}

/// The year of this century's last two digits that is at most fifty years ahead.
fn full_year(two_digits: u64, now: i64) -> u64 {
    let (this_year, ..) = civil(now.clamp(*SECONDS.start(), *SECONDS.end()).div_euclid(SECONDS_IN_A_DAY));
    let latest = this_year + 50;
    let year = latest - latest % 100 + two_digits;
    // In the first century there is nothing to go back to.
    if year > latest { year.saturating_sub(100) } else { year }
}

/// The Unix time of a date and a time of day, `08:49:37`, if there are such.
fn seconds_of(year: u64, month_name: &[u8], day_of_month: u64, time: &[u8]) -> Option<i64> {
    let month = index_of(MONTH_NAMES, month_name)? as u64 + 1;
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(*h1, *h2)?, number(*m1, *m2)?, number(*s1, *s2)?);
    // 60 is a leap second, which Unix time does not have: the one behind it.
    if day_of_month == 0 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let day = day_number(year, month, day_of_month);
    // The 31 February is the 2 or 3 March.
    if civil(day) != (year, month, day_of_month) {
        return None;
    }
    Some(day * SECONDS_IN_A_DAY + (hour * 3600 + minute * 60 + second) as i64)
}

/// Year, month and day of a day number since 1970, of the year 0 or a later one.
///
/// Counts years from March, so that the leap day is the last of its year: then the lengths of the
/// months follow 153/5 and those of the years 1461/4 and 146097/400.
fn civil(day: i64) -> (u64, u64, u64) {
    let day = day + MARCH_OF_YEAR_0;
    let (era, day) = (day.div_euclid(DAYS_IN_400_YEARS), day.rem_euclid(DAYS_IN_400_YEARS) as u64);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day_of_month = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year as i64 + i64::from(month <= 2);
    (year as u64, month, day_of_month)
}

/// The day number since 1970; the inverse of [`civil`].
fn day_number(year: u64, month: u64, day_of_month: u64) -> i64 {
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let year = year as i64 - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = ((153 * from_march + 2) / 5 + day_of_month) as i64 - 1;
    era * DAYS_IN_400_YEARS + 365 * year + year / 4 - year / 100 + day - MARCH_OF_YEAR_0
}

fn index_of(names: &[u8], name: &[u8]) -> Option<usize> {
    names.chunks_exact(3).position(|known| known == name)
}

/// Two digits.
fn number(tens: u8, ones: u8) -> Option<u64> {
    let is_number = tens.is_ascii_digit() && ones.is_ascii_digit();
    is_number.then(|| u64::from(tens - b'0') * 10 + u64::from(ones - b'0'))
}

fn name(to: &mut [u8], names: &[u8], index: u64) {
    let start = index as usize * 3;
    to.copy_from_slice(&names[start..start + 3]);
}

fn digits(to: &mut [u8], number: u64) {
    to.copy_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: i64 = 784_111_777;

    #[test]
    fn the_date_of_the_rfc_is_rendered_as_in_the_rfc() {
        assert_eq!(&imf_fixdate(EXAMPLE), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_time_beyond_four_digits_of_a_year_is_shown_as_the_last_or_first_second_of_these() {
        assert_eq!(&imf_fixdate(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(&imf_fixdate(i64::MIN), b"Sat, 01 Jan 0000 00:00:00 GMT");
    }

    #[test]
    fn a_time_before_1970_is_a_time() {
        assert_eq!(&imf_fixdate(-1), b"Wed, 31 Dec 1969 23:59:59 GMT");
        assert_eq!(&imf_fixdate(-14_182_940), b"Sun, 20 Jul 1969 20:17:40 GMT");
        assert_eq!(parse(b"Sun, 20 Jul 1969 20:17:40 GMT", 0), Some(-14_182_940));
        assert_eq!(parse(b"Thu, 01 Jan 1601 00:00:00 GMT", 0), Some(-11_644_473_600));
    }

    #[test]
    fn all_three_forms_are_read() {
        for form in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(form.as_bytes(), EXAMPLE), Some(EXAMPLE), "{form}");
        }
        assert_eq!(parse(b"Sun Nov 16 08:49:37 1994", EXAMPLE), Some(EXAMPLE + 10 * 86_400));
    }

    #[test]
    fn a_year_of_two_digits_is_the_last_one_that_is_not_more_than_fifty_years_ahead() {
        let year = |digits: &str, now: &[u8]| {
            let now = parse(now, 0).unwrap();
            let date = parse(format!("Sunday, 06-Nov-{digits} 08:49:37 GMT").as_bytes(), now).unwrap();
            civil(date.div_euclid(86_400)).0
        };
        let now = b"Thu, 26 Nov 2026 00:00:00 GMT";
        assert_eq!((year("94", now), year("26", now)), (1994, 2026));
        assert_eq!((year("76", now), year("77", now), year("00", now)), (2076, 1977, 2000));
        assert_eq!(year("94", b"Sat, 01 Jan 2050 00:00:00 GMT"), 2094);
    }

    #[test]
    fn what_is_no_date_is_none() {
        for none in [
            "",
            "0",
            "-1",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
            "Sun Nov 06 08:49:37 94",
            "S\u{fc}n, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse(none.as_bytes(), EXAMPLE), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn every_date_is_what_httpdate_says(second in 0..=*SECONDS.end()) {
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second as u64));
            prop_assert_eq!(imf_fixdate(second).to_vec(), expected.into_bytes());
        }

        #[test]
        fn every_day_of_four_centuries_is_what_httpdate_says(day in 0_i64..146_097) {
            let second = day * 86_400;
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second as u64));
            prop_assert_eq!(imf_fixdate(second).to_vec(), expected.into_bytes());
        }

        #[test]
        fn a_date_is_read_as_it_was_rendered(second in SECONDS) {
            prop_assert_eq!(parse(&imf_fixdate(second), 0), Some(second));
        }

        #[test]
        fn reading_never_panics(text in proptest::collection::vec(any::<u8>(), 0..40), now: i64) {
            let _ = parse(&text, now);
        }

        #[test]
        fn what_httpdate_reads_is_read_alike(second in 0_i64..4_000_000_000, at in 0_usize..29, byte: u8) {
            let mut text = imf_fixdate(second);
            text[at] = byte;
            let theirs = std::str::from_utf8(&text).ok().and_then(|text| httpdate::parse_http_date(text).ok());
            if let (Some(theirs), Some(ours)) = (theirs, parse(&text, 0)) {
                let theirs = theirs.duration_since(UNIX_EPOCH).expect("httpdate begins in 1970").as_secs();
                prop_assert_eq!(ours, theirs as i64);
            }
        }
    }
}
