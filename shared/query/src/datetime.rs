//! Dates, times and durations between numbers and text, in the proleptic Gregorian calendar.

use time::{Date, Duration, OffsetDateTime, Time, UtcOffset};

/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400 * SECOND;
/// `0000-01-01T00:00:00Z`, in microseconds since the Unix epoch.
const FIRST: i64 = -719_528 * DAY;
/// The last microsecond of the year 9999.
const LAST: i64 = 2_932_897 * DAY - 1;
/// Days of PostgreSQL's calendar, since 1970-01-01: from the Julian day 0 to the end of the year 5874897.
/// Source: `IS_VALID_DATE` in PostgreSQL's `datatype/timestamp.h`.
const WIDE_DAYS: std::ops::Range<i32> = -2_440_588..2_145_042_906;
/// The day after all others.
pub const LAST_DAY: i32 = i32::MAX;
/// The day before all others.
pub const FIRST_DAY: i32 = i32::MIN;
/// The point in time after all others.
pub const LAST_MICROS: i64 = i64::MAX;
/// The point in time before all others.
pub const FIRST_MICROS: i64 = i64::MIN;
/// Texts of the values after and before all others.
const INFINITIES: [&str; 2] = ["infinity", "-infinity"];

/// The ASCII text that `write` writes.
pub fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(40);
    write(&mut out);
    String::from_utf8(out).expect("what writes values writes UTF-8")
}

/// Writes the date that lies `days` after 1970-01-01: `2009-01-31`; [`LAST_DAY`] is `infinity`.
pub fn date(out: &mut Vec<u8>, days: i32) {
    match days {
        LAST_DAY => return out.extend_from_slice(INFINITIES[0].as_bytes()),
        FIRST_DAY => return out.extend_from_slice(INFINITIES[1].as_bytes()),
        _ => {}
    }
    let (year, month, day) = civil(i64::from(days));
    if (0..=9999).contains(&year) {
        digits(out, year as u64, 4);
    } else {
        // ISO 8601 writes years of more than four digits with a sign.
        out.push(if year < 0 { b'-' } else { b'+' });
        digits(out, year.unsigned_abs(), if year.unsigned_abs() > 999_999 { 7 } else { 6 });
    }
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
}

/// Writes the time `micros` after midnight: `13:14:15.5`, the fraction without trailing zeros.
pub fn clock(out: &mut Vec<u8>, micros: i64) {
    let seconds = (micros / SECOND) as u64;
    digits(out, seconds / 3600, 2);
    out.push(b':');
    digits(out, seconds / 60 % 60, 2);
    out.push(b':');
    digits(out, seconds % 60, 2);
    let mut fraction = (micros % SECOND) as u64;
    if fraction == 0 {
        return;
    }
    let mut width = 6;
    while fraction.is_multiple_of(10) {
        fraction /= 10;
        width -= 1;
    }
    out.push(b'.');
    digits(out, fraction, width);
}

/// Year, month and day of the date that lies `days` after 1970-01-01; the year 0 is that before the year 1.
pub fn year_month_day(days: i32) -> (i64, u64, u64) {
    civil(i64::from(days))
}

/// Writes a point in time as RFC 3339 UTC with `between` between date and time: `2009-01-01T00:00:00` and no zone.
pub fn timestamp(out: &mut Vec<u8>, micros: i64, between: u8) {
    let days = micros.div_euclid(DAY);
    date(out, i32::try_from(days).expect("64 bits of microseconds are fewer than 2^31 days"));
    out.push(between);
    clock(out, micros.rem_euclid(DAY));
}

/// A duration such as `24h`, `-1h30m` or `1.5s`; units are `ns us µs ms s m h d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: i64 = 0;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        total = total.checked_add(amount(number, unit)?)?;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::nanoseconds(if negative { -total } else { total }));
        }
    }
}

/// Nanoseconds of so many units.
fn amount(number: &str, unit: &str) -> Option<i64> {
    let unit: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 15 || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = part * i128::from(unit) / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(i64::try_from(part).ok()?)
}

/// Days since 1970-01-01 of `2009-01-31`.
pub fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..])?);
    days_of(year, month, day)
}

