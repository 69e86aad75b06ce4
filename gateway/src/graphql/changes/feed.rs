//! Messages of the dialect: one row each.

use super::only_member;
use crate::{
    graphql::{
        plan::{FeedMember, FeedPlan, PAYLOAD_TYPENAME},
        response::json,
    },
    live::{FeedKind, FeedRow},
};

/// The answer of the operation `id` that tells `row` as the member `key` of `data`.
pub fn answer(key: &str, plan: &FeedPlan, id: &str, row: &FeedRow) -> Vec<u8> {
    only_member(key, &plan.members, row.row.len() + row.key.len(), |out, member| match member {
        FeedMember::Id => json(out, id),
        FeedMember::Type => json(out, row.kind.name()),
        FeedMember::Payload => payload(out, plan, row),
        FeedMember::Find => out.extend_from_slice(&row.key),
        FeedMember::DocId => json(out, &row.doc_id()),
        FeedMember::Time => json(out, &row.time_ms),
        FeedMember::Group => json(out, &plan.group),
        FeedMember::DbType => json(out, &plan.db_type),
        FeedMember::Typename => json(out, &format!("subscribe_{}", plan.group)),
    })
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
