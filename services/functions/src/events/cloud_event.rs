//! Messages: events of changes of rows, of times, and custom ones. Source: CloudEvents 1.0, "JSON Event Format".

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use query::datetime;

use super::{
    queue::{FollowedTable, TriggerKey},
    row::RowImage,
};

/// What is encoded in a segment of a URI. Source: RFC 3986, "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Most bytes of a message.
pub const MESSAGE_BYTES: usize = 8 << 20;

/// A change of a row.
pub struct RowEvent<'e> {
    /// The event's id.
    pub id: &'e str,
    /// `DB_INSERT` and so on.
    pub r#type: &'static str,
    /// The table.
    pub table: &'e FollowedTable,
    /// When it was committed, in microseconds since 1970.
    pub committed_us: i64,
    /// The columns that tell the row from all others; empty where there are none.
    pub key: &'e [String],
    /// The row as it is.
    pub after: Option<&'e RowImage<'e>>,
    /// The row as it was.
    pub before: Option<&'e RowImage<'e>>,
}

impl RowEvent<'_> {
    /// The row: as it is, or as it was where it is gone.
    fn row(&self) -> Option<&RowImage<'_>> {
        self.after.or(self.before)
    }

    /// The key as a text: its value, or a list of them where it has several; `None` where there is no key.
    pub fn doc_id(&self) -> Option<String> {
        let row = self.row()?;
        let values: Vec<&str> = self.key.iter().filter_map(|name| row.column(name)).collect();
        match values.as_slice() {
            [] => None,
            [value] => Some(serde_json::from_str(value).unwrap_or_else(|_| (*value).to_owned())),
            values => Some(format!("[{}]", values.join(","))),
        }
    }

    /// The message. Errors: it is too large, as a text.
    pub fn message(&self) -> Result<Vec<u8>, String> {
        let sizes = [self.after, self.before].into_iter().flatten().map(|row| row.json.len());
        let bytes: usize = sizes.sum();
        if bytes > MESSAGE_BYTES {
            return Err(format!("the rows of {bytes} bytes are over the limit of {MESSAGE_BYTES} bytes of an event"));
        }
        let mut out = Vec::with_capacity(bytes + 512);
        out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
        text(&mut out, self.id);
        out.extend_from_slice(b",\"source\":");
        text(&mut out, &source(self.table));
        out.extend_from_slice(b",\"type\":");
        text(&mut out, self.r#type);
        let doc_id = self.doc_id();
        // A subject is never empty.
        if let Some(subject) = doc_id.as_ref().filter(|subject| !subject.is_empty()) {
            out.extend_from_slice(b",\"subject\":");
            text(&mut out, subject);
        }
        out.extend_from_slice(b",\"time\":\"");
        datetime::rfc3339(&mut out, self.committed_us);
        out.extend_from_slice(b"\",\"datacontenttype\":\"application/json\",\"data\":{\"db\":");
        text(&mut out, &self.table.database);
        out.extend_from_slice(b",\"col\":");
        text(&mut out, &self.table.table);
        out.extend_from_slice(b",\"find\":{");
        self.find(&mut out);
        out.push(b'}');
        if let Some(doc_id) = &doc_id {
            out.extend_from_slice(b",\"docId\":");
            text(&mut out, doc_id);
        }
        for (name, row) in [(&b",\"doc\":"[..], self.after), (b",\"before\":", self.before)] {
            if let Some(row) = row {
                out.extend_from_slice(name);
                out.extend_from_slice(row.json.as_bytes());
            }
        }
        out.extend_from_slice(b"}}");
        Ok(out)
    }

    /// Writes the columns of the key.
    fn find(&self, out: &mut Vec<u8>) {
        let Some(row) = self.row() else { return };
        let columns = self.key.iter().filter_map(|name| Some((name, row.column(name)?)));
        for (index, (name, value)) in columns.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            text(out, name);
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        }
    }
}

/// The message of a time at which a trigger is due, in milliseconds since 1970.
pub fn schedule_message(id: &str, trigger: &TriggerKey, due_ms: i64) -> Vec<u8> {
    let mut due = Vec::new();
    datetime::rfc3339(&mut due, due_ms.saturating_mul(1000));
    let mut out = b"{\"specversion\":\"1.0\",\"id\":".to_vec();
    text(&mut out, id);
    out.extend_from_slice(b",\"source\":");
    text(&mut out, &format!("perigee:{}/{}", segment(&trigger.project), segment(&trigger.id)));
    out.extend_from_slice(b",\"type\":\"SCHEDULE\",\"time\":\"");
    out.extend_from_slice(&due);
    out.extend_from_slice(b"\",\"datacontenttype\":\"application/json\",\"data\":{\"due\":\"");
    out.extend_from_slice(&due);
    out.extend_from_slice(b"\"}}");
    out
}

