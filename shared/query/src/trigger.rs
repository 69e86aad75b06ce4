//! Triggers, as operators declare them: which changes of rows and which times become events, and where these are
//! delivered.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    datetime,
    function::{BaseUrl, Timeout},
    resources::Resource,
};

/// Time of an attempt where a trigger does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts after the first where a trigger does not say, and the most that it may say.
const RETRIES: u32 = 3;
const RETRIES_MAX: u32 = 1000;
/// Waits before the first retry and at most, where a trigger does not say.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// The longest wait, and the longest time of all attempts.
const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Bytes that a signing secret may have. Source: Standard Webhooks, "Signature scheme".
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets that are in use at the same time.
const SECRETS_MAX: usize = 10;

/// A `trigger` document.
pub type TriggerResource = Resource<TriggerMeta, Trigger>;

/// `meta` of a trigger.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TriggerMeta {
    /// The project's id.
    pub project: String,
    /// The trigger's id in it: letters, digits, `_` and `-`, beginning with a letter.
    pub id: String,
}

/// `spec` of a trigger.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// What becomes an event.
    pub on: TriggerSource,
    /// Where events are delivered.
    pub to: Webhook,
    /// How often a delivery that failed is tried again: a number of attempts after the first, or more exactly; absent: 3.
    #[serde(default)]
    pub retries: Retries,
    /// Time of an attempt, at most 300 seconds; absent: 5 seconds.
    #[serde(default)]
    pub timeout: Option<Timeout>,
    /// Whether an event waits for those before it of the same row (`true`), or of the same value (`doc.COLUMN`).
    #[serde(default)]
    pub ordered: Ordered,
}

impl Trigger {
    /// Time of an attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// What cannot be meant: the path in `spec`, and the text.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = match &self.on {
            TriggerSource::Rows(changes) => changes.faults(),
            TriggerSource::Schedule(_) if matches!(self.ordered, Ordered::ByColumn(_)) => {
                vec![("ordered", "expected true or false: events of a schedule have no columns".to_owned())]
            }
            TriggerSource::Schedule(_) => Vec::new(),
        };
        if self.retries.max.is_some_and(|max| max > RETRIES_MAX) {
            faults.push(("retries", format!("expected at most {RETRIES_MAX} attempts")));
        }
        faults
    }
}

/// What a trigger makes events of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "SourceKeys")]
#[cfg_attr(feature = "json-schema", schemars(with = "SourceKeys"))]
pub enum TriggerSource {
    /// Changes of the rows of a table.
    Rows(RowChanges),
    /// Times.
    Schedule(Schedule),
}

impl TriggerSource {
    /// The changes of rows, where it is those.
    pub fn rows(&self) -> Option<&RowChanges> {
        match self {
            TriggerSource::Rows(changes) => Some(changes),
            TriggerSource::Schedule(_) => None,
        }
    }
}

/// Times at which an event is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Again and again.
    Cron {
        /// Five fields, or six with seconds first.
        cron: String,
        /// A name of the IANA database; absent: UTC.
        time_zone: Option<String>,
    },
    /// Once.
    Once {
        /// A date and a time, with an offset or in the time zone.
        at: String,
        /// A name of the IANA database; absent: UTC.
        time_zone: Option<String>,
    },
}

impl fmt::Display for Schedule {
    /// Another text for each schedule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text, time_zone) = match self {
            Schedule::Cron { cron, time_zone } => ("cron", cron, time_zone),
            Schedule::Once { at, time_zone } => ("at", at, time_zone),
        };
        write!(f, "{kind} {text} {}", time_zone.as_deref().unwrap_or("UTC"))
    }
}