/// [`parse_date`], also of years beyond four digits and before the year 0, with a sign as ISO 8601 has them
/// (`+012345-06-07`), and of `infinity`: all that PostgreSQL holds, in the form in which [`date`] writes it.
pub fn parse_wide_date(text: &str) -> Option<i32> {
    match text {
        "infinity" => Some(LAST_DAY),
        "-infinity" => Some(FIRST_DAY),
        _ => {
            let (days, rest) = wide_date(text)?;
            (rest.is_empty() && WIDE_DAYS.contains(&days)).then_some(days)
        }
    }
}

/// A date of any year, and what follows it.
fn wide_date(text: &str) -> Option<(i32, &str)> {
    let Some(unsigned) = text.strip_prefix(['+', '-']) else {
        return Some((parse_date(text.get(..10)?)?, &text[10..]));
    };
    let width = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let rest = unsigned.get(width..width + 6)?.as_bytes();
    if !(6..=7).contains(&width) || rest[0] != b'-' || rest[3] != b'-' {
        return None;
    }
    let year = number(&unsigned.as_bytes()[..width])?;
    let year = if text.starts_with('-') { -year } else { year };
    Some((days_of(year, number(&rest[1..3])?, number(&rest[4..])?)?, &unsigned[width + 6..]))
}

/// Days since 1970-01-01 of a day that the calendar has.
fn days_of(year: i64, month: i64, day: i64) -> Option<i32> {
    let is_day = (1..=12).contains(&month) && day >= 1 && day <= month_days(year, month);
    is_day.then(|| days(year, month, day))?
}

/// [`parse_clock`], also of `24:00:00`, which PostgreSQL holds.
pub fn parse_wide_clock(text: &str) -> Option<i64> {
    if text == "24:00:00" { Some(DAY) } else { parse_clock(text) }
}

/// Microseconds since midnight of `13:14`, `13:14:15` or `13:14:15.123456`; digits beyond the sixth are dropped.
pub fn parse_clock(text: &str) -> Option<i64> {
    nanoseconds(text).map(|nanoseconds| nanoseconds / 1000)
}

/// Whether a point in time, in microseconds since the Unix epoch, lies in the years 0 to 9999, which have four digits.
pub fn has_plain_year(micros: i64) -> bool {
    (FIRST..=LAST).contains(&micros)
}

/// Microseconds since 1970-01-01T00:00:00Z, rounded down, of what [`instant`] reads.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    Parts::parse(text)?.micros()
}

/// [`parse_timestamp`], also of years beyond four digits and before the year 0, with a sign as ISO 8601 has them
/// (`+012345-06-07T08:09:10Z`), and of `infinity`: what PostgreSQL holds, in the form in which [`rfc3339`] writes it.
pub fn parse_wide_timestamp(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(LAST_MICROS),
        "-infinity" => return Some(FIRST_MICROS),
        _ => {}
    }
    let parts = Parts::of(wide_date(text)?)?;
    let whole = i64::from(parts.days).checked_mul(DAY)?;
    let micros = whole.checked_add(parts.nanoseconds / 1000)?.checked_sub(parts.offset_seconds * SECOND)?;
    let is_held = micros >= i64::from(WIDE_DAYS.start) * DAY && micros < LAST_MICROS;
    is_held.then_some(micros)
}

/// Nanoseconds since the Unix epoch of what [`instant`] and [`parse_wide_timestamp`] read, by which points in time compare.
pub fn order(text: &str) -> Option<i128> {
    let micros = i128::from(parse_wide_timestamp(text)?);
    // The infinities have no digits, and no other text has more than nine digits after its seconds.
    let below_micros = Parts::parse(text).map_or(0, |parts| parts.nanoseconds % 1000);
    Some(micros * 1000 + i128::from(below_micros))
}

/// The point in time that `text` names, in its own zone: RFC 3339, also with a space for the `T`, without seconds, with
/// a zone of hours alone or without one (UTC), or a date alone (midnight UTC). `None` outside the years 0 to 9999 of
/// UTC.
pub fn instant(text: &str) -> Option<OffsetDateTime> {
    let parts = Parts::parse(text)?;
    parts.micros()?;
    let date = Date::from_julian_day(parts.days + OffsetDateTime::UNIX_EPOCH.to_julian_day()).ok()?;
    let time = Time::MIDNIGHT + Duration::nanoseconds(parts.nanoseconds);
    let offset = i32::try_from(parts.offset_seconds).ok()?;
    Some(date.with_time(time).assume_offset(UtcOffset::from_whole_seconds(offset).ok()?))
}

