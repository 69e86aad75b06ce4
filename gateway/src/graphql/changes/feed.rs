//! Messages of the dialect: one row each.

use crate::{
    graphql::{
        plan::{FeedMember, FeedPlan, PAYLOAD_TYPENAME},
        response::json,
    },
    live::{FeedKind, FeedRow},
};

/// The answer of the operation `id` that tells `row` as the member `key` of `data`.
pub fn answer(key: &str, plan: &FeedPlan, id: &str, row: &FeedRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.row.len() + row.key.len() + 256);
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
            FeedMember::Id => json(&mut out, id),
            FeedMember::Type => json(&mut out, row.kind.name()),
            FeedMember::Payload => payload(&mut out, plan, row),
            FeedMember::Find => out.extend_from_slice(&row.key),
            FeedMember::DocId => json(&mut out, &row.doc_id()),
            FeedMember::Time => json(&mut out, &row.time_ms),
            FeedMember::Group => json(&mut out, &plan.group),
            FeedMember::DbType => json(&mut out, &plan.db_type),
            FeedMember::Typename => json(&mut out, &format!("subscribe_{}", plan.group)),
        }
    }
    out.extend_from_slice(b"}}}");
    out
}

/// The row, which has the table's name; of one that is gone, its key with that name.
fn payload(out: &mut Vec<u8>, plan: &FeedPlan, row: &FeedRow) {
    if row.kind != FeedKind::Delete {
        return out.extend_from_slice(&row.row);
    }
    // A key has a column at least: see `RowFeed`.
    out.extend_from_slice(row.key.strip_suffix(b"}").unwrap_or(b"{"));
    out.push(b',');
    json(out, PAYLOAD_TYPENAME);
    out.push(b':');
    json(out, &plan.group);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_with_what_is_selected() {
        let members = [
            ("i", FeedMember::Id),
            ("type", FeedMember::Type),
            ("payload", FeedMember::Payload),
            ("find", FeedMember::Find),
            ("docId", FeedMember::DocId),
            ("time", FeedMember::Time),
            ("group", FeedMember::Group),
            ("dbType", FeedMember::DbType),
            ("__typename", FeedMember::Typename),
        ];
        let members = members.map(|(key, member)| (key.to_owned(), member)).into();
        let (group, db_type) = ("todos".to_owned(), "sql-db".to_owned());
        let plan = FeedPlan { members, group, db_type, key_columns: 1, skip_initial: false };
        for (kind, name, row, payload) in [
            (FeedKind::Update, "update", r#"{"n":1,"__typename":"todos"}"#, r#"{"n":1,"__typename":"todos"}"#),
            (FeedKind::Delete, "delete", r#"{"id":"t1"}"#, r#"{"id":"t1","__typename":"todos"}"#),
        ] {
            let row = FeedRow { kind, row: row.into(), key: r#"{"id":"t1"}"#.into(), time_ms: 7 };
            let expected = format!(
                r#"{{"data":{{"t":{{"i":"1","type":"{name}","payload":{payload},"find":{{"id":"t1"}},"docId":"t1","time":7,"group":"todos","dbType":"sql-db","__typename":"subscribe_todos"}}}}}}"#
            );
            assert_eq!(String::from_utf8(answer("t", &plan, "1", &row)).unwrap(), expected);
        }
    }
}
