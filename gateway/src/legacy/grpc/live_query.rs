//! Live queries: messages of `RealTime` and those of the JSON socket that they stand for.

use bytes::Bytes;
use proto::predecessor::{FeedData, RealTimeRequest, RealTimeResponse};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::stream::{StreamFraming, repeated};
use crate::legacy::message::written;

/// Types of messages.
const SUBSCRIBE: &str = "realtime-subscribe";
const UNSUBSCRIBE: &str = "realtime-unsubscribe";
const FEED: &str = "realtime-feed";

/// Ids of requests whose rows that there are are told as inserted: clients that send no options know no other word.
const AS_INSERTED: &str = "inserted";

/// The framing.
pub struct LiveQueryFraming;

#[derive(Serialize)]
struct SentQuery<'a> {
    id: &'static str,
    r#type: &'a str,
    data: SentQueryData<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SentQueryData<'a> {
    id: &'a str,
    group: &'a str,
    db_type: &'a str,
    token: &'a str,
    r#where: Option<QueryJson<'a>>,
    options: Option<QueryJson<'a>>,
}

/// JSON of a message, or the text that is none, which is refused where an object is expected.
#[derive(Serialize)]
#[serde(untagged)]
enum QueryJson<'a> {
    Sound(&'a RawValue),
    Broken(String),
}

#[derive(Deserialize)]
struct ToldQuery<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    id: &'a str,
}

#[derive(Deserialize)]
struct ToldReply<'a> {
    group: String,
    id: String,
    ack: bool,
    error: String,
    #[serde(borrow)]
    docs: Vec<ToldRow<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldRow<'a> {
    id: String,
    #[serde(borrow)]
    doc_id: &'a RawValue,
    r#type: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
    time: i64,
    group: String,
    db_type: String,
}

fn json(bytes: &[u8]) -> Option<QueryJson<'_>> {
    let sound = || serde_json::from_slice(bytes).ok().map(QueryJson::Sound);
    (!bytes.is_empty()).then(|| sound().unwrap_or_else(|| QueryJson::Broken(String::new())))
}

impl StreamFraming for LiveQueryFraming {
    type Request = RealTimeRequest;
    type Response = RealTimeResponse;

    fn names(request: &RealTimeRequest) -> (&str, &str) {
        (&request.project, &request.token)
    }

