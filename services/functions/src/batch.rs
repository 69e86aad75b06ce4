//! Functions that take a list of parameters, and answer with a list of as many answers in the same order. Equal parameters go
//! once.

use std::collections::HashMap;

use bytes::Bytes;
use proto::functions::{CallResponse, ITEMS_MAX};
use serde_json::{Value, value::RawValue};

use crate::Error;

/// The status of a single item whose answer says that it failed.
const FAILED: u32 = 500;

/// The items of a call.
#[derive(Debug)]
pub struct ItemBatch {
    /// JSON of the list that is sent.
    pub params: Bytes,
    /// For each item of the caller the place of its answer among those of the function.
    places: Vec<usize>,
    sent: usize,
    /// Whether the caller has sent one item, and no list: its rule was asked of it as a whole.
    pub is_single: bool,
}

impl ItemBatch {
    /// The items of these parameters: those of a list, or one.
    pub fn of(params: &Bytes) -> Result<Self, Error> {
        let malformed = |error: serde_json::Error| Error::Malformed(error.to_string());
        let params = if params.is_empty() { &b"null"[..] } else { params };
        let is_single = params.trim_ascii_start().first() != Some(&b'[');
        let items: Vec<&RawValue> = match is_single {
            true => vec![serde_json::from_slice(params).map_err(malformed)?],
            false => serde_json::from_slice(params).map_err(malformed)?,
        };
        if items.len() > ITEMS_MAX {
            return Err(Error::ManyItems { found: items.len(), limit: ITEMS_MAX });
        }
        let (mut first, mut unique, mut places) = (HashMap::new(), Vec::new(), Vec::with_capacity(items.len()));
        for item in items {
            let place = *first.entry(item.get()).or_insert_with(|| {
                unique.push(item);
                unique.len() - 1
            });
            places.push(place);
        }
        let params = serde_json::to_vec(&unique).map_err(malformed)?.into();
        Ok(Self { params, places, sent: unique.len(), is_single })
    }

    /// The answer where there is nothing to ask.
    pub fn answered(&self) -> Option<CallResponse> {
        (self.sent == 0).then(|| CallResponse { status: 200, body: Bytes::from_static(b"[]") })
    }

    /// The answers to the caller's items, of at most `limit` bytes. Errors: they are not as many as were sent.
    pub fn answer(&self, answer: CallResponse, limit: u64) -> Result<CallResponse, Error> {
        if !(200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let items: Vec<&RawValue> =
            serde_json::from_slice(&answer.body).map_err(|_| Error::WrongBatch { found: None, sent: self.sent })?;
        if items.len() != self.sent {
            return Err(Error::WrongBatch { found: Some(items.len()), sent: self.sent });
        }
        if self.is_single {
            let item = items[0].get();
            let has_failed = item.starts_with('{') && serde_json::from_str(item).is_ok_and(|item| is_error(&item));
            let status = if has_failed { FAILED } else { answer.status };
            let body = Bytes::copy_from_slice(item.as_bytes());
            return Ok(CallResponse { status, body });
        }
        if self.places.len() == self.sent {
            return Ok(answer);
        }
        let bytes: usize = self.places.iter().map(|place| items[*place].get().len() + 1).sum();
        if bytes as u64 > limit {
            return Err(Error::LargeAnswer(limit));
        }
        let all: Vec<&RawValue> = self.places.iter().map(|place| items[*place]).collect();
        let body = serde_json::to_vec(&all).map_err(|_| Error::WrongBatch { found: None, sent: self.sent })?;
        Ok(CallResponse { status: answer.status, body: body.into() })
    }
}

/// Whether an item of an answer says that it failed: `{"error": "text"}`.
pub fn is_error(item: &Value) -> bool {
    item.get("error").and_then(Value::as_str).is_some_and(|error| !error.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(params: &'static str) -> ItemBatch {
        ItemBatch::of(&Bytes::from_static(params.as_bytes())).unwrap()
    }

    fn answered(batch: &ItemBatch, body: &'static str) -> Result<(u32, String), String> {
        let answer = CallResponse { status: 200, body: Bytes::from_static(body.as_bytes()) };
        let answer = batch.answer(answer, 40).map_err(|error| error.to_string())?;
        Ok((answer.status, String::from_utf8(answer.body.to_vec()).unwrap()))
    }

    #[test]
    fn equal_items_go_once_and_are_answered_each() {
        let batch = of(r#"[{"id":1},{"id":2},{"id":1}]"#);
        assert_eq!(batch.params, r#"[{"id":1},{"id":2}]"#);
        assert_eq!(answered(&batch, r#"["a", {"error":"no"}]"#), Ok((200, r#"["a",{"error":"no"},"a"]"#.to_owned())));
        for (body, told) in [
            (r#"["a"]"#, "the function answered with 1 items, and was sent 2"),
            (r#"["a","b","c"]"#, "the function answered with 3 items, and was sent 2"),
            (r#"{"a":1}"#, "the function answered with no list, and was sent 2 items"),
        ] {
            assert_eq!(answered(&batch, body), Err(told.to_owned()));
        }
        let long = answered(&of("[1,1]"), r#"["0123456789012345678901234567890"]"#);
        assert!(long.unwrap_err().contains("over the limit"));
    }

    #[test]
    fn one_item_is_answered_alone() {
        let batch = of(r#" {"id":1}"#);
        assert_eq!(batch.params, r#"[{"id":1}]"#);
        assert_eq!(answered(&batch, r#"[{"a":1}]"#), Ok((200, r#"{"a":1}"#.to_owned())));
        assert_eq!(answered(&batch, r#"[{"error":"no"}]"#), Ok((500, r#"{"error":"no"}"#.to_owned())));
        assert_eq!(of("").params, "[null]");
    }

    #[test]
    fn a_list_is_bounded_and_may_be_empty() {
        assert_eq!(of("[]").answered().unwrap().body, "[]");
        assert!(of("[1]").answered().is_none());
        let many = Bytes::from(format!("[{}1]", "1,".repeat(ITEMS_MAX)));
        assert_eq!(
            ItemBatch::of(&many).unwrap_err().to_string(),
            "the list of 1001 parameters is over the limit of 1000"
        );
        assert!(ItemBatch::of(&Bytes::from_static(b"[1,")).is_err());
    }
}
