//! From an access and the rule that guards it to a grant.

use std::sync::Arc;

use proto::auth::{Access, TableAccess};
use query::{Filter, GrantTerms, Object, Operation};
use time::OffsetDateTime;

use crate::{
    condition::Condition,
    error::Error,
    eval::{self, Verdict},
    facts::Facts,
    rule::{Guard, Kind},
    state::Project,
    token,
};

/// How long a grant holds: longer than any request may take.
const GRANT_MS: i64 = 60_000;
const _: () = assert!(GRANT_MS > mesh::config::MAX_REQUEST_TIME.as_millis() as i64);

/// Whoever sent a request.
pub struct Caller<'a> {
    project: &'a Project,
    id: &'a str,
    token: &'a str,
    now: OffsetDateTime,
    claims: Option<Result<Arc<Object>, token::Error>>,
}

/// What rows a grant is for.
struct Rows {
    filter: Filter,
    check: Filter,
}

/// Why nothing is granted.
enum Refused {
    Token(token::Error),
    Rule(Option<String>),
}

impl<'a> Caller<'a> {
    /// Who sends `token` to the project called `id`.
    pub fn new(project: &'a Project, id: &'a str, token: &'a str, now: OffsetDateTime) -> Self {
        Self { project, id, token, now, claims: None }
    }

    /// The terms of the access, which is the request's `index`-th.
    pub fn terms(&mut self, access: Access, index: usize) -> Result<GrantTerms, Error> {
        let Access::Table(access) = access;
        let project = self.project;
        let guard = project.guards(&access.database, &access.table).and_then(|guards| guards.of(access.operation));
        match self.rows(guard, &access) {
            Ok((guard, rows)) => Ok(GrantTerms {
                project: self.id.to_owned(),
                operation: access.operation,
                database: access.database,
                table: access.table,
                filter: rows.filter,
                check: rows.check,
                columns: guard.columns.clone(),
                allow_all: guard.allow_all,
                expires_ms: milliseconds(self.now) + GRANT_MS,
            }),
            Err(Refused::Token(reason)) => Err(Error::Unauthenticated { reason, access: index }),
            Err(Refused::Rule(message)) => {
                // The same whether the table has a rule, has none, or does not exist.
                let TableAccess { database, table, operation, .. } = &access;
                let usual = || format!("{} of {database}.{table} is denied by the rules", operation.name());
                Err(Error::Denied { message: message.unwrap_or_else(usual), access: index })
            }
        }
    }

    fn rows<'g>(&mut self, guard: Option<&'g Guard>, access: &TableAccess) -> Result<(&'g Guard, Rows), Refused> {
        if let Some(guard) = guard.filter(|guard| matches!(guard.rule.kind, Kind::Allow)) {
            return Ok((guard, rows(access, guard, &self.facts(access, None))?));
        }
        match (guard, self.claims()) {
            (Some(guard), Ok(claims)) => Ok((guard, rows(access, guard, &self.facts(access, Some(&claims)))?)),
            (Some(guard), Err(reason)) if guard.anonymous => match rows(access, guard, &self.facts(access, None)) {
                Ok(rows) => Ok((guard, rows)),
                Err(_) => Err(Refused::Token(reason)),
            },
            (Some(_) | None, Err(reason)) => Err(Refused::Token(reason)),
            (None, Ok(_)) => Err(Refused::Rule(None)),
        }
    }

    /// Claims of the token, which is looked at when they are first asked for.
    fn claims(&mut self) -> Result<Arc<Object>, token::Error> {
        let Caller { project, token, now, .. } = self;
        self.claims.get_or_insert_with(|| project.keys.claims(token, now.unix_timestamp())).clone()
    }

    fn facts<'f>(&'f self, access: &'f TableAccess, claims: Option<&'f Object>) -> Facts<'f> {
        Facts {
            project: self.id,
            operation: access.operation,
            op: access.op,
            token: self.token,
            claims,
            find: access.find.as_ref(),
            doc: None,
            changes: &access.changes,
            limit: access.limit,
            skip: access.skip,
            now: self.now,
        }
    }
}

/// What the rows of an access must pass.
fn rows(access: &TableAccess, guard: &Guard, facts: &Facts<'_>) -> Result<Rows, Refused> {
    let (filter, check) = match access.operation {
        Operation::Create => (Filter::TRUE, stored(&access.docs, guard, facts)?),
        Operation::Read | Operation::Delete => (found(guard, facts)?, Filter::TRUE),
        Operation::Update => {
            let filter = found(guard, facts)?;
            let check = match &guard.with_check {
                Some(condition) => filled(Some(condition), facts)?,
                None => filter.clone(),
            };
            (filter, check)
        }
    };
    Ok(Rows { filter, check })
}

/// What a row must pass to be stored. The rule is asked for each document, and for an empty one where there is none; a
/// row must pass what one of them had to.
fn stored(docs: &[Object], guard: &Guard, facts: &Facts<'_>) -> Result<Filter, Refused> {
    let none = [Object::default()];
    let docs = if docs.is_empty() { &none[..] } else { docs };
    let mut conditions: Vec<Filter> = Vec::new();
    for doc in docs {
        let facts = Facts { doc: Some(doc), ..*facts };
        let condition = passed(guard, &facts)?.and(filled(guard.with_check.as_ref(), &facts)?);
        if condition.is_true() {
            conditions = vec![condition];
        } else if !conditions.contains(&condition) && !conditions.first().is_some_and(Filter::is_true) {
            conditions.push(condition);
        }
    }
    Ok(if conditions.len() == 1 { conditions.remove(0) } else { Filter::Or(conditions) })
}

/// Rows that are there for the caller.
fn found(guard: &Guard, facts: &Facts<'_>) -> Result<Filter, Refused> {
    Ok(passed(guard, facts)?.and(filled(guard.row_filter.as_ref(), facts)?))
}

fn passed(guard: &Guard, facts: &Facts<'_>) -> Result<Filter, Refused> {
    match eval::verdict(&guard.rule, facts) {
        Verdict::Where(filter) => Ok(filter),
        Verdict::Deny(error) => Err(Refused::Rule(error.map(str::to_owned))),
    }
}

fn filled(condition: Option<&Condition>, facts: &Facts<'_>) -> Result<Filter, Refused> {
    let Some(condition) = condition else { return Ok(Filter::TRUE) };
    condition.filter(facts).ok_or(Refused::Rule(None))
}

fn milliseconds(instant: OffsetDateTime) -> i64 {
    i64::try_from(instant.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX - GRANT_MS)
}
