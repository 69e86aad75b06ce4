//! Explanations of refusals: the clauses of a rule that deny a request, and why.
//!
//! They tell values of the request and the rules themselves, so they are for development only.

use query::{
    Comparison, Operation, Value,
    file::{FileOperation, FilePath},
    resources::MatchMode,
};
use serde_json::Value as Json;

use crate::{
    constraint::Constraint,
    context::RequestContext,
    eval::{self, Verdict},
    operand::{Helper, ListOperand, Operand},
    overview::demanded_claims,
    questions::AskedFunction,
    rule::{Kind, Match, Policy, Rule, Subject, Test},
    token::TokenError,
};

/// Most clauses that one explanation names.
const MAX_CLAUSES: usize = 8;
/// Most characters of a value in an explanation.
const MAX_VALUE_CHARS: usize = 40;

/// The reason of a refusal.
pub enum Refusal {
    /// The caller's token.
    Token(TokenError),
    /// The rule, with its own text if it has one.
    Rule(Option<String>),
    /// A row condition, by its key, for which the request lacks a value.
    Condition(&'static str),
}

/// Why `policy` refuses the request on a table, given as database and name; `token_options` are those of `perigee token`
/// that fit this node.
pub fn refusal(
    refusal: &Refusal,
    policy: Option<&Policy>,
    (database, table): (&str, &str),
    request: &RequestContext<'_>,
    token_options: &str,
) -> String {
    let operation = request.operation.name();
    let Some(policy) = policy else {
        return format!(
            "no document has a rule for {operation} of table {table} of database {database}, nor does the one of \
             table default; {operation}: {{ rule: allow }} would allow it to everybody"
        );
    };
    let path = format!("spec.rules.{operation}");
    let denials = match refusal {
        Refusal::Condition(key) => format!("{path}.{key} compares with a value that the request does not have"),
        Refusal::Token(_) | Refusal::Rule(_) => denials(&policy.rule, path, request),
    };
    let mut text = format!("{}: {denials}", policy.place);
    if matches!(refusal, Refusal::Token(_)) {
        match eval::is_passable(&policy.rule, request.operation) {
            true => text.push_str(&token_hint(policy, request.project, token_options)),
            false => text.push_str("; no token helps"),
        }
    }
    text
}

/// As [`refusal`], of a request on a file: of its bucket, by its path.
pub fn file_refusal(
    refusal: &Refusal,
    policy: Option<&Policy>,
    (bucket, operation, path): (&str, FileOperation, &FilePath),
    request: &RequestContext<'_>,
    token_options: &str,
) -> String {
    let operation = operation.name();
    let Some(policy) = policy else {
        return format!(
            "the most specific prefix of {path} among the rules of bucket {bucket} has none for {operation}; \
             {{ prefix: {path}, {operation}: {{ rule: allow }} }} would allow it to everybody"
        );
    };
    placed(refusal, policy, request, token_options)
}

/// As [`refusal`], of a call of a function of a service.
pub fn call_refusal(
    refusal: &Refusal,
    policy: Option<&Policy>,
    (service, function): (&str, &str),
    request: &RequestContext<'_>,
    token_options: &str,
) -> String {
    let Some(policy) = policy else {
        return format!(
            "no document of kind service has a rule for function {function} of service {service}, nor a default; \
             {function}: {{ rule: {{ rule: allow }} }} would allow it to everybody"
        );
    };
    placed(refusal, policy, request, token_options)
}

/// The clauses of a policy that deny, with its place.
pub fn placed(refusal: &Refusal, policy: &Policy, request: &RequestContext<'_>, token_options: &str) -> String {
    let rule = policy.place.rsplit(' ').next().unwrap_or_default();
    let mut text = format!("{}: {}", policy.place, denials(&policy.rule, rule.to_owned(), request));
    if matches!(refusal, Refusal::Token(_)) {
        text.push_str(&token_hint(policy, request.project, token_options));
    }
    text
}

/// The command that prints a token with which a caller is likely to pass.
fn token_hint(policy: &Policy, project: &str, token_options: &str) -> String {
    let claims = Json::from(demanded_claims(&policy.rule));
    format!("; `perigee token {project} '{claims}'{token_options}` prints a token")
}

/// The clauses that deny, each by its path and what it asks.
fn denials(rule: &Rule, path: String, request: &RequestContext<'_>) -> String {
    let mut found = Vec::new();
    collect(rule, path.clone(), request, &mut found);
    if found.is_empty() {
        // The rule would pass, but nobody may ask it without a valid token.
        return format!(
            "{path} asks for a valid token, as every rule but an outermost allow, unless it has anonymous: true"
        );
    }
    let more = found.len().saturating_sub(MAX_CLAUSES);
    found.truncate(MAX_CLAUSES);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{}{more}", found.join(", "))
}

fn collect(rule: &Rule, path: String, request: &RequestContext<'_>, found: &mut Vec<String>) {
    if matches!(eval::verdict(rule, request), Verdict::Where(_)) {
        return;
    }
    let clause = |index: usize| format!("{path}.clauses.{index}");
    match &rule.kind {
        // The first clause that denies decides.
        Kind::And(clauses) => {
            for (index, inner) in clauses.iter().enumerate() {
                let before = found.len();
                collect(inner, clause(index), request, found);
                if found.len() > before {
                    return;
                }
            }
        }
        Kind::Or(clauses) => {
            clauses.iter().enumerate().for_each(|(index, inner)| collect(inner, clause(index), request, found));
        }
        Kind::Allow => {}
        Kind::Deny => found.push(format!("{path} is deny")),
        Kind::Authenticated => found.push(format!("{path} is authenticated")),
        Kind::Not(_) => found.push(format!("{path} negates a rule that passes, or that lacks a value of the request")),
        Kind::Func(AskedFunction { service, function }) => {
            found.push(format!("{path} asks function {function} of service {service}, which does not acknowledge it"));
        }
        Kind::Match(matching) => found.push(format!("{path} wants {}", comparison(matching, request))),
    }
}

/// What a comparison asks, and what the request has.
fn comparison(matching: &Match, request: &RequestContext<'_>) -> String {
    let subject = match &matching.subject {
        Subject::Value(operand) => operand_text(operand),
        Subject::Column { column, .. } => format!("args.find.{}", column.names().join(".")),
    };
    let (operator, other) = test(&matching.test);
    let mut text = format!("{subject} {operator}");
    if let Some(other) = &other {
        text.push_str(&format!(" {other}"));
    }
    let mut values = Vec::new();
    match &matching.subject {
        Subject::Value(operand) => values.extend(value_of(operand, request)),
        Subject::Column { .. } if request.operation == Operation::Create => {
            values.push("args.find has no value in a create: args.doc has".to_owned());
        }
        Subject::Column { column, mode } => {
            let is_asked = match mode.unwrap_or(request.mode) {
                MatchMode::Filter => false,
                MatchMode::Auto => request.operation != Operation::Read,
                MatchMode::Check => true,
            };
            let names = column.names();
            if is_asked && request.constraint(&names) == Constraint::None {
                values.push(format!("the condition of the request does not name {}", names.join(".")));
            }
        }
    }
    if let Test::Compare(_, operand)
    | Test::StartsWith(operand)
    | Test::In(ListOperand::Reference(operand))
    | Test::NotIn(ListOperand::Reference(operand)) = &matching.test
    {
        values.extend(value_of(operand, request));
    }
    match values.is_empty() {
        true => text,
        false => format!("{text} ({})", values.join(", ")),
    }
}

/// The operator as rules write it, and its right side.
fn test(test: &Test) -> (&'static str, Option<String>) {
    let list = |list: &ListOperand| match list {
        ListOperand::Items(items) => format!("[{}]", items.iter().map(operand_text).collect::<Vec<_>>().join(", ")),
        ListOperand::Reference(operand) => operand_text(operand),
    };
    match test {
        Test::Compare(comparison, operand) => {
            let operator = match comparison {
                Comparison::Eq => "==",
                Comparison::Ne => "!=",
                Comparison::Gt => ">",
                Comparison::Gte => ">=",
                Comparison::Lt => "<",
                Comparison::Lte => "<=",
            };
            (operator, Some(operand_text(operand)))
        }
        Test::In(items) => ("in", Some(list(items))),
        Test::NotIn(items) => ("notIn", Some(list(items))),
        Test::IsNull => ("isNull", None),
        Test::StartsWith(operand) => ("startsWith", Some(operand_text(operand))),
        Test::Matches(regex) => ("matches", Some(format!("{:?}", regex.as_str()))),
    }
}

/// The operand as rules write it.
fn operand_text(operand: &Operand) -> String {
    match operand {
        Operand::Literal(value) => value_text(value),
        Operand::Path(path) => path.to_string(),
        Operand::Helper(Helper::Exists(path)) => format!("utils.exists({path})"),
        Operand::Helper(Helper::Length(of)) => format!("utils.length({})", operand_text(of)),
        Operand::Helper(Helper::Now) => "utils.now()".to_owned(),
        Operand::Helper(Helper::AddDuration(of, _)) => format!("utils.addDuration({}, …)", operand_text(of)),
        Operand::Helper(Helper::RoundUpDate(of, _)) => format!("utils.roundUpDate({}, …)", operand_text(of)),
    }
}

/// The value of an operand that depends on the request.
fn value_of(operand: &Operand, request: &RequestContext<'_>) -> Option<String> {
    if matches!(operand, Operand::Literal(_)) {
        return None;
    }
    let name = operand_text(operand);
    Some(match request.value(operand) {
        Some(_) if name.starts_with("args.token") => format!("{name} is another"),
        Some(value) => format!("{name} is {}", value_text(&value)),
        None => format!("{name} has no value"),
    })
}

fn value_text(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Number(text) => text.clone(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("a list of {} items", items.len()),
        Value::Object(members) => format!("an object of {} members", members.0.len()),
    };
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use mesh::Fault;
    use proto::auth::{Access, AuthorizeRequest, TableAccess};
    use query::{Document, Filter, Typed};
    use serde_json::json;

    use crate::cases::{developing, now, shop, snapshot, token};

    use super::*;

    /// The text of the refusal to read table `t`.
    fn refused(rules: Json, token: &str, find: Option<Filter>) -> String {
        refused_access(rules, token, TableAccess { find, ..TableAccess::new("music", "t", Operation::Read) })
    }

    fn refused_access(rules: Json, token: &str, access: TableAccess) -> String {
        let documents = snapshot(&shop(json!({ "rules": rules })));
        let accesses = vec![Access::Table(access)];
        let request = AuthorizeRequest { project: "shop".into(), token: token.into(), accesses };
        Fault::from(developing(&documents).authorize(request, now()).unwrap_err()).message
    }

    fn role(role: &str) -> Json {
        json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": role})
    }

    #[test]
    fn a_refusal_names_the_clauses_that_deny() {
        let user = token(&json!({"id": 1, "role": "user"}));
        let or = json!({"read": {"rule": "or", "clauses": [role("staff"), {"rule": "and", "clauses": [
            {"rule": "authenticated"}, {"rule": "match", "type": "number", "eval": ">", "f1": "args.auth.level", "f2": 2},
        ]}]}});
        assert_eq!(
            refused(or, &user, None),
            "read of music.t is denied by the rules; inline:5: spec.rules.read.clauses.0 wants args.auth.role == \
             \"staff\" (args.auth.role is \"user\"), spec.rules.read.clauses.1.clauses.1 wants args.auth.level > 2 \
             (args.auth.level has no value)"
        );
        let own = json!({"read": {"rule": "deny", "error": "closed for repairs"}});
        assert_eq!(refused(own, &user, None), "closed for repairs; inline:5: spec.rules.read is deny");
        let check = json!({"read": {"rule": "match", "mode": "check", "type": "number", "eval": "==",
            "f1": "args.find.owner", "f2": "args.auth.id"}});
        assert_eq!(
            refused(check, &user, None),
            "read of music.t is denied by the rules; inline:5: spec.rules.read wants args.find.owner == args.auth.id \
             (the condition of the request does not name owner, args.auth.id is 1)"
        );
        let filter = json!({"read": {"rule": "authenticated", "rowFilter": {"org": "args.auth.org"}}});
        assert!(
            refused(filter, &user, None)
                .ends_with("spec.rules.read.rowFilter compares with a value that the request does not have")
        );
    }

    #[test]
    fn the_first_clause_of_an_and_that_denies_is_told_and_so_many_of_an_or() {
        let user = token(&json!({"id": 1, "role": "user"}));
        let both = json!({"rule": "and", "clauses": [role("staff"), {"rule": "deny"}]});
        let text = refused(json!({"read": both}), &user, None);
        assert!(text.contains("spec.rules.read.clauses.0 wants") && !text.contains("clauses.1"), "{text}");
        let or = |count: usize| json!({"read": {"rule": "or", "clauses": vec![json!({"rule": "deny"}); count]}});
        let text = refused(or(MAX_CLAUSES), &user, None);
        assert!(text.ends_with("spec.rules.read.clauses.7 is deny"), "{text}");
        let text = refused(or(MAX_CLAUSES + 2), &user, None);
        assert!(text.ends_with("spec.rules.read.clauses.7 is deny, and 2 more"), "{text}");
    }

    #[test]
    fn a_comparison_with_a_column_tells_what_the_request_lacks() {
        let user = token(&json!({"id": 1}));
        let owner = |mode: &str| json!({"rule": "match", "mode": mode, "type": "number", "eval": "==", "f1": "args.find.owner", "f2": "args.auth.uid"});
        let of = |operation: Operation, mode: &str, find: Option<Filter>| {
            let access = TableAccess { find, ..TableAccess::new("music", "t", operation) };
            refused_access(json!({ operation.name(): owner(mode) }), &user, access)
        };
        let unnamed = "(the condition of the request does not name owner, args.auth.uid has no value)";
        let valueless = "(args.auth.uid has no value)";
        let named = || {
            let (column, value) = ("owner".to_owned(), Typed::Int(1));
            Some(Filter::Compare { column, comparison: Comparison::Eq, value })
        };
        for (operation, mode, find, expected) in [
            (Operation::Read, "auto", None, valueless),
            (Operation::Read, "filter", None, valueless),
            (Operation::Read, "check", None, unnamed),
            (Operation::Update, "auto", None, unnamed),
            (Operation::Update, "filter", None, valueless),
            (Operation::Update, "check", named(), valueless),
            (
                Operation::Create,
                "auto",
                None,
                "(args.find has no value in a create: args.doc has, args.auth.uid has no value)",
            ),
        ] {
            let text = of(operation, mode, find);
            assert!(text.ends_with(&format!("wants args.find.owner == args.auth.uid {expected}")), "{text}");
        }
    }

    #[test]
    fn a_token_is_not_told() {
        let user = token(&json!({"id": 1}));
        let rule = json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.token", "f2": "x"});
        let text = refused(json!({ "read": rule }), &user, None);
        assert!(text.ends_with("wants args.token == \"x\" (args.token is another)"), "{text}");
    }

    #[test]
    fn a_refused_insert_is_explained_by_the_first_document_that_is_denied() {
        let owner = |id: &str| Document(vec![("owner".to_owned(), Typed::Text(id.to_owned()))]);
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.doc.owner", "f2": "args.auth.id"});
        let docs = vec![owner("u1"), owner("u2"), owner("u3")].into();
        let access = TableAccess { docs, ..TableAccess::new("music", "t", Operation::Create) };
        let text = refused_access(json!({ "create": rule }), &token(&json!({"id": "u1"})), access);
        assert!(text.contains("(args.doc.owner is \"u2\", args.auth.id is \"u1\")"), "{text}");
    }

    #[test]
    fn a_token_helps_where_the_rule_can_pass_for_the_operation() {
        let equal = |f1: &str| json!({"rule": "match", "type": "string", "eval": "==", "f1": f1, "f2": "args.auth.id"});
        for (operation, subject, helps) in [
            (Operation::Create, "args.find.owner", false),
            (Operation::Create, "args.doc.owner", true),
            (Operation::Read, "args.find.owner", true),
            (Operation::Delete, "args.find.owner", true),
        ] {
            let rules = json!({operation.name(): equal(subject)});
            let text = refused_access(rules, "", TableAccess::new("music", "t", operation));
            assert_eq!(text.contains("prints a token"), helps, "{text}");
            assert_eq!(text.ends_with("no token helps"), !helps, "{text}");
        }
    }

    #[test]
    fn a_table_without_a_rule_is_told_as_such() {
        let user = token(&json!({"id": 1}));
        let text = refused(json!({}), &user, None);
        assert!(text.contains("; no document has a rule for read of table t of database music"), "{text}");
    }

    #[test]
    fn a_missing_token_is_told_with_the_way_to_one() {
        assert_eq!(
            refused(json!({"read": role("staff")}), "", None),
            "a token is needed, and none was sent; inline:5: spec.rules.read wants args.auth.role == \"staff\" \
             (args.auth.role has no value); `perigee token shop '{\"role\":\"staff\"}' --dir there` prints a token"
        );
        assert!(
            refused(json!({"read": {"rule": "deny"}}), "", None).ends_with("spec.rules.read is deny; no token helps")
        );
        let or = json!({"read": {"rule": "or", "clauses": [{"rule": "allow"}, {"rule": "deny"}]}});
        assert!(refused(or, "", None).contains("spec.rules.read asks for a valid token"));
    }
}