/// The message of a custom event that was queued at a time, in milliseconds since 1970. Errors: it is too large, as a text.
pub fn custom_message(
    id: &str,
    project: &str,
    r#type: &str,
    queued_ms: i64,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    if payload.len() > MESSAGE_BYTES {
        let bytes = payload.len();
        return Err(format!("the payload of {bytes} bytes is over the limit of {MESSAGE_BYTES} bytes of an event"));
    }
    let mut out = Vec::with_capacity(payload.len() + 512);
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
    text(&mut out, id);
    out.extend_from_slice(b",\"source\":");
    text(&mut out, &format!("perigee:{}", segment(project)));
    out.extend_from_slice(b",\"type\":");
    text(&mut out, r#type);
    out.extend_from_slice(b",\"time\":\"");
    datetime::rfc3339(&mut out, queued_ms.saturating_mul(1000));
    out.extend_from_slice(b"\",\"datacontenttype\":\"application/json\",\"data\":");
    out.extend_from_slice(if payload.is_empty() { b"null" } else { payload });
    out.push(b'}');
    Ok(out)
}

/// The `source` of events of a table.
fn source(table: &FollowedTable) -> String {
    format!("perigee:{}/{}/{}", segment(&table.project), segment(&table.database), segment(&table.table))
}

fn segment(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON and memory takes it");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(key: &[&str], after: &str, before: &str) -> Value {
        let table = FollowedTable { project: "shop".into(), database: "music".into(), table: "in voice".into() };
        let (after, before) = (RowImage::read(after.as_bytes()).unwrap(), RowImage::read(before.as_bytes()).unwrap());
        let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
        let (after, before) = (after.as_ref(), before.as_ref());
        let event = RowEvent {
            id: "evt_1",
            r#type: "DB_UPDATE",
            table: &table,
            committed_us: 1_700_000_000_123_456,
            key: &key,
            after,
            before,
        };
        serde_json::from_slice(&event.message().unwrap()).unwrap()
    }

    #[test]
    fn a_change_is_an_event_of_cloudevents() {
        let told = message(&["id"], r#"{"id":7,"a":"x"}"#, r#"{"id":7,"a":null}"#);
        let expected = json!({
            "specversion": "1.0", "id": "evt_1", "source": "perigee:shop/music/in%20voice", "type": "DB_UPDATE",
            "subject": "7", "time": "2023-11-14T22:13:20.123456Z", "datacontenttype": "application/json",
            "data": { "db": "music", "col": "in voice", "find": { "id": 7 }, "docId": "7",
                "doc": { "id": 7, "a": "x" }, "before": { "id": 7, "a": null } },
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_time_is_an_event_of_its_trigger() {
        let trigger = TriggerKey { project: "shop".into(), id: "nightly".into() };
        let told: Value = serde_json::from_slice(&schedule_message("evt_1", &trigger, 1_700_000_000_000)).unwrap();
        let due = "2023-11-14T22:13:20Z";
        let expected = json!({
            "specversion": "1.0", "id": "evt_1", "source": "perigee:shop/nightly", "type": "SCHEDULE", "time": due,
            "datacontenttype": "application/json", "data": { "due": due },
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_custom_event_has_its_payload() {
        let told = custom_message("evt_1", "shop", "order \"x\"", 1_700_000_000_000, b"{\"n\":1}").unwrap();
        let expected = json!({
            "specversion": "1.0", "id": "evt_1", "source": "perigee:shop", "type": "order \"x\"",
            "time": "2023-11-14T22:13:20Z", "datacontenttype": "application/json", "data": { "n": 1 },
        });
        assert_eq!(serde_json::from_slice::<Value>(&told).unwrap(), expected);
        let without = custom_message("evt_1", "shop", "a", 0, b"").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&without).unwrap()["data"], Value::Null);
        assert!(custom_message("evt_1", "shop", "a", 0, &vec![b'1'; MESSAGE_BYTES + 1]).is_err());
    }

    #[test]
    fn keys_are_texts_and_may_be_absent() {
        let told = message(&["a", "b"], "", r#"{"a":1,"b":"x"}"#);
        assert_eq!((&told["subject"], &told["data"]["docId"]), (&json!("[1,\"x\"]"), &json!("[1,\"x\"]")));
        assert_eq!(told["data"]["find"], json!({ "a": 1, "b": "x" }));
        assert!(told["data"].get("doc").is_none());
        let without = message(&[], r#"{"a":1}"#, "");
        assert!(without.get("subject").is_none() && without["data"].get("docId").is_none());
        assert_eq!(without["data"]["find"], json!({}));
        assert!(message(&["a"], r#"{"a":""}"#, "").get("subject").is_none());
    }

    #[test]
    fn rows_that_are_too_large_are_said_to_be() {
        let table = FollowedTable { project: "p".into(), database: "d".into(), table: "t".into() };
        let json = format!(r#"{{"a":"{}"}}"#, "x".repeat(MESSAGE_BYTES));
        let row = RowImage::read(json.as_bytes()).unwrap();
        let (after, key) = (row.as_ref(), Vec::new());
        let event =
            RowEvent { id: "e", r#type: "DB_INSERT", table: &table, committed_us: 0, key: &key, after, before: None };
        assert!(event.message().unwrap_err().contains("over the limit of 8388608 bytes"));
    }
}