/// `on` of a trigger as it is written.
#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SourceKeys {
    /// The database's id.
    #[serde(default)]
    database: Option<String>,
    /// The table's name.
    #[serde(default)]
    table: Option<String>,
    /// Which changes; absent: all.
    #[serde(default)]
    operations: Option<Vec<RowOperation>>,
    /// What the row has to be after the change, as `find` of REST says it; a row that was deleted is none.
    #[serde(default)]
    r#where: Option<serde_json::Value>,
    /// What the row has to have been before the change; one that was inserted was none.
    #[serde(default)]
    before: Option<serde_json::Value>,
    /// Of updates only those that change one of these columns; none: all.
    #[serde(default)]
    columns: Vec<String>,
    /// Times as cron has them: five fields, or six with seconds first.
    #[serde(default)]
    schedule: Option<String>,
    /// One time, with an offset or in the time zone: 2026-12-24T18:00:00+01:00.
    #[serde(default)]
    at: Option<String>,
    /// The time zone of a schedule, such as Europe/Berlin; absent: UTC.
    #[serde(default)]
    time_zone: Option<String>,
}

impl TryFrom<SourceKeys> for TriggerSource {
    type Error = String;

    fn try_from(keys: SourceKeys) -> Result<Self, String> {
        let SourceKeys { database, table, operations, r#where, before, columns, schedule, at, time_zone } = keys;
        let of_rows = [
            ("operations", operations.is_some()),
            ("where", r#where.is_some()),
            ("before", before.is_some()),
            ("columns", !columns.is_empty()),
        ];
        let times = match (database, table, schedule, at) {
            (Some(database), Some(table), None, None) => {
                let changes = RowChanges { database, table, operations, r#where, before, columns };
                let is_wrong = time_zone.is_some();
                return match is_wrong {
                    true => Err("timeZone does not apply to changes of rows".to_owned()),
                    false => Ok(Self::Rows(changes)),
                };
            }
            (None, None, Some(cron), None) => Schedule::Cron { cron, time_zone },
            (None, None, None, Some(at)) => Schedule::Once { at, time_zone },
            _ => return Err("expected either database and table, or schedule, or at".to_owned()),
        };
        match of_rows.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(format!("{key} does not apply to a schedule")),
            None => Ok(Self::Schedule(times)),
        }
    }
}

/// Changes of the rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChanges {
    /// The database's id.
    pub database: String,
    /// The table's name.
    pub table: String,
    /// Which changes; absent: all.
    pub operations: Option<Vec<RowOperation>>,
    /// What the row has to be after the change, as `find` of REST says it; a row that was deleted is none.
    pub r#where: Option<serde_json::Value>,
    /// What the row has to have been before the change; one that was inserted was none.
    pub before: Option<serde_json::Value>,
    /// Of updates only those that change one of these columns; none: all.
    pub columns: Vec<String>,
}

impl RowChanges {
    /// Whether changes of this kind become events.
    pub fn has(&self, operation: RowOperation) -> bool {
        self.operations.as_ref().is_none_or(|operations| operations.contains(&operation))
    }

    /// What cannot be meant: the path in `spec`, and the text.
    fn faults(&self) -> Vec<(&'static str, String)> {
        let RowChanges { operations, r#where, before, columns, .. } = self;
        let only = |operation| operations.as_deref() == Some(&[operation]);
        let mut faults = Vec::new();
        let mut say = |path, text: &str| faults.push((path, text.to_owned()));
        if operations.as_ref().is_some_and(Vec::is_empty) {
            say("on.operations", "expected at least one of insert, update and delete");
        }
        for (path, condition) in [("on.where", r#where), ("on.before", before)] {
            if condition.as_ref().is_some_and(|condition| !condition.is_object()) {
                say(path, "expected a condition, such as {status: paid}");
            }
        }
        if r#where.is_some() && only(RowOperation::Delete) {
            say("on.where", "not allowed with deletions alone, which leave no row; use before");
        }
        if before.is_some() && only(RowOperation::Insert) {
            say("on.before", "not allowed with insertions alone, before which there is no row; use where");
        }
        if !columns.is_empty() && !self.has(RowOperation::Update) {
            say("on.columns", "not allowed without updates");
        }
        faults
    }
}

/// A kind of change of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RowOperation {
    /// It was inserted.
    Insert,
    /// It was updated.
    Update,
    /// It was deleted.
    Delete,
}

impl RowOperation {
    /// The type of its events.
    pub fn event_type(self) -> &'static str {
        match self {
            RowOperation::Insert => "DB_INSERT",
            RowOperation::Update => "DB_UPDATE",
            RowOperation::Delete => "DB_DELETE",
        }
    }
}

