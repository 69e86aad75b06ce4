//! Timetable: when a schedule is due, by cron or once.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use query::trigger::Schedule;

/// Most bytes of an expression.
const CRON_BYTES: usize = 200;

/// When a schedule is due. Times are in milliseconds since 1970.
#[derive(Debug, Clone)]
pub enum Timetable {
    /// Again and again.
    Cron {
        /// The expression.
        cron: Box<Cron>,
        /// Its time zone.
        zone: Tz,
    },
    /// Once.
    Once(i64),
}

impl Timetable {
    /// The timetable of a schedule. Errors: the key that is wrong, and why.
    pub fn of(schedule: &Schedule) -> Result<Self, (&'static str, String)> {
        let (text, zone) = match schedule {
            Schedule::Cron { cron, time_zone } => (cron, time_zone),
            Schedule::Once { at, time_zone } => (at, time_zone),
        };
        let name = zone.as_deref().unwrap_or("UTC");
        let zone: Tz = name.parse().map_err(|_| {
            (
                "timeZone",
                format!("unknown time zone {name}: expected a name of the IANA database such as Europe/Berlin"),
            )
        })?;
        match schedule {
            Schedule::Cron { .. } => cron(text, zone).map_err(|why| ("schedule", why)),
            Schedule::Once { .. } => once(text, zone).map(Self::Once).map_err(|why| ("at", why)),
        }
    }

    /// The first time after `ms`; `None` where there is none.
    pub fn after(&self, ms: i64) -> Option<i64> {
        match self {
            Self::Cron { cron, zone } => {
                let next = cron.find_next_occurrence(&moment(ms, *zone)?, false).ok()?.timestamp_millis();
                // An expression has whole seconds, and what is looked for comes later.
                (next > ms).then_some(next)
            }
            Self::Once(at) => Some(*at).filter(|at| *at > ms),
        }
    }

    /// The last time from `due` until `ms`: what fell due meanwhile is due once.
    pub fn latest(&self, due: i64, ms: i64) -> i64 {
        match self {
            Self::Cron { cron, zone } => {
                let last = moment(ms, *zone).and_then(|now| cron.find_previous_occurrence(&now, true).ok());
                last.map_or(due, |last| last.timestamp_millis().clamp(due, ms.max(due)))
            }
            Self::Once(_) => due,
        }
    }
}

fn moment(ms: i64, zone: Tz) -> Option<DateTime<Tz>> {
    DateTime::from_timestamp_millis(ms).map(|moment| moment.with_timezone(&zone))
}

fn cron(text: &str, zone: Tz) -> Result<Timetable, String> {
    let expected = "expected five fields, or six with seconds first, such as \"0 8 * * MON-FRI\"";
    let fields = text.split_whitespace().count();
    if text.len() > CRON_BYTES || !(5..=6).contains(&fields) {
        return Err(format!("invalid schedule {:?}: {expected}", shortened(text)));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|error| format!("invalid schedule {text:?}: {expected}: {error}"))?;
    let timetable = Timetable::Cron { cron: Box::new(cron), zone };
    match timetable.after(0) {
        Some(_) => Ok(timetable),
        None => Err(format!("invalid schedule {text:?}: it is never due")),
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(CRON_BYTES)).unwrap_or_default()
}

