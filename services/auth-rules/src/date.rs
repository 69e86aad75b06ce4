//! Date arithmetic of rules: truncation to a calendar unit.

use time::{Date, Month, OffsetDateTime, Time, format_description::well_known::Rfc3339};

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
