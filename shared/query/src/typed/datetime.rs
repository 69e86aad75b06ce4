//! Dates and times as texts, in the forms of RFC 3339.

use time::{Date, Month, OffsetDateTime, Time, UtcDateTime, UtcOffset};

/// Digits of a fraction that are read: nanoseconds. The databases keep six of them.
const MAX_FRACTION_DIGITS: usize = 9;

/// Days since 1970-01-01 of a date such as `2009-01-31`.
pub fn date(text: &str) -> Option<i32> {
    Some(day(text)?.to_julian_day() - UtcDateTime::UNIX_EPOCH.to_julian_day())
}

/// Microseconds since midnight of a time without a zone such as `13:14:15.5`, rounded down.
pub fn time(text: &str) -> Option<i64> {
    let since_midnight = clock(text)? - Time::MIDNIGHT;
    i64::try_from(since_midnight.whole_microseconds()).ok()
}

/// Microseconds since the Unix epoch of an [`instant`], rounded down.
pub fn timestamp(text: &str) -> Option<i64> {
    i64::try_from(instant(text)?.unix_timestamp_nanos().div_euclid(1000)).ok()
}

/// The point in time that `text` names, in its own zone: RFC 3339, also with a space for the `T`, without a zone (UTC),
/// or a date alone (midnight UTC). `None` outside the years 0 to 9999 of UTC.
pub fn instant(text: &str) -> Option<OffsetDateTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = day(date)?;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then(|| date.midnight().assume_utc());
    };
    let (clock_text, offset) = zone(rest)?;
    let instant = date.with_time(clock(clock_text)?).assume_offset(offset);
    let year = instant.checked_to_offset(UtcOffset::UTC)?.year();
    (0..=9999).contains(&year).then_some(instant)
}

fn day(text: &str) -> Option<Date> {
    let [year, month, day] = fields(text, '-', [4, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()
}

/// `13:14:15.5`, to the nanosecond.
fn clock(text: &str) -> Option<Time> {
    let (whole, nanos) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, nanoseconds(fraction)?),
        None => (text, 0),
    };
    let [hour, minute, second] = fields(whole, ':', [2, 2, 2])?;
    let part = |number: u32| u8::try_from(number).ok();
    Time::from_hms_nano(part(hour)?, part(minute)?, part(second)?, nanos).ok()
}

fn nanoseconds(digits: &str) -> Option<u32> {
    if digits.is_empty() || digits.len() > MAX_FRACTION_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<9}").parse().ok()
}

/// The part before the zone, and the zone's offset from UTC.
fn zone(text: &str) -> Option<(&str, UtcOffset)> {
    if let Some(rest) = text.strip_suffix(['Z', 'z']) {
        return Some((rest, UtcOffset::UTC));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, UtcOffset::UTC)) };
    let [hours, minutes] = fields(&text[at + 1..], ':', [2, 2])?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from((hours * 60 + minutes) * 60).ok()?;
    let seconds = if text[at..].starts_with('-') { -seconds } else { seconds };
    Some((&text[..at], UtcOffset::from_whole_seconds(seconds).ok()?))
}

/// Numbers of exactly so many digits each, with `separator` between them.
fn fields<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}
