//! Messages about changes of rows, written around the bytes that the databases' service wrote.

mod feed;

use mesh::Fault;
use proto::realtime::{Event, WatchResponse};

use super::{
    plan::{ChangeMember, ChangesPlan, Plan, RowChanges},
    response::json,
};
use crate::{
    catalogue::Project,
    live::{FeedMessage, FeedOptions, Hold, InitialRows, LiveQueries, RowFeed, Subscriber, Watch, WatchedRows},
};

/// Answers of a subscription to the changes of rows.
pub enum ChangeAnswers {
    /// In the form of the published schema.
    Typed(Watch),
    /// In that of the dialect.
    Dialect(RowFeed),
}

impl ChangeAnswers {
    /// Begins to follow what `plan` watches; `hold` counts what is known of its rows. Errors: as of a watch.
    pub async fn begin(
        live: &LiveQueries,
        project: &Project,
        (plan, rows): (&Plan, WatchedRows),
        subscriber: Subscriber,
        hold: Hold,
    ) -> Result<Self, Fault> {
        let watch = Box::pin(live.watch(project, rows, subscriber)).await?;
        Ok(match plan.changes.as_deref() {
            Some(RowChanges::Dialect(feed)) => {
                let initial = if feed.skip_initial { InitialRows::Skipped } else { InitialRows::Told };
                let options = FeedOptions { key_columns: feed.key_columns, initial };
                Self::Dialect(RowFeed::new(watch, options, hold))
            }
            Some(RowChanges::Typed(_)) | None => Self::Typed(watch),
        })
    }

    /// The next answer of the operation that its client calls `id`. An error ends it. Cancel safe.
    pub async fn next(&mut self, plan: &Plan, id: &str) -> Result<Vec<u8>, Fault> {
        loop {
            match (&mut *self, plan.changes.as_deref()) {
                (Self::Dialect(feed), Some(RowChanges::Dialect(plan_of))) => {
                    if let FeedMessage::Row(row) = feed.next().await? {
                        return Ok(feed::answer(plan.key(), plan_of, id, &row));
                    }
                }
                (Self::Typed(watch), Some(RowChanges::Typed(plan_of))) => {
                    let message = watch.next().await?;
                    return Ok(answer(plan.key(), plan_of, &message));
                }
                _ => return Err(Fault::internal("the answer could not be made", "another plan is followed")),
            }
        }
    }
}

impl Plan {
    /// What a plan of changes watches; `None` for any other.
    pub fn watched(&self) -> Option<WatchedRows> {
        let (read, changes) = self.reads.first().zip(self.changes.as_deref())?;
        let read = read.clone();
        Some(match changes {
            RowChanges::Typed(ChangesPlan { before, skip_initial, after, .. }) => {
                WatchedRows { read, before: before.clone(), skip_initial: *skip_initial, after: after.clone() }
            }
            RowChanges::Dialect(_) => RowFeed::watched(read),
        })
    }

    /// The response key of its only field.
    fn key(&self) -> &str {
        self.fields.first().map_or("", |field| &field.key)
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
    only_member(key, &plan.members, size + message.position.len(), |out, member| match member {
        ChangeMember::Type => json(out, event.map_or("READY", kind)),
        ChangeMember::Row => out.extend_from_slice(image(row.map(|row| &row.row[..]))),
        ChangeMember::Before => out.extend_from_slice(image(row.map(|row| &row.before[..]))),
        ChangeMember::Reason => match reason {
            Some(reason) => json(out, reason),
            None => out.extend_from_slice(b"null"),
        },
        ChangeMember::Position => json(out, &message.position),
        ChangeMember::Typename(name) => json(out, name),
    })
}

/// The answer whose `data` has the only member `key`, an object with these members. `write` writes their values, of about
/// `size` bytes.
fn only_member<M>(key: &str, members: &[(String, M)], size: usize, write: impl Fn(&mut Vec<u8>, &M)) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(b"{\"data\":{");
    json(&mut out, key);
    out.extend_from_slice(b":{");
    for (index, (key, member)) in members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json(&mut out, key);
        out.push(b':');
        write(&mut out, member);
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