/// A point in time as it is written.
struct Parts {
    /// Since 1970-01-01.
    days: i32,
    /// Since midnight.
    nanoseconds: i64,
    /// Of the zone, east of UTC.
    offset_seconds: i64,
}

impl Parts {
    fn parse(text: &str) -> Option<Self> {
        Self::of((parse_date(text.get(..10)?)?, &text[10..]))
    }

    /// Of a date, and what follows it.
    fn of((days, rest): (i32, &str)) -> Option<Self> {
        if rest.is_empty() {
            return Some(Self { days, nanoseconds: 0, offset_seconds: 0 });
        }
        let rest = rest.strip_prefix(['T', 't', ' '])?;
        let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
        let offset_seconds = match &rest[zone..] {
            "" | "Z" | "z" => 0,
            zone => parse_offset(zone)?,
        };
        Some(Self { days, nanoseconds: nanoseconds(rest[..zone].trim_end())?, offset_seconds })
    }

    /// Since the Unix epoch, in the years that have four digits.
    fn micros(&self) -> Option<i64> {
        let micros = i64::from(self.days) * DAY + self.nanoseconds / 1000 - self.offset_seconds * SECOND;
        has_plain_year(micros).then_some(micros)
    }
}

/// Seconds east of UTC of `+02:00` or `+02`.
fn parse_offset(zone: &str) -> Option<i64> {
    let (sign, zone) = match zone.strip_prefix('-') {
        Some(zone) => (-1, zone),
        None => (1, zone.strip_prefix('+')?),
    };
    let seconds = match zone.len() {
        5 => parse_clock(zone)? / SECOND,
        2 => number(zone.as_bytes()).filter(|hours| *hours < 24)? * 3600,
        _ => return None,
    };
    Some(sign * seconds)
}

/// Nanoseconds since midnight; digits beyond the ninth are dropped.
fn nanoseconds(clock: &str) -> Option<i64> {
    let bytes = clock.as_bytes();
    if bytes.len() < 5 || bytes[2] != b':' {
        return None;
    }
    let (hour, minute) = (number(&bytes[..2])?, number(&bytes[3..5])?);
    let (second, fraction) = match &bytes[5..] {
        [] => (0, 0),
        [b':', rest @ ..] if rest.len() >= 2 => (number(&rest[..2])?, parse_fraction(&rest[2..])?),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second < 60;
    is_time.then(|| (hour * 3600 + minute * 60 + second) * SECOND * 1000 + fraction)
}

/// Nanoseconds of `.123456789` or of nothing.
fn parse_fraction(bytes: &[u8]) -> Option<i64> {
    let [b'.', fraction @ ..] = bytes else {
        return bytes.is_empty().then_some(0);
    };
    let kept = &fraction[..fraction.len().min(9)];
    let all_digits = !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit);
    all_digits.then(|| number(kept).map(|value| value * 10_i64.pow(9 - kept.len() as u32)))?
}

/// Writes a point in time as RFC 3339 in UTC: `2009-01-01T00:00:00Z`; [`LAST_MICROS`] is `infinity`.
pub fn rfc3339(out: &mut Vec<u8>, micros: i64) {
    match micros {
        LAST_MICROS => return out.extend_from_slice(INFINITIES[0].as_bytes()),
        FIRST_MICROS => return out.extend_from_slice(INFINITIES[1].as_bytes()),
        _ => {}
    }
    timestamp(out, micros, b'T');
    out.push(b'Z');
}

fn number(bytes: &[u8]) -> Option<i64> {
    let mut value = 0;
    for byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(byte - b'0');
    }
    Some(value)
}

