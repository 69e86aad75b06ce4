//! What the grants of a policy depend on.

use std::{collections::BTreeSet, sync::Arc};

use proto::auth::RelationPath;
use query::Operation;

use super::{Condition, Kind, Rule, Subject};
use crate::{
    column_path::ColumnPath,
    operand::Operand,
    path::{Path, Root, Step},
};

/// Whether a grant for `operation` by this rule and these conditions is the same for all requests of a caller.
///
/// A create is checked against its documents, and a comparison with a column needs the client's condition.
pub fn is_on_claims_only(operation: Operation, rule: &Rule, conditions: [Option<&Condition>; 2]) -> bool {
    operation != Operation::Create && is_rule(rule) && conditions.into_iter().flatten().all(is_condition)
}

/// Whether the outcome of the rule depends on a value under `root`.
pub fn depends_on(rule: &Rule, root: Root) -> bool {
    match &rule.kind {
        Kind::Allow | Kind::Authenticated | Kind::Deny => false,
        Kind::And(rules) | Kind::Or(rules) => rules.iter().any(|rule| depends_on(rule, root)),
        Kind::Not(rule) => depends_on(rule, root),
        // It is told all of the request.
        Kind::Func(_) => true,
        Kind::Match(matching) => {
            let is_subject = match &matching.subject {
                Subject::Value(operand) => operand.depends_on(root),
                Subject::Column { .. } => root == Root::Find,
            };
            is_subject || matching.test.operands().iter().any(|operand| operand.depends_on(root))
        }
    }
}

/// Whether the rule asks a function.
pub fn asks(rule: &Rule) -> bool {
    match &rule.kind {
        Kind::Allow | Kind::Authenticated | Kind::Deny | Kind::Match(_) => false,
        Kind::Func(_) => true,
        Kind::And(rules) | Kind::Or(rules) => rules.iter().any(asks),
        Kind::Not(rule) => asks(rule),
    }
}

fn is_rule(rule: &Rule) -> bool {
    match &rule.kind {
        Kind::Func(_) => false,
        Kind::Allow | Kind::Authenticated | Kind::Deny => true,
        Kind::And(rules) | Kind::Or(rules) => rules.iter().all(is_rule),
        Kind::Not(rule) => is_rule(rule),
        Kind::Match(matching) => match &matching.subject {
            Subject::Value(operand) => is_operand(operand) && matching.test.operands().iter().all(is_operand),
            Subject::Column { .. } => false,
        },
    }
}

fn is_condition(condition: &Condition) -> bool {
    match condition {
        Condition::And(conditions) | Condition::Or(conditions) => conditions.iter().all(is_condition),
        Condition::Column(_, predicate) => predicate.operands().iter().all(is_operand),
    }
}

/// How this rule and these conditions reach other tables, in order; `None` where they look at their own alone.
pub fn relations(rule: &Rule, conditions: [Option<&Condition>; 2]) -> Option<Arc<[RelationPath]>> {
    let mut columns = Vec::new();
    rule_columns(rule, &mut columns);
    conditions.into_iter().flatten().for_each(|condition| condition_columns(condition, &mut columns));
    let paths: BTreeSet<&RelationPath> = columns.into_iter().map(|column| &column.relations).collect();
    let paths: Vec<RelationPath> = paths.into_iter().filter(|path| !path.is_empty()).cloned().collect();
    (!paths.is_empty()).then(|| paths.into())
}

fn rule_columns<'r>(rule: &'r Rule, columns: &mut Vec<&'r ColumnPath>) {
    match &rule.kind {
        Kind::Allow | Kind::Authenticated | Kind::Deny | Kind::Func(_) => {}
        Kind::And(rules) | Kind::Or(rules) => rules.iter().for_each(|rule| rule_columns(rule, columns)),
        Kind::Not(rule) => rule_columns(rule, columns),
        Kind::Match(matching) => match &matching.subject {
            Subject::Value(_) => {}
            Subject::Column { column, .. } => columns.push(column),
        },
    }
}

fn condition_columns<'r>(condition: &'r Condition, columns: &mut Vec<&'r ColumnPath>) {
    match condition {
        Condition::And(conditions) | Condition::Or(conditions) => {
            conditions.iter().for_each(|condition| condition_columns(condition, columns));
        }
        Condition::Column(column, _) => columns.push(column),
    }
}

/// Helpers are not worth it: most are about the time of the request.
fn is_operand(operand: &Operand) -> bool {
    match operand {
        Operand::Literal(_) => true,
        Operand::Path(path) => is_path(path),
        Operand::Helper(_) => false,
    }
}

