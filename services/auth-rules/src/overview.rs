//! Overview of the rules in force: what they open, told before a request is made.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use mesh::resources::Snapshot;
use proto::json;
use query::{
    Columns, Guard, Object, Operation, Value,
    resources::{MatchMode, ProjectResource},
};
use serde_json::{Map, Value as Json};

use crate::{
    context::RequestContext,
    eval::{self, Verdict},
    operand::{ListOperand, Operand},
    path::Root,
    rule::{Kind, Match, Policy, Rule, Subject, Test, Type},
    table::{DEFAULT, OPERATIONS, TablePolicies, TableResource},
};

/// Guard of claims that are made here.
const CLAIM_LIMITS: Guard = Guard::new(32, 4096);

/// What the rules of a snapshot open.
pub struct Overview<'a> {
    tables: HashMap<(&'a str, &'a str, &'a str), &'a TablePolicies>,
    modes: HashMap<&'a str, MatchMode>,
}

/// A read of a table that its rule allows.
#[derive(Debug, PartialEq)]
pub struct AllowedRead {
    /// Columns that it may see.
    pub columns: Arc<Columns>,
    /// Claims of the token that it needs; `None` where it needs no token.
    pub claims: Option<Map<String, Json>>,
}

impl<'a> Overview<'a> {
    /// The rules of `snapshot`.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let tables = snapshot.of::<TableResource>().map(|(table, _)| {
            let meta = &table.meta;
            ((meta.project.as_str(), meta.database.as_str(), meta.id.as_str()), &table.policies)
        });
        let modes = snapshot
            .of::<ProjectResource>()
            .map(|(ProjectResource { meta, spec }, _)| (meta.id.as_str(), spec.security.match_mode));
        Self { tables: tables.collect(), modes: modes.collect() }
    }

    /// Whether some caller could be allowed some operation on the table.
    pub fn is_open(&self, project: &str, database: &str, table: &str) -> bool {
        OPERATIONS.into_iter().any(|operation| {
            let policy = self.policy(project, database, table, operation);
            policy.is_some_and(|policy| eval::is_passable(&policy.rule, operation))
        })
    }

    /// A read of the table that passes its rule, where one can be told.
    pub fn allowed_read(&self, project: &str, database: &str, table: &str) -> Option<AllowedRead> {
        let policy = self.policy(project, database, table, Operation::Read)?;
        let mode = *self.modes.get(project)?;
        let columns = policy.columns.clone();
        let is_public = matches!(policy.rule.kind, Kind::Allow) || policy.anonymous;
        if is_public && passes(policy, project, mode, None) {
            return Some(AllowedRead { columns, claims: None });
        }
        let claims = demanded_claims(&policy.rule);
        let Ok(Value::Object(parsed)) = json::parse(Json::from(claims.clone()).to_string().as_bytes(), CLAIM_LIMITS)
        else {
            return None;
        };
        passes(policy, project, mode, Some(&parsed)).then_some(AllowedRead { columns, claims: Some(claims) })
    }

    fn policy(&self, project: &str, database: &str, table: &str, operation: Operation) -> Option<&Policy> {
        let of = |table: &str| self.tables.get(&(project, database, table))?.of(operation);
        of(table).or_else(|| of(DEFAULT))
    }
}

/// Whether a read without a condition passes the policy.
fn passes(policy: &Policy, project: &str, mode: MatchMode, claims: Option<&Object>) -> bool {
    let stranger = RequestContext::of(project, mode, Operation::Read, SystemTime::now());
    let request = RequestContext { op: "all", claims, ..stranger };
    let has_rows = policy.row_filter.as_ref().is_none_or(|condition| condition.filter(&request).is_some());
    has_rows && matches!(eval::verdict(&policy.rule, &request), Verdict::Where(_))
}

/// Claims with which a caller is likely to pass the rule.
pub fn demanded_claims(rule: &Rule) -> Map<String, Json> {
    let mut claims = Map::new();
    demand(rule, &mut claims);
    if claims.is_empty() {
        claims.insert("id".to_owned(), 1.into());
    }
    claims
}

/// Adds claims with which a caller is likely to pass the rule.
fn demand(rule: &Rule, claims: &mut Map<String, Json>) {
    match &rule.kind {
        Kind::Allow | Kind::Authenticated | Kind::Deny | Kind::Not(_) | Kind::Func(_) => {}
        Kind::And(clauses) => clauses.iter().for_each(|clause| demand(clause, claims)),
        Kind::Or(clauses) => {
            let possible = clauses.iter().find(|clause| eval::is_passable(clause, Operation::Read));
            possible.into_iter().for_each(|clause| demand(clause, claims));
        }
        Kind::Match(matching) => demand_match(matching, claims),
    }
}