    fn received(request: RealTimeRequest) -> Option<Vec<u8>> {
        let RealTimeRequest { token, db_type, group, r#type, id, r#where, options, .. } = &request;
        if ![SUBSCRIBE, UNSUBSCRIBE].contains(&r#type.as_str()) {
            return None;
        }
        let (find, asked) = (json(r#where), json(options));
        let head = if asked.is_none() { AS_INSERTED } else { "" };
        let data = SentQueryData { id, group, db_type, token, r#where: find, options: asked };
        Some(written(&SentQuery { id: head, r#type, data }))
    }

    fn told(text: &[u8]) -> Option<RealTimeResponse> {
        let ToldQuery { r#type, data, id } = serde_json::from_slice(text).ok()?;
        if r#type == FEED {
            let row: ToldRow<'_> = serde_json::from_str(data.get()).ok()?;
            let (group, id) = (row.group.clone(), row.id.clone());
            return Some(RealTimeResponse {
                group,
                id,
                ack: true,
                error: String::new(),
                feed_data: vec![row.told(false)?],
            });
        }
        if ![SUBSCRIBE, UNSUBSCRIBE].contains(&r#type) {
            return None;
        }
        let ToldReply { group, id: query, ack, error, docs } = serde_json::from_str(data.get()).ok()?;
        let feed_data = docs.into_iter().filter_map(|row| row.told(id == AS_INSERTED)).collect();
        Some(RealTimeResponse { group, id: query, ack, error, feed_data })
    }

    fn refused(request: &RealTimeRequest, error: &str) -> RealTimeResponse {
        let (group, id) = (repeated(&request.group), repeated(&request.id));
        RealTimeResponse { group, id, ack: false, error: error.to_owned(), feed_data: Vec::new() }
    }

    fn is_last(_: &RealTimeResponse) -> bool {
        false
    }
}

impl ToldRow<'_> {
    fn told(self, as_inserted: bool) -> Option<FeedData> {
        let Self { id: query_id, doc_id, r#type, payload, time: time_stamp, group, db_type } = self;
        let r#type = if as_inserted && r#type == "initial" { "insert" } else { r#type }.to_owned();
        // A number is told as its text.
        let doc_id = serde_json::from_str(doc_id.get()).unwrap_or_else(|_| doc_id.get().to_owned());
        let payload = Bytes::copy_from_slice(payload.get().as_bytes());
        Some(FeedData { query_id, doc_id, r#type, group, db_type, payload, time_stamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribe(find: &'static str, options: &'static str) -> serde_json::Value {
        let request = RealTimeRequest {
            token: "t".to_owned(),
            db_type: "music".to_owned(),
            project: "shop".to_owned(),
            group: "album".to_owned(),
            r#type: SUBSCRIBE.to_owned(),
            id: "q\"1".to_owned(),
            r#where: find.into(),
            options: options.into(),
        };
        serde_json::from_slice(&LiveQueryFraming::received(request).expect("it is known")).expect("it is JSON")
    }

    #[test]
    fn requests_are_messages_of_the_socket() {
        let message = subscribe(r#"{"a": 1.50}"#, r#"{"skipInitial": true}"#);
        let expected = serde_json::json!({"id": "", "type": SUBSCRIBE, "data": {"id": "q\"1", "group": "album",
            "dbType": "music", "token": "t", "where": {"a": 1.50}, "options": {"skipInitial": true}}});
        assert_eq!(message, expected);
        assert_eq!(subscribe("", "")["id"], AS_INSERTED);
        assert_eq!(subscribe("null", "{}")["data"]["where"], serde_json::Value::Null);
    }

    #[test]
    fn what_is_no_json_stays_one_value() {
        for broken in [r#"{"a":1},"token":"x""#, "{", "\u{1}", "{} {}"] {
            assert_eq!(subscribe(broken, "{}")["data"]["where"], "", "{broken}");
        }
    }

    #[test]
    fn other_types_are_ignored() {
        let request = RealTimeRequest { r#type: "service-register".to_owned(), ..RealTimeRequest::default() };
        assert_eq!(LiveQueryFraming::received(request), None);
    }

    #[test]
    fn replies_and_changes_are_told_by_the_id_of_the_query() {
        let row = |r#type: &str| {
            format!(
                r#"{{"id":"q1","docId":7,"type":"{type}","payload":{{"n":1.50}},"time":5,"group":"album","dbType":"music","find":{{}}}}"#
            )
        };
        let reply = |id: &str| {
            let row = row("initial");
            format!(
                r#"{{"type":"{SUBSCRIBE}","data":{{"group":"album","id":"q1","ack":true,"error":"","docs":[{row}]}},"id":"{id}"}}"#
            )
        };
        let told = |text: String| LiveQueryFraming::told(text.as_bytes()).expect("it is told");
        for (text, r#type) in [
            (reply(""), "initial"),
            (reply(AS_INSERTED), "insert"),
            (format!(r#"{{"type":"{FEED}","data":{},"id":""}}"#, row("update")), "update"),
        ] {
            let RealTimeResponse { group, id, ack, error, feed_data } = told(text);
            assert_eq!((&*group, &*id, ack, &*error), ("album", "q1", true, ""));
            let [FeedData { query_id, doc_id, r#type: kind, payload, time_stamp, .. }] = &feed_data[..] else {
                panic!("{feed_data:?}");
            };
            assert_eq!((&**query_id, &**doc_id, &**kind, *time_stamp), ("q1", "7", r#type, 5));
            assert_eq!(payload, r#"{"n":1.50}"#);
        }
        assert_eq!(LiveQueryFraming::told(br#"{"type":"unknown","data":{"error":"x"},"id":"0"}"#), None);
    }
}
