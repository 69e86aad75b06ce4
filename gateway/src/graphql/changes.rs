//! Messages about changes of rows, written around the bytes that the databases' service wrote.

use proto::realtime::{Event, WatchResponse};

use super::{
    plan::{ChangeMember, ChangesPlan, Plan},
    response::json,
};
use crate::live::WatchedRows;

impl Plan {
    /// What a plan of changes watches; `None` for any other.
    pub fn watched(&self) -> Option<WatchedRows> {
        let (read, changes) = self.reads.first().zip(self.changes.as_deref())?;
        let ChangesPlan { before, skip_initial, after, .. } = changes;
        let (read, before, after) = (read.clone(), before.clone(), after.clone());
        Some(WatchedRows { read, before, skip_initial: *skip_initial, after })
    }

    /// The answer of a plan of changes that tells `message`.
    pub fn told(&self, message: &WatchResponse) -> Vec<u8> {
        match (self.fields.first(), &self.changes) {
            (Some(field), Some(changes)) => answer(&field.key, changes, message),
            _ => b"{}".to_vec(),
        }
    }
}

/// The answer that tells `message` as the member `key` of `data`.
fn answer(key: &str, plan: &ChangesPlan, message: &WatchResponse) -> Vec<u8> {
    let event = message.event.as_ref();
    let (row, reason) = match event {
        Some(Event::Initial(row) | Event::Insert(row) | Event::Update(row) | Event::Delete(row)) => (Some(row), None),
        Some(Event::Resync(resync)) => (None, Some(&resync.reason)),
        Some(Event::Ready(_)) | None => (None, None),
    };
    let size = row.map_or(0, |row| row.row.len() + row.before.len());
    let mut out = Vec::with_capacity(size + message.position.len() + 256);
    out.extend_from_slice(b"{\"data\":{");
    json(&mut out, key);
    out.extend_from_slice(b":{");
    for (index, (key, member)) in plan.members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json(&mut out, key);
        out.push(b':');
        match member {
            ChangeMember::Type => json(&mut out, event.map_or("READY", kind)),
            ChangeMember::Row => out.extend_from_slice(image(row.map(|row| &row.row[..]))),
            ChangeMember::Before => out.extend_from_slice(image(row.map(|row| &row.before[..]))),
            ChangeMember::Reason => match reason {
                Some(reason) => json(&mut out, reason),
                None => out.extend_from_slice(b"null"),
            },
            ChangeMember::Position => json(&mut out, &message.position),
            ChangeMember::Typename(name) => json(&mut out, name),
        }
    }
    out.extend_from_slice(b"}}}");
    out
}

/// The value of `ChangeType` for an event.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Initial(_) => "INITIAL",
        Event::Ready(_) => "READY",
        Event::Insert(_) => "INSERT",
        Event::Update(_) => "UPDATE",
        Event::Delete(_) => "DELETE",
        Event::Resync(_) => "RESYNC",
    }
}

/// JSON of an image, which may be none.
fn image(bytes: Option<&[u8]>) -> &[u8] {
    bytes.filter(|bytes| !bytes.is_empty()).unwrap_or(b"null")
}

#[cfg(test)]
mod tests {
    use proto::realtime::{Ready, Resync, Row};

    use super::*;

    #[test]
    fn a_message_has_what_is_selected() {
        let members = [
            ("t", ChangeMember::Type),
            ("row", ChangeMember::Row),
            ("before", ChangeMember::Before),
            ("reason", ChangeMember::Reason),
            ("position", ChangeMember::Position),
            ("__typename", ChangeMember::Typename("NoteChange".to_owned())),
        ];
        let members = members.map(|(key, member)| (key.to_owned(), member)).into();
        let plan = ChangesPlan { members, before: Vec::new(), skip_initial: false, after: String::new() };
        let row = Row { row: br#"{"id":1}"#.to_vec().into(), ..Row::default() };
        let changed = Row { before: br#"{"id":0}"#.to_vec().into(), ..row.clone() };
        for (event, told) in [
            (Event::Initial(row.clone()), r#""INITIAL","row":{"id":1},"before":null,"reason":null"#),
            (Event::Insert(row.clone()), r#""INSERT","row":{"id":1},"before":null,"reason":null"#),
            (Event::Update(changed), r#""UPDATE","row":{"id":1},"before":{"id":0},"reason":null"#),
            (Event::Delete(row), r#""DELETE","row":{"id":1},"before":null,"reason":null"#),
            (Event::Ready(Ready {}), r#""READY","row":null,"before":null,"reason":null"#),
            (
                Event::Resync(Resync { reason: "overflow".to_owned() }),
                r#""RESYNC","row":null,"before":null,"reason":"overflow""#,
            ),
        ] {
            let message = WatchResponse { position: "p".to_owned(), event: Some(event) };
            let answer = answer("c", &plan, &message);
            let expected = format!(r#"{{"data":{{"c":{{"t":{told},"position":"p","__typename":"NoteChange"}}}}}}"#);
            assert_eq!(String::from_utf8(answer).unwrap(), expected);
        }
    }
}