fn is_path(path: &Path) -> bool {
    let is_step = |step: &Step| match step {
        Step::Name(_) => true,
        Step::Value(path) => is_path(path),
    };
    path.root == Root::Auth && path.steps.iter().all(is_step)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::depends_on;
    use crate::{
        path::{Root, Scope},
        rule::Parser,
    };
    use query::{Columns, Operation};

    fn roots(scope: Scope, rule: &Json) -> Vec<Root> {
        let policy = Parser::default().policy_in(scope, rule, "spec").expect("it is sound");
        let all = [Root::Auth, Root::Find, Root::Doc, Root::Params, Root::Size];
        all.into_iter().filter(|root| depends_on(&policy.rule, *root)).collect()
    }

    #[test]
    fn a_rule_depends_on_what_its_comparisons_name() {
        let equal = |f1: &str, f2: &str| json!({"rule": "match", "type": "string", "eval": "==", "f1": f1, "f2": f2});
        let owner = || equal("args.find.owner", "args.auth.id");
        for (rule, expected) in [
            (json!({"rule": "authenticated"}), &[][..]),
            (equal("args.auth.id", "ann"), &[Root::Auth]),
            (owner(), &[Root::Auth, Root::Find]),
            (json!({"rule": "not", "clause": owner()}), &[Root::Auth, Root::Find]),
            (json!({"rule": "or", "clauses": [{"rule": "deny"}, equal("args.doc.a", "b")]}), &[Root::Doc]),
        ] {
            assert_eq!(roots(Scope::Tables, &rule), expected, "{rule}");
        }
        let asking = json!({"rule": "func", "service": "mail", "func": "may"});
        assert_eq!(roots(Scope::Functions, &asking).len(), 5, "it is told all of the request");
    }

    fn depends_on_claims_only(operation: Operation, policy: Json) -> bool {
        let mut parser = Parser::default();
        let parsed = parser.policy(&policy, operation, None, &Columns::default());
        parsed.unwrap_or_else(|| panic!("{policy}: {:?}", parser.errors)).depends_on_claims_only
    }

    fn role() -> Json {
        json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "user"})
    }

    #[test]
    fn rules_and_conditions_on_claims_depend_on_nothing_else() {
        let listed = json!({"rule": "match", "type": "string", "eval": "in", "f1": "args.auth.role", "f2": ["a", "args.auth.id"]});
        let other = json!({"rule": "match", "type": "string", "eval": "in", "f1": "x", "f2": "args.auth.groups"});
        let filtered =
            json!({"rule": "authenticated", "rowFilter": {"org": {"$in": "args.auth.orgs"}, "deleted": null}});
        for policy in [
            json!({"rule": "allow"}),
            json!({"rule": "authenticated"}),
            role(),
            listed.clone(),
            other.clone(),
            json!({"rule": "and", "clauses": [role(), {"rule": "or", "clauses": [listed, other]}]}),
            filtered,
        ] {
            assert!(depends_on_claims_only(Operation::Read, policy.clone()), "{policy}");
            assert!(depends_on_claims_only(Operation::Delete, policy.clone()), "{policy}");
        }
        assert!(!depends_on_claims_only(Operation::Create, role()));
    }

    #[test]
    fn tables_that_a_policy_looks_at_are_named_once() {
        let relations = |policy: Json| {
            let mut parser = Parser::default();
            let parsed = parser.policy(&policy, Operation::Read, None, &Columns::default());
            parsed.unwrap_or_else(|| panic!("{policy}: {:?}", parser.errors)).relations
        };
        let column = |path: &str| json!({"rule": "match", "type": "string", "eval": "==", "f1": format!("args.find.{path}"), "f2": "args.auth.id"});
        assert_eq!(relations(json!({"rule": "allow"})), None);
        assert_eq!(relations(column("owner")), None);
        let policy = json!({
            "rule": "or",
            "clauses": [
                column("owner"),
                {"rule": "not", "clause": column("team.name")},
                {"rule": "and", "clauses": [column("team.lead.name"), column("team.id"), role()]},
            ],
            "rowFilter": {"$or": [{"shop.city": "args.auth.city"}, {"$and": [{"deleted": null}]}]},
        });
        let found = relations(policy).expect("it looks at other tables");
        assert_eq!(*found, [vec!["shop"], vec!["team"], vec!["team", "lead"]]);
    }

    #[test]
    fn whatever_reads_the_request_depends_on_it() {
        let matching =
            |f1: &str, f2: &str| json!({"rule": "match", "type": "string", "eval": "==", "f1": f1, "f2": f2});
        for policy in [
            matching("args.op", "one"),
            matching("args.find.owner", "args.auth.id"),
            matching("args.auth.id", "args.find.owner"),
            matching("args.auth.teams[args.op]", "x"),
            matching("utils.now()", "args.auth.until"),
            matching("args.token", "x"),
            json!({"rule": "and", "clauses": [role(), matching("args.op", "one")]}),
            json!({"rule": "or", "clauses": [matching("args.op", "one"), role()]}),
            json!({"rule": "allow", "rowFilter": {"$or": [{"a": "args.auth.id"}, {"b": "args.op"}]}}),
            json!({"rule": "allow", "rowFilter": {"a": {"$in": ["x", "args.op"]}}}),
        ] {
            assert!(!depends_on_claims_only(Operation::Read, policy.clone()), "{policy}");
        }
        let checked = json!({"rule": "allow", "withCheck": {"a": {"$gt": "args.op"}}});
        assert!(!depends_on_claims_only(Operation::Update, checked));
    }
}