fn demand_match(Match { subject, r#type, test }: &Match, claims: &mut Map<String, Json>) {
    let usual = || match r#type {
        Type::String => Json::from("1"),
        Type::Number => Json::from(1),
        Type::Bool => Json::from(true),
        Type::Date => Json::from("2024-01-01"),
    };
    let literal = |operand: &Operand| match operand {
        Operand::Literal(Value::Text(text)) => Some(Json::from(text.as_str())),
        Operand::Literal(Value::Int(number)) => Some(Json::from(*number)),
        Operand::Literal(Value::Bool(flag)) => Some(Json::from(*flag)),
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => None,
    };
    let subject = match subject {
        Subject::Value(operand) => Some(operand),
        Subject::Column { .. } => None,
    };
    match test {
        Test::Compare(_, other) | Test::StartsWith(other) => {
            if let Some(subject) = subject {
                claim(subject, literal(other).unwrap_or_else(usual), claims);
            }
            claim(other, subject.and_then(literal).unwrap_or_else(usual), claims);
        }
        Test::In(ListOperand::Items(items)) => {
            if let Some(subject) = subject {
                claim(subject, items.first().and_then(literal).unwrap_or_else(usual), claims);
            }
        }
        Test::In(ListOperand::Reference(list)) => {
            claim(list, Json::from(vec![subject.and_then(literal).unwrap_or_else(usual)]), claims);
        }
        Test::NotIn(ListOperand::Reference(list)) => claim(list, Json::Array(Vec::new()), claims),
        Test::NotIn(ListOperand::Items(_)) | Test::IsNull | Test::Matches(_) => {
            subject.into_iter().for_each(|subject| claim(subject, usual(), claims));
        }
    }
}

/// Sets the claim that `operand` reads, unless it is set.
fn claim(operand: &Operand, value: Json, claims: &mut Map<String, Json>) {
    let Operand::Path(path) = operand else { return };
    let Some(names) = path.names().filter(|_| path.root == Root::Auth) else { return };
    let Some((last, above)) = names.split_last() else { return };
    let mut members = claims;
    for name in above {
        match members.entry(*name).or_insert_with(|| Json::Object(Map::new())) {
            Json::Object(inner) => members = inner,
            _ => return,
        }
    }
    members.entry(*last).or_insert(value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cases::{shop, snapshot};

    use super::*;

    /// Claims of the read that `rule` allows: `None` where none is known.
    fn claims(rule: Json) -> Option<Json> {
        let documents = snapshot(&shop(json!({ "rules": { "read": rule } })));
        let read = Overview::of(&documents).allowed_read("shop", "music", "t")?;
        Some(read.claims.map_or(Json::Null, Json::Object))
    }

    #[test]
    fn a_read_is_told_with_the_claims_that_its_rule_asks_for() {
        let role = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.auth.org.role", "f2": "staff"});
        let own =
            json!({"rule": "match", "type": "number", "eval": "==", "f1": "args.find.user", "f2": "args.auth.uid"});
        let one = json!({"rule": "match", "type": "string", "eval": "in", "f1": "args.auth.kind", "f2": ["a", "b"]});
        for (rule, expected) in [
            (json!({"rule": "allow"}), Some(json!(null))),
            (json!({"rule": "authenticated"}), Some(json!({"id": 1}))),
            (json!({"rule": "deny"}), None),
            (role.clone(), Some(json!({"org": {"role": "staff"}}))),
            (own.clone(), Some(json!({"uid": 1}))),
            (json!({"rule": "and", "clauses": [own, one]}), Some(json!({"uid": 1, "kind": "a"}))),
            (json!({"rule": "or", "clauses": [{"rule": "deny"}, role]}), Some(json!({"org": {"role": "staff"}}))),
            // Nobody is asked who has no token.
            (json!({"rule": "not", "clause": {"rule": "authenticated"}}), None),
            (json!({"rule": "allow", "rowFilter": {"owner": "args.auth.id"}}), Some(json!({"id": 1}))),
            (
                json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.op", "f2": "all"}),
                Some(json!({"id": 1})),
            ),
        ] {
            assert_eq!(claims(rule.clone()), expected, "{rule}");
        }
    }

    #[test]
    fn a_table_is_open_where_somebody_may_do_something() {
        let documents =
            snapshot(&shop(json!({ "rules": { "read": {"rule": "deny"}, "create": {"rule": "authenticated"} } })));
        let overview = Overview::of(&documents);
        assert!(overview.is_open("shop", "music", "t"));
        assert!(!overview.is_open("shop", "music", "other"));
        assert_eq!(overview.allowed_read("shop", "music", "t"), None);
    }
}
