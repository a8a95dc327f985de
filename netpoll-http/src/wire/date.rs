//! The Date header, rendered from a Unix time.

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that is sent (RFC 9110 section 5.6.7).
pub type DateBytes = [u8; 29];

/// The last second that four digits of a year can name.
const SECONDS_MAX: u64 = 253_402_300_799;
const DAY_NAMES: &[u8; 21] = b"ThuFriSatSunMonTueWed";
const MONTH_NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// Renders a Unix time in seconds. Times after the year 9999 are shown as its last second.
pub fn imf_fixdate(unix_seconds: u64) -> DateBytes {
    let seconds = unix_seconds.min(SECONDS_MAX);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day_of_month) = civil(day);

    let mut bytes = *b"Ddd, 00 Mmm 0000 00:00:00 GMT";
    name(&mut bytes[0..3], DAY_NAMES, day % 7);
    digits(&mut bytes[5..7], day_of_month);
    name(&mut bytes[8..11], MONTH_NAMES, month - 1);
    digits(&mut bytes[12..14], year / 100);
    digits(&mut bytes[14..16], year % 100);
    digits(&mut bytes[17..19], second / 3600);
    digits(&mut bytes[20..22], second / 60 % 60);
    digits(&mut bytes[23..25], second % 60);
    bytes
}

/// Year, month and day of a day number since 1970.
///
/// Counts years from March, so that the leap day is the last of its year: then the lengths of the
/// months follow 153/5 and those of the years 1461/4 and 146097/400.
fn civil(day: u64) -> (u64, u64, u64) {
    /// Days from 1 March of the year 0 to 1 January 1970.
    const MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let day = day + MARCH_OF_YEAR_0;
    let (era, day) = (day / DAYS_IN_400_YEARS, day % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day_of_month = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
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

    #[test]
    fn the_date_of_the_rfc_is_rendered_as_in_the_rfc() {
        assert_eq!(&imf_fixdate(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_time_beyond_the_year_9999_is_shown_as_its_last_second() {
        assert_eq!(&imf_fixdate(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn every_date_is_what_httpdate_says(second in 0..=SECONDS_MAX) {
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            prop_assert_eq!(imf_fixdate(second).to_vec(), expected.into_bytes());
        }

        #[test]
        fn every_day_of_four_centuries_is_what_httpdate_says(day in 0_u64..146_097) {
            let second = day * 86_400;
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            prop_assert_eq!(imf_fixdate(second).to_vec(), expected.into_bytes());
        }
    }
}
