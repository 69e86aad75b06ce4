//! Dates and times as texts, in the forms of RFC 3339.

use time::{Date, Month, Time, UtcDateTime};

/// Digits of a fraction that are read; the databases keep six of them.
const MOST_DIGITS: usize = 9;

/// `2009-01-31`, if it is a date.
pub fn date(text: &str) -> Option<String> {
    day(text)?;
    Some(text.to_owned())
}

/// `13:14:15.5` with no more than microseconds and no trailing zeros, if it is a time without a zone.
pub fn time(text: &str) -> Option<String> {
    let (clock, micros) = clock(text)?;
    let (hour, minute, second) = clock.as_hms();
    let fraction = format!(".{micros:06}");
    Some(format!("{hour:02}:{minute:02}:{second:02}{}", fraction.trim_end_matches('0').trim_end_matches('.')))
}

/// Microseconds since the Unix epoch of a point in time: RFC 3339, also with a space for the `T`, without a zone (UTC),
/// or a date alone (midnight UTC). `None` outside the years 0 to 9999.
pub fn timestamp(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = day(date)?;
    let Some(rest) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then(|| micros(date, Time::MIDNIGHT, 0));
    };
    let (clock_text, offset_seconds) = zone(rest)?;
    let (clock, fraction) = clock(clock_text)?;
    let point = micros(date, clock, fraction) - offset_seconds * 1_000_000;
    let within = micros(Date::from_calendar_date(0, Month::January, 1).ok()?, Time::MIDNIGHT, 0)
        ..=micros(Date::from_calendar_date(9999, Month::December, 31).ok()?, Time::MAX.truncate_to_second(), 999_999);
    within.contains(&point).then_some(point)
}

fn micros(date: Date, clock: Time, fraction: i64) -> i64 {
    UtcDateTime::new(date, clock).unix_timestamp() * 1_000_000 + fraction
}

fn day(text: &str) -> Option<Date> {
    let [year, month, day] = fields(text, '-', [4, 2, 2])?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()
}

/// The whole seconds and the microseconds of `13:14:15.5`.
fn clock(text: &str) -> Option<(Time, i64)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, microseconds(fraction)?),
        None => (text, 0),
    };
    let [hour, minute, second] = fields(whole, ':', [2, 2, 2])?;
    let part = |number: u32| u8::try_from(number).ok();
    Some((Time::from_hms(part(hour)?, part(minute)?, part(second)?).ok()?, fraction))
}

fn microseconds(digits: &str) -> Option<i64> {
    if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<6}")[..6].parse().ok()
}

/// What stands before the zone, and the zone's seconds east of UTC.
fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(rest) = text.strip_suffix(['Z', 'z']) {
        return Some((rest, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let [hours, minutes] = fields(&text[at + 1..], ':', [2, 2])?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours * 60 + minutes) * 60;
    Some((&text[..at], if text[at..].starts_with('-') { -seconds } else { seconds }))
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
