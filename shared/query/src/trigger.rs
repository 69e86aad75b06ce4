//! Triggers, as operators declare them: which changes of rows, times and custom events become events, and where these
//! are delivered.

mod retries;
mod source;
mod target;

use std::time::Duration;

use serde::Deserialize;

use crate::{function::Timeout, resources::Resource};

pub use retries::Retries;
pub use source::{RowChanges, RowOperation, Schedule, TriggerSource};
pub use target::{FunctionTarget, SigningSecrets, Target, Webhook, WebhookUrl};

/// Time of an attempt where a trigger does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a template.
const TEMPLATE_BYTES: usize = 64 << 10;
/// The most attempts after the first.
const RETRIES_MAX: u32 = 1000;

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
    pub to: Target,
    /// How often a delivery that failed is tried again: a number of attempts after the first, or more exactly; absent: 3.
    #[serde(default)]
    pub retries: Retries,
    /// Time of an attempt, at most 300 seconds; absent: 5 seconds.
    #[serde(default)]
    pub timeout: Option<Timeout>,
    /// Whether an event waits for those before it of the same row (`true`), or of the same value (`doc.COLUMN`). Of custom
    /// events: of the trigger (`true`), or with the same value at a path of the payload.
    #[serde(default)]
    pub ordered: Ordered,
    /// What is sent in the place of the event: a template over `event` that gives JSON; absent or without a text: the event.
    #[serde(default)]
    pub template: Option<String>,
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
            TriggerSource::Schedule(_) | TriggerSource::Event(_) => Vec::new(),
        };
        match (&self.on, &self.ordered) {
            (TriggerSource::Rows(_), Ordered::ByPath(path)) if self.ordered.column().is_none() => {
                faults.push(("ordered", format!("expected true, false or doc.COLUMN, found {path}")));
            }
            (TriggerSource::Schedule(_), Ordered::ByPath(_)) => {
                faults.push(("ordered", "expected true or false: events of a schedule have no columns".to_owned()));
            }
            (TriggerSource::Event(_), Ordered::ByPath(path)) if path.split('.').any(str::is_empty) => {
                let text = format!("expected true, false or a path of the payload such as customer.id, found {path:?}");
                faults.push(("ordered", text));
            }
            _ => {}
        }
        if self.template.as_ref().is_some_and(|template| template.len() > TEMPLATE_BYTES) {
            faults.push(("template", format!("expected at most {TEMPLATE_BYTES} bytes")));
        }
        if self.retries.max.is_some_and(|max| max > RETRIES_MAX) {
            faults.push(("retries", format!("expected at most {RETRIES_MAX} attempts")));
        }
        faults
    }
}

/// Which events of a trigger wait for those before them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(from = "OrderText")]
#[cfg_attr(feature = "json-schema", schemars(with = "OrderText"))]
pub enum Ordered {
    /// None.
    #[default]
    No,
    /// Those of the same row; all, where there are no rows.
    ByRow,
    /// Those with the same value at a path in `data`.
    ByPath(String),
}