/// An address that events are sent to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its URL, of `http:` or `https:`.
    pub url: WebhookUrl,
    /// What its messages are signed with, `whsec_` and base64 of 24 to 64 bytes; several while they are changed; absent:
    /// messages are not signed.
    #[serde(default)]
    pub secret: SigningSecrets,
}

/// The URL of a webhook.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String")]
pub struct WebhookUrl(pub String);

impl TryFrom<String> for WebhookUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (base, query) = text.split_once('?').unwrap_or((&text, ""));
        // Its path may have a secret in it, which is not shown.
        let wrong = "invalid URL: expected http://host or https://host, maybe with port, path and query, and no user";
        BaseUrl::try_from(base.to_owned()).map_err(|_| wrong)?;
        match query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            true => Ok(Self(text)),
            false => Err("invalid URL: expected a query of printable ASCII, without #".to_owned()),
        }
    }
}

impl fmt::Debug for WebhookUrl {
    /// Without its path and query, which may have a secret in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split('/').nth(2).unwrap_or_default())
    }
}

/// Secrets that messages are signed with, the first one first.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "SecretTexts")]
#[cfg_attr(feature = "json-schema", schemars(with = "SecretTexts"))]
pub struct SigningSecrets(pub Vec<Vec<u8>>);

impl fmt::Debug for SigningSecrets {
    /// Without the secrets, so that no log ever has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum SecretTexts {
    One(String),
    Several(Vec<String>),
}

impl TryFrom<SecretTexts> for SigningSecrets {
    type Error = String;

    fn try_from(texts: SecretTexts) -> Result<Self, String> {
        let texts = match texts {
            SecretTexts::One(text) => vec![text],
            SecretTexts::Several(texts) => texts,
        };
        if texts.is_empty() || texts.len() > SECRETS_MAX {
            return Err(format!("expected 1 to {SECRETS_MAX} secrets, found {}", texts.len()));
        }
        let secret = |text: &String| {
            let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
            let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
            bytes.ok_or_else(|| "invalid secret: expected whsec_ and base64 of 24 to 64 bytes".to_owned())
        };
        texts.iter().map(secret).collect::<Result<_, _>>().map(Self)
    }
}