fn digits(out: &mut Vec<u8>, value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day. Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

/// Days since 1970-01-01, the inverse of [`civil`]. Source: as [`civil`], `days_from_civil`.
fn days(year: i64, month: i64, day: i64) -> Option<i32> {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(micros: i64) -> String {
        written(|out| timestamp(out, micros, b'T'))
    }

    #[test]
    fn timestamps_are_written_as_they_are_read() {
        for case in [
            "1970-01-01T00:00:00",
            "2009-01-31T13:14:15.5",
            "1969-12-31T23:59:59.999999",
            "2000-02-29T00:00:00",
            "0001-01-01T00:00:00",
            "9999-12-31T23:59:59.000001",
        ] {
            let micros = parse_timestamp(case).expect(case);
            assert_eq!(text(micros), case);
            assert_eq!(parse_timestamp(&format!("{case}Z")), Some(micros));
        }
    }

    #[test]
    fn zones_are_taken_off() {
        assert_eq!(parse_timestamp("2009-01-01 02:00:00+02:00"), parse_timestamp("2009-01-01"));
        assert_eq!(parse_timestamp("2008-12-31T23:00:00-01"), parse_timestamp("2009-01-01T00:00Z"));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for case in [
            "2009-02-29",
            "2009-13-01",
            "2009-1-1",
            "",
            "12345678901",
            "2009-01-01x",
            "2009-01-01T25:00",
            "2009-01-01T01:00+24",
            "2009-01-01T01:00Z02",
            "2009-01-01T01:00z02:00",
            "ä009-01-01",
        ] {
            assert_eq!(parse_timestamp(case), None, "{case}");
        }
    }

    #[test]
    fn durations_have_signs_decimals_and_several_units() {
        for (text, nanoseconds) in [
            ("24h", 86_400_000_000_000),
            ("-1h", -3_600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("+3us", 3_000),
            ("3µs", 3_000),
            ("0", 0),
            ("7d", 604_800_000_000_000),
        ] {
            assert_eq!(duration(text), Some(Duration::nanoseconds(nanoseconds)), "{text}");
        }
        for text in ["", "1", "1w", "h", ".h", "1.2.3s", "1h-", "99999999999h", "--1h", "1 h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn wide_dates_and_times_are_read_as_they_are_written() {
        for days in [-2_440_588, -719_529, -719_528, 0, 2_932_897, 2_145_042_905, FIRST_DAY, LAST_DAY] {
            let text = written(|out| date(out, days));
            assert_eq!(parse_wide_date(&text), Some(days), "{text}");
        }
        let first = i64::from(WIDE_DAYS.start) * DAY;
        for micros in [first, FIRST - 1, FIRST, -1, 0, LAST, LAST + 1, LAST_MICROS - 1, FIRST_MICROS, LAST_MICROS] {
            let text = written(|out| rfc3339(out, micros));
            assert_eq!(parse_wide_timestamp(&text), Some(micros), "{text}");
        }
        assert_eq!(parse_wide_timestamp("-000043-03-15 12:00:00+00"), parse_wide_timestamp("-000043-03-15T12:00:00Z"));
        assert_eq!(parse_wide_clock("24:00:00").map(|micros| written(|out| clock(out, micros))).unwrap(), "24:00:00");
    }

    #[test]
    fn what_no_calendar_holds_is_refused() {
        for text in [
            "+12345-06-07",
            "+012345-13-07",
            "+012345-06-07x",
            "+9999999-01-01",
            "-004713-11-23",
            "12345-06-07",
            "Infinity",
            "+012345",
            "+é12345-06-07",
            "-000001-02-29x",
        ] {
            assert_eq!(parse_wide_date(text), None, "{text}");
        }
        for text in ["+294247-01-10T04:00:54.775807Z", "-004713-11-23T23:59:59Z", "+5874897-01-01", "+inf"] {
            assert_eq!(parse_wide_timestamp(text), None, "{text}");
        }
        for text in ["24:00:01", "24:00", "25:00:00"] {
            assert_eq!(parse_wide_clock(text), None, "{text}");
        }
    }

    #[test]
    fn years_beyond_four_digits_have_a_sign() {
        assert_eq!(written(|out| date(out, 2_145_042_905)), "+5874897-12-31");
        assert_eq!(written(|out| date(out, 2_932_897)), "+010000-01-01");
        assert_eq!(written(|out| date(out, -719_529)), "-000001-12-31");
    }
}