fn once(text: &str, zone: Tz) -> Result<i64, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.with_timezone(&Utc).timestamp_millis());
    }
    let local: NaiveDateTime = text.parse().map_err(|_| {
        format!("invalid time {text:?}: expected 2026-12-24T18:00:00+01:00, or without an offset in timeZone")
    })?;
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Ok(at.timestamp_millis()),
        MappedLocalTime::None => Err(format!("invalid time {text:?}: the clock of {zone} skips it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str, zone: Option<&str>) -> Result<Timetable, String> {
        let schedule = Schedule::Cron { cron: text.to_owned(), time_zone: zone.map(str::to_owned) };
        Timetable::of(&schedule).map_err(|(key, why)| format!("{key}: {why}"))
    }

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    /// The times after one until another.
    fn times(timetable: &Timetable, after: &str, until: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut next = timetable.after(ms(after));
        while let Some(due) = next.filter(|due| *due <= ms(until)) {
            all.push(DateTime::from_timestamp_millis(due).unwrap().to_rfc3339());
            next = timetable.after(due);
        }
        all
    }

    #[test]
    fn expressions_have_five_fields_or_six_with_seconds_first() {
        let every = cron("*/15 * * * *", None).unwrap();
        assert_eq!(
            times(&every, "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z"),
            ["2026-01-01T00:15:00+00:00", "2026-01-01T00:30:00+00:00"]
        );
        let seconds = cron("*/30 * * * * *", None).unwrap();
        assert_eq!(times(&seconds, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z").len(), 2);
        let weekday = cron("0 8 * * MON-FRI", Some("Europe/Berlin")).unwrap();
        assert_eq!(
            times(&weekday, "2026-01-02T12:00:00Z", "2026-01-05T12:00:00Z"),
            ["2026-01-05T07:00:00+00:00"],
            "over a weekend"
        );
        for (text, zone, expected) in [
            ("", None, "schedule: invalid schedule \"\": expected five fields"),
            ("* * * *", None, "schedule: invalid schedule"),
            ("* * * * * * *", None, "schedule: invalid schedule"),
            ("61 * * * *", None, "schedule: invalid schedule \"61 * * * *\""),
            ("0 0 30 2 *", None, "schedule: invalid schedule \"0 0 30 2 *\": it is never due"),
            ("0 0 * * *", Some("Mars/Base"), "timeZone: unknown time zone Mars/Base"),
            (&"* ".repeat(200), None, "schedule: invalid schedule"),
        ] {
            let why = cron(text, zone).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        }
    }

    #[test]
    fn what_the_clock_skips_is_due_at_the_end_of_the_gap_and_what_comes_twice_once() {
        let daily = cron("30 2 * * *", Some("Europe/Berlin")).unwrap();
        assert_eq!(
            times(&daily, "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"),
            ["2026-03-29T01:00:00+00:00", "2026-03-30T00:30:00+00:00"]
        );
        assert_eq!(
            times(&daily, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00+00:00", "2026-10-26T01:30:00+00:00"]
        );
        let hourly = cron("0 * * * *", Some("Europe/Berlin")).unwrap();
        assert_eq!(times(&hourly, "2026-10-24T22:30:00Z", "2026-10-25T03:00:00Z").len(), 5, "hours go on");
    }

    #[test]
    fn the_last_time_is_what_is_due_after_an_absence() {
        let hourly = cron("0 * * * *", None).unwrap();
        let due = ms("2026-01-01T01:00:00Z");
        assert_eq!(hourly.latest(due, ms("2026-01-01T05:30:00Z")), ms("2026-01-01T05:00:00Z"));
        assert_eq!(hourly.latest(due, ms("2026-01-01T01:00:00Z")), due);
        assert_eq!(hourly.latest(due, ms("2026-01-01T01:59:59Z")), due);
        assert_eq!(Timetable::Once(due).latest(due, i64::MAX), due);
    }

    #[test]
    fn one_time_has_an_offset_or_a_zone() {
        let once = |at: &str, zone: Option<&str>| {
            let schedule = Schedule::Once { at: at.to_owned(), time_zone: zone.map(str::to_owned) };
            match Timetable::of(&schedule).map_err(|(key, why)| format!("{key}: {why}")) {
                Ok(Timetable::Once(at)) => Ok(at),
                Ok(Timetable::Cron { .. }) => panic!("it is once"),
                Err(why) => Err(why),
            }
        };
        let at = ms("2026-12-24T17:00:00Z");
        assert_eq!(once("2026-12-24T18:00:00+01:00", None), Ok(at));
        assert_eq!(once("2026-12-24T18:00:00", Some("Europe/Berlin")), Ok(at));
        assert_eq!(once("2026-12-24T17:00:00", None), Ok(at));
        assert!(once("tomorrow", None).unwrap_err().starts_with("at: invalid time \"tomorrow\""));
        let skipped = once("2026-03-29T02:30:00", Some("Europe/Berlin")).unwrap_err();
        assert!(skipped.ends_with("the clock of Europe/Berlin skips it"), "{skipped}");
        assert_eq!((Timetable::Once(at).after(at - 1), Timetable::Once(at).after(at)), (Some(at), None));
    }
}