impl Ordered {
    /// The column of the row that the path means.
    pub fn column(&self) -> Option<&str> {
        match self {
            Ordered::ByPath(path) => path.strip_prefix("doc.").filter(|column| !column.is_empty()),
            Ordered::No | Ordered::ByRow => None,
        }
    }
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected true, false or a path such as doc.COLUMN")]
enum OrderText {
    Flag(bool),
    Path(String),
}

impl From<OrderText> for Ordered {
    fn from(text: OrderText) -> Self {
        match text {
            OrderText::Flag(false) => Ordered::No,
            OrderText::Flag(true) => Ordered::ByRow,
            OrderText::Path(path) => Ordered::ByPath(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
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
        let Target::Webhook(webhook) = &trigger.to else { panic!("it is a webhook") };
        assert!(trigger.faults().is_empty() && webhook.secret.0.is_empty());
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
        let both = secret(json!([good, format!("whsec_{}", STANDARD.encode([8; 64]))])).unwrap().to;
        let Target::Webhook(both) = both else { panic!("it is a webhook") };
        assert_eq!(both.secret.0, [vec![7; 24], vec![8; 64]]);
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
    fn a_target_is_of_one_kind() {
        let target = |to: Value| {
            let spec = json!({"on": {"at": "a"}, "to": to});
            from_value::<Trigger>(spec).map(|trigger| trigger.to).map_err(|error| error.to_string())
        };
        let function = FunctionTarget { service: "mail".to_owned(), function: "send".to_owned() };
        assert_eq!(target(json!({"service": "mail", "function": "send"})), Ok(Target::Function(function)));
        let secret = format!("whsec_{}", STANDARD.encode([7; 24]));
        for (to, told) in [
            (json!({}), "expected either url, or service and function"),
            (json!({"service": "mail"}), "expected either url, or service and function"),
            (json!({"service": "mail", "function": ""}), "expected either url, or service and function"),
            (json!({"url": "http://a", "service": "mail", "function": "send"}), "expected either url"),
            (json!({"service": "mail", "function": "send", "secret": secret}), "secret does not apply to functions"),
            (json!({"topic": "news"}), "unknown field `topic`"),
        ] {
            let why = target(to.clone()).unwrap_err();
            assert!(why.starts_with(told), "{to}: {why}");
        }
        assert_eq!(faults(json!({"template": "x".repeat(TEMPLATE_BYTES + 1)})), ["template"]);
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
        assert_eq!(source(json!({"event": "order"})), Ok(TriggerSource::Event("order".to_owned())));
        assert_eq!(source(json!({"event": "dlq_a"})), Ok(TriggerSource::Event("dlq_a".to_owned())));
        assert_eq!((schedule.to_string().as_str(), once.rows()), ("at 2026-12-24T18:00:00Z UTC", None));
        for (on, expected) in [
            (json!({}), "expected either database and table, or event, or schedule, or at"),
            (json!({"database": "d"}), "expected either database and table, or event, or schedule, or at"),
            (json!({"schedule": "a", "at": "b"}), "expected either database and table, or event, or schedule, or at"),
            (
                json!({"database": "d", "table": "t", "at": "b"}),
                "expected either database and table, or event, or schedule, or at",
            ),
            (json!({"database": "d", "table": "t", "timeZone": "UTC"}), "timeZone does not apply to changes of rows"),
            (json!({"schedule": "a", "columns": ["n"]}), "columns does not apply to a schedule"),
            (json!({"event": "a", "timeZone": "UTC"}), "timeZone does not apply to custom events"),
            (json!({"event": "a", "where": {}}), "where does not apply to custom events"),
            (
                json!({"event": ""}),
                "invalid event type \"\": expected 1 to 128 characters, none of them a control character",
            ),
            (
                json!({"event": "DB_INSERT"}),
                "event type DB_INSERT is built in: expected database and table, or schedule, or at",
            ),
        ] {
            assert_eq!(source(on.clone()).unwrap_err(), expected, "{on}");
        }
        let ordered = |on: Value, ordered: &str| {
            let spec = json!({"on": on, "to": {"url": "http://a"}, "ordered": ordered});
            from_value::<Trigger>(spec).unwrap().faults().into_iter().map(|(path, _)| path).collect::<Vec<_>>()
        };
        assert_eq!(ordered(json!({"at": "a"}), "doc.n"), ["ordered"]);
        assert_eq!(ordered(json!({"event": "order"}), "customer.id"), Vec::<&str>::new());
        assert_eq!(ordered(json!({"event": "order"}), "customer."), ["ordered"]);
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
        assert_eq!(faults(json!({"ordered": "find.a"})), ["ordered"]);
        assert_eq!(with(json!({"ordered": "doc.a"})).unwrap().ordered.column(), Some("a"));
        assert_eq!(with(json!({"ordered": true})).unwrap().ordered, Ordered::ByRow);
    }
}