/// How often a delivery that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(from = "RetryNumbers")]
#[cfg_attr(feature = "json-schema", schemars(with = "RetryNumbers"))]
pub struct Retries {
    /// Attempts after the first; `None`: any number within `time`.
    pub max: Option<u32>,
    /// Time from the event to its last attempt.
    pub time: Option<Duration>,
    /// Wait before the first retry, which doubles with each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: Some(RETRIES), time: None, first: RETRY_FIRST, longest: RETRY_LONGEST }
    }
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number of attempts, or {max, for, first, longest}")]
enum RetryNumbers {
    Max(u32),
    Exactly(RetryTimes),
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RetryTimes {
    /// Attempts after the first; absent: 3, or any number where `for` is given.
    #[serde(default)]
    max: Option<u32>,
    /// Time from the event to its last attempt; absent: any.
    #[serde(default)]
    r#for: Option<Wait>,
    /// Wait before the first retry; absent: 5 seconds.
    #[serde(default)]
    first: Option<Wait>,
    /// The longest wait; absent: 5 minutes.
    #[serde(default)]
    longest: Option<Wait>,
}

impl From<RetryNumbers> for Retries {
    fn from(numbers: RetryNumbers) -> Self {
        match numbers {
            RetryNumbers::Max(max) => Self { max: Some(max), ..Self::default() },
            RetryNumbers::Exactly(RetryTimes { max, r#for, first, longest }) => {
                let first = first.map_or(RETRY_FIRST, |wait| wait.0);
                Self {
                    max: max.or(r#for.is_none().then_some(RETRIES)),
                    time: r#for.map(|wait| wait.0),
                    first,
                    longest: longest.map_or(RETRY_LONGEST, |wait| wait.0).max(first),
                }
            }
        }
    }
}

/// A wait of at most 30 days.
#[derive(Clone, Copy, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "WaitText")]
#[cfg_attr(feature = "json-schema", schemars(with = "WaitText"))]
struct Wait(Duration);

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum WaitText {
    Seconds(f64),
    Text(String),
}

impl TryFrom<WaitText> for Wait {
    type Error = String;

    fn try_from(text: WaitText) -> Result<Self, String> {
        let time = match &text {
            WaitText::Seconds(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            WaitText::Text(text) => datetime::duration(text).and_then(|time| Duration::try_from(time).ok()),
        };
        let time = time.filter(|time| !time.is_zero() && *time <= WAIT_MAX);
        time.map(Self).ok_or_else(|| "expected a time up to 720h, such as 5s, 24h or a number of seconds".to_owned())
    }
}

/// Which events of a trigger wait for those before them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "OrderText")]
#[cfg_attr(feature = "json-schema", schemars(with = "OrderText"))]
pub enum Ordered {
    /// None.
    #[default]
    No,
    /// Those of the same row.
    ByRow,
    /// Those of rows with the same value in a column.
    ByColumn(String),
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected true, false or doc.COLUMN")]
enum OrderText {
    Flag(bool),
    Path(String),
}

impl TryFrom<OrderText> for Ordered {
    type Error = String;

    fn try_from(text: OrderText) -> Result<Self, String> {
        match text {
            OrderText::Flag(false) => Ok(Ordered::No),
            OrderText::Flag(true) => Ok(Ordered::ByRow),
            OrderText::Path(path) => match path.strip_prefix("doc.").filter(|column| !column.is_empty()) {
                Some(column) => Ok(Ordered::ByColumn(column.to_owned())),
                None => Err(format!("expected true, false or doc.COLUMN, found {path}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn with(more: Value) -> Result<Trigger, String> {
        let mut spec = json!({"on": {"database": "d", "table": "t"}, "to": {"url": "https://mail.test/hook?k=1"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            match spec[key].as_object_mut() {
                Some(members) => members.extend(value.as_object().cloned().unwrap_or_default()),
                None => spec[key] = value.clone(),
            }
        }
        from_value(spec).map_err(|error| error.to_string())
    }

    fn faults(more: Value) -> Vec<&'static str> {
        with(more).unwrap().faults().into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn what_is_absent_has_a_default() {
        let trigger = with(json!({})).unwrap();
        assert_eq!(
            (trigger.timeout(), trigger.retries, trigger.ordered.clone()),
            (TIMEOUT, Retries::default(), Ordered::No)
        );
        assert_eq!(trigger.retries.max, Some(3));
        assert!(
            [RowOperation::Insert, RowOperation::Update, RowOperation::Delete].into_iter().all(|one| trigger
                .on
                .rows()
                .unwrap()
                .has(one))
        );
        assert!(trigger.faults().is_empty() && trigger.to.secret.0.is_empty());
    }

    #[test]
    fn retries_are_a_number_or_times() {
        let retries = |json| with(json!({"retries": json})).map(|trigger| trigger.retries);
        assert_eq!(retries(json!(0)).unwrap().max, Some(0));
        let long = retries(json!({"for": "24h", "first": 1, "longest": "1h"})).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(
            (long.max, long.time, long.first, long.longest),
            (None, Some(24 * hour), Duration::from_secs(1), hour)
        );
        assert_eq!(retries(json!({"first": "10m"})).unwrap().longest, Duration::from_secs(600));
        for wrong in [json!(-1), json!("many"), json!({"for": "31d"}), json!({"first": 0}), json!({"maximum": 1})] {
            assert!(retries(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(faults(json!({"retries": 1001})), ["retries"]);
    }

    #[test]
    fn secrets_are_those_of_standard_webhooks() {
        let secret = |json| with(json!({"to": {"secret": json}}));
        let good = format!("whsec_{}", STANDARD.encode([7; 24]));
        let both = secret(json!([good, format!("whsec_{}", STANDARD.encode([8; 64]))])).unwrap().to.secret;
        assert_eq!(both.0, [vec![7; 24], vec![8; 64]]);
        let told = format!("{:?}", secret(json!(good)).unwrap());
        assert!(!told.contains("7, 7") && !told.contains("k=1"), "{told}");
        for wrong in
            [json!("hidden"), json!(format!("whsec_{}", STANDARD.encode([7; 23]))), json!([]), json!("whsec_!")]
        {
            let told = secret(wrong.clone()).unwrap_err();
            assert!(told.contains("secret") && !told.contains("hidden"), "{wrong}: {told}");
        }
    }

    #[test]
    fn urls_may_have_a_query() {
        let url = |text: &str| WebhookUrl::try_from(text.to_owned()).map(|url| url.0).ok();
        assert_eq!(url("https://a/b/?c=d&e").as_deref(), Some("https://a/b/?c=d&e"));
        for wrong in ["ftp://a", "a", "http://u:p@a/", "http://a/#x", "http://a/?x y", "http://a/?#"] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
        let told = WebhookUrl::try_from("htps://a/services/hidden".to_owned()).unwrap_err();
        assert!(!told.contains("hidden"), "{told}");
    }

    #[test]
    fn a_source_is_of_one_kind() {
        let source = |on: Value| {
            let spec = json!({"on": on, "to": {"url": "http://a"}});
            from_value::<Trigger>(spec).map(|trigger| trigger.on).map_err(|error| error.to_string())
        };
        let zone = Some("Europe/Berlin".to_owned());
        assert_eq!(
            source(json!({"schedule": "0 8 * * *", "timeZone": "Europe/Berlin"})),
            Ok(TriggerSource::Schedule(Schedule::Cron { cron: "0 8 * * *".to_owned(), time_zone: zone }))
        );
        let once = source(json!({"at": "2026-12-24T18:00:00Z"})).unwrap();
        let TriggerSource::Schedule(schedule) = &once else { panic!("it is a schedule") };
        assert_eq!((schedule.to_string().as_str(), once.rows()), ("at 2026-12-24T18:00:00Z UTC", None));
        for (on, expected) in [
            (json!({}), "expected either database and table, or schedule, or at"),
            (json!({"database": "d"}), "expected either database and table, or schedule, or at"),
            (json!({"schedule": "a", "at": "b"}), "expected either database and table, or schedule, or at"),
            (
                json!({"database": "d", "table": "t", "at": "b"}),
                "expected either database and table, or schedule, or at",
            ),
            (json!({"database": "d", "table": "t", "timeZone": "UTC"}), "timeZone does not apply to changes of rows"),
            (json!({"schedule": "a", "columns": ["n"]}), "columns does not apply to a schedule"),
        ] {
            assert_eq!(source(on.clone()).unwrap_err(), expected, "{on}");
        }
        let spec = json!({"on": {"at": "a"}, "to": {"url": "http://a"}, "ordered": "doc.n"});
        assert_eq!(from_value::<Trigger>(spec).unwrap().faults()[0].0, "ordered");
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault() {
        assert_eq!(faults(json!({"on": {"operations": []}})), ["on.operations"]);
        assert_eq!(faults(json!({"on": {"operations": ["delete"], "where": {"a": 1}}})), ["on.where"]);
        assert_eq!(
            faults(json!({"on": {"operations": ["insert"], "before": {"a": 1}, "columns": ["a"]}})),
            ["on.before", "on.columns"]
        );
        assert_eq!(faults(json!({"on": {"where": [1], "before": "x"}})), ["on.where", "on.before"]);
        assert!(
            faults(json!({"on": {"operations": ["update", "delete"], "where": {}, "before": {}, "columns": ["a"]}}))
                .is_empty()
        );
        assert!(with(json!({"on": {"operations": ["truncate"]}})).is_err());
        assert!(with(json!({"ordered": "find.a"})).is_err());
        assert_eq!(with(json!({"ordered": "doc.a"})).unwrap().ordered, Ordered::ByColumn("a".to_owned()));
        assert_eq!(with(json!({"ordered": true})).unwrap().ordered, Ordered::ByRow);
    }
}
