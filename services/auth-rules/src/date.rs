//! Date arithmetic of rules: durations, and truncation to a calendar unit.

use time::{Date, Duration, Month, OffsetDateTime, Time, format_description::well_known::Rfc3339};

/// A calendar unit that a date is truncated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalendarUnit {
    /// A year.
    Year,
    /// A month.
    Month,
    /// A day.
    Day,
    /// An hour.
    Hour,
    /// A minute.
    Minute,
    /// A second.
    Second,
}

/// The instant in RFC 3339, in its own zone; `None` for years outside its four digits.
pub fn text(instant: OffsetDateTime) -> Option<String> {
    instant.format(&Rfc3339).ok()
}

/// A duration such as `24h`, `-1h30m` or `1.5s`; units are `ns us µs ms s m h`.
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
        let (amount, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        total = total.checked_add(nanoseconds(amount, unit)?)?;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::nanoseconds(if negative { -total } else { total }));
        }
    }
}

fn nanoseconds(amount: &str, unit: &str) -> Option<i64> {
    let unit: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 15 || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = part * i128::from(unit) / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(i64::try_from(part).ok()?)
}

impl CalendarUnit {
    /// The unit of this name.
    pub fn named(name: &str) -> Option<CalendarUnit> {
        Some(match name {
            "year" => CalendarUnit::Year,
            "month" => CalendarUnit::Month,
            "day" => CalendarUnit::Day,
            "hour" => CalendarUnit::Hour,
            "minute" => CalendarUnit::Minute,
            "second" => CalendarUnit::Second,
            _ => return None,
        })
    }

    /// The instant truncated to the unit, in the instant's zone.
    pub fn truncate(self, instant: OffsetDateTime) -> Option<OffsetDateTime> {
        let (date, time) = (instant.date(), instant.time());
        let (date, time) = match self {
            CalendarUnit::Year => (Date::from_calendar_date(date.year(), Month::January, 1), Ok(Time::MIDNIGHT)),
            CalendarUnit::Month => (date.replace_day(1), Ok(Time::MIDNIGHT)),
            CalendarUnit::Day => (Ok(date), Ok(Time::MIDNIGHT)),
            CalendarUnit::Hour => (Ok(date), Time::from_hms(time.hour(), 0, 0)),
            CalendarUnit::Minute => (Ok(date), Time::from_hms(time.hour(), time.minute(), 0)),
            CalendarUnit::Second => (Ok(date), Time::from_hms(time.hour(), time.minute(), time.second())),
        };
        Some(date.ok()?.with_time(time.ok()?).assume_offset(instant.offset()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(duration(text), Some(Duration::nanoseconds(nanoseconds)), "{text}");
        }
        for text in ["", "1", "1d", "h", ".h", "1.2.3s", "1h-", "99999999999h", "--1h", "1 h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn truncation_is_in_the_zone_of_the_instant() {
        let instant = query::datetime::instant("2019-11-25T23:45:06.7+05:30").unwrap();
        for (unit, beginning) in [
            ("year", "2019-01-01T00:00:00+05:30"),
            ("month", "2019-11-01T00:00:00+05:30"),
            ("day", "2019-11-25T00:00:00+05:30"),
            ("hour", "2019-11-25T23:00:00+05:30"),
            ("minute", "2019-11-25T23:45:00+05:30"),
            ("second", "2019-11-25T23:45:06+05:30"),
        ] {
            let truncated = CalendarUnit::named(unit).unwrap().truncate(instant).unwrap();
            assert_eq!(text(truncated).unwrap(), beginning);
        }
        assert_eq!(CalendarUnit::named("week"), None);
    }
}
