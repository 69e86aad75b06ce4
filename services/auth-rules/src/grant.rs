//! Authorization: from an access and its policy to a grant.

use std::{sync::Arc, time::SystemTime};

use proto::{
    auth::{Access, ReachableTable, RuleRelations, TableAccess},
    grant::{Grant, Signer},
};
use query::{Document, GrantTerms, Object, Operation, RuleFilter};

use crate::{
    config::Development,
    context::RequestContext,
    error::Error,
    eval::{self, Verdict},
    explain::{self, Refusal},
    grant_cache::REUSE_MS,
    policy_set::ProjectPolicies,
    questions::Questions,
    rule::Condition,
    rule::{Kind, Policy},
    table::OPERATIONS,
    token::{TokenError, VerifiedToken},
};

/// Lifetime of a grant: longer than any request may take, when it is given out for the last time.
pub const GRANT_LIFETIME_MS: i64 = 60_000;
const _: () = assert!(GRANT_LIFETIME_MS - REUSE_MS > mesh::config::MAX_REQUEST_TIME.as_millis() as i64);

/// The caller of a request, whose token is verified when a policy first needs its claims.
pub struct Caller<'a> {
    pub(crate) project: &'a ProjectPolicies,
    pub(crate) id: &'a str,
    pub(crate) token: &'a str,
    pub(crate) now: SystemTime,
    /// [`Self::now`] since the Unix epoch.
    pub(crate) now_ms: i64,
    verified: Option<Result<Arc<VerifiedToken>, TokenError>>,
    pub(crate) development: Option<&'a Development>,
    /// Questions of rules to functions; `None` where none can be asked.
    pub(crate) questions: Option<&'a Questions>,
}

/// The row conditions of a grant: SQL's `USING` and `WITH CHECK`.
struct RowConditions {
    filter: RuleFilter,
    check: RuleFilter,
}

impl<'a> Caller<'a> {
    /// The sender of `token` to the project `id`.
    ///
    /// In `development`, errors explain themselves.
    pub fn new(
        project: &'a ProjectPolicies,
        id: &'a str,
        token: &'a str,
        now: SystemTime,
        development: Option<&'a Development>,
    ) -> Self {
        Self {
            project,
            id,
            token,
            now,
            now_ms: mesh::clock::unix_ms(now),
            verified: None,
            development,
            questions: None,
        }
    }

    /// Whoever has signed with the access key `id`, instead of the sender of a token.
    pub fn with_access_key(self, id: &str) -> Self {
        let known = self.project.access_keys.get(id).cloned();
        Self { verified: Some(known.ok_or(TokenError::AccessKey)), ..self }
    }

    /// A grant for the access, and what its rule looks at besides the table; `index` is its position in the request.
    pub fn grant(
        &mut self,
        access: Access,
        index: usize,
        signer: &Signer,
    ) -> Result<(Grant, Option<RuleRelations>), Error> {
        let Access::Table(access) = access;
        let project = self.project;
        let policy = project.table(&access.database, &access.table).and_then(|policies| policies.of(access.operation));
        let paths = policy.and_then(|policy| policy.relations.clone());
        let relations = paths.map(|paths| RuleRelations { access: index, paths });
        Ok((self.signed(access, policy, index, signer)?, relations))
    }

    fn signed(
        &mut self,
        access: TableAccess,
        policy: Option<&Policy>,
        index: usize,
        signer: &Signer,
    ) -> Result<Grant, Error> {
        let Some((policy, verified)) = policy.and_then(|policy| Some((policy, self.cache_owner(policy)?))) else {
            return Ok(signer.grant(self.terms(access, policy, index)?));
        };
        let now_ms = self.now_ms;
        if let Some(grant) = verified.grants.get(policy.id, &access, now_ms) {
            return Ok(grant);
        }
        let key = TableAccess::new(&access.database, &access.table, access.operation);
        let grant = signer.grant(self.terms(access, Some(policy), index)?);
        verified.grants.keep(policy.id, &key, &grant, now_ms);
        Ok(grant)
    }

    /// Milliseconds since the Unix epoch from which the token is no longer valid, where it was looked at and expires.
    pub fn token_expires_ms(&self) -> Option<i64> {
        let verified = self.verified.as_ref()?.as_ref().ok()?;
        verified.expires().map(|second| second.saturating_mul(1000))
    }

    /// The token that keeps grants by the policy: a valid one, where they depend on nothing else.
    fn cache_owner(&mut self, policy: &Policy) -> Option<Arc<VerifiedToken>> {
        // An outermost `allow` does not look at the token.
        let is_kept = policy.depends_on_claims_only && !matches!(policy.rule.kind, Kind::Allow);
        if is_kept { self.verified().ok() } else { None }
    }

    fn terms(&mut self, access: TableAccess, policy: Option<&Policy>, index: usize) -> Result<GrantTerms, Error> {
        match self.row_conditions(policy, &access) {
            Ok((policy, rows)) => Ok(GrantTerms {
                project: self.id.to_owned(),
                operation: access.operation,
                database: access.database.as_ref().to_owned(),
                table: access.table,
                filter: rows.filter,
                check: rows.check,
                columns: policy.columns.clone(),
                allow_all: policy.allow_all,
                expires_ms: self.now_ms + GRANT_LIFETIME_MS,
            }),
            Err(refusal) => Err(self.refused(refusal, policy, &access, index)),
        }
    }

    /// What the caller could be allowed by some request, for each table with policies of its own and each default.
    /// Errors: the token is not valid.
    pub fn reach(&mut self) -> Result<Vec<ReachableTable>, TokenError> {
        let verified = if self.token.is_empty() { None } else { Some(self.verified()?) };
        let tables = self.project.tables().into_iter();
        let tables = tables.map(|(database, table, policies)| {
            let reached = |operation: Operation| {
                let access = TableAccess::new(database, table, operation);
                let policy = policies.of(operation)?;
                let claims = verified.as_ref().map(|verified| &verified.claims);
                let is_reached = eval::is_satisfiable(policy, &self.context(&access, claims));
                is_reached.then(|| (operation, policy.columns.clone()))
            };
            let operations = OPERATIONS.into_iter().filter_map(reached).collect();
            ReachableTable { database: database.to_owned(), table: table.to_owned(), operations }
        });
        Ok(tables.collect())
    }

    fn refused(&mut self, refusal: Refusal, policy: Option<&Policy>, access: &TableAccess, index: usize) -> Error {
        let explanation = match self.development {
            Some(development) => {
                let verified = self.verified().ok();
                let context = self.context(access, verified.as_ref().map(|verified| &verified.claims));
                let is_denied = |doc: &&Document| {
                    let request = RequestContext { doc: Some(doc), ..context };
                    policy.is_some_and(|policy| rule_filter(policy, &request).is_err())
                };
                let doc = access.docs.iter().find(is_denied).or(access.docs.first());
                let context = RequestContext { doc, ..context };
                let table = (&*access.database, access.table.as_str());
                format!("; {}", explain::refusal(&refusal, policy, table, &context, &development.token_options))
            }
            None => String::new(),
        };
        let own = match refusal {
            Refusal::Token(reason) => return Error::Unauthenticated { reason, explanation, access: index },
            Refusal::Rule(own) => own,
            Refusal::Condition(_) => None,
        };
        // One text whether the table has a rule, has none, or does not exist: it must not disclose which.
        let TableAccess { database, table, operation, .. } = access;
        let default_text = || format!("{} of {database}.{table} is denied by the rules", operation.name());
        Error::Denied { message: own.unwrap_or_else(default_text), explanation, access: index }
    }

    fn row_conditions<'g>(
        &mut self,
        policy: Option<&'g Policy>,
        access: &TableAccess,
    ) -> Result<(&'g Policy, RowConditions), Refusal> {
        if let Some(policy) = policy.filter(|policy| matches!(policy.rule.kind, Kind::Allow)) {
            return Ok((policy, row_conditions(access, policy, &self.context(access, None))?));
        }
        match (policy, self.verified()) {
            (Some(policy), Ok(verified)) => {
                Ok((policy, row_conditions(access, policy, &self.context(access, Some(&verified.claims)))?))
            }
            (Some(policy), Err(reason)) if policy.anonymous => {
                match row_conditions(access, policy, &self.context(access, None)) {
                    Ok(rows) => Ok((policy, rows)),
                    Err(_) => Err(Refusal::Token(reason)),
                }
            }
            (Some(_) | None, Err(reason)) => Err(Refusal::Token(reason)),
            (None, Ok(_)) => Err(Refusal::Rule(None)),
        }
    }

    /// The token, which is verified on the first call only.
    pub(crate) fn verified(&mut self) -> Result<Arc<VerifiedToken>, TokenError> {
        let Caller { project, token, now_ms, .. } = self;
        self.verified.get_or_insert_with(|| project.keys.verified(token, *now_ms / 1000)).clone()
    }

    fn context<'f>(&'f self, access: &'f TableAccess, claims: Option<&'f Object>) -> RequestContext<'f> {
        RequestContext {
            op: access.op,
            token: self.token,
            claims,
            find: access.find.as_ref(),
            changes: &access.changes,
            limit: access.limit,
            skip: access.skip,
            questions: self.questions,
            ..RequestContext::of(self.id, self.project.mode, access.operation, self.now)
        }
    }
}

/// The conditions on rows that the access reads or changes, and on rows that it stores.
fn row_conditions(
    access: &TableAccess,
    policy: &Policy,
    request: &RequestContext<'_>,
) -> Result<RowConditions, Refusal> {
    let (filter, check) = match access.operation {
        Operation::Create => (RuleFilter::TRUE, stored_check(&access.docs, policy, request)?),
        Operation::Read | Operation::Delete => (row_filter(policy, request)?, RuleFilter::TRUE),
        Operation::Update => {
            let filter = row_filter(policy, request)?;
            let check = match &policy.with_check {
                Some(condition) => condition_filter(Some(condition), "withCheck", request)?,
                None => filter.clone(),
            };
            (filter, check)
        }
    };
    Ok(RowConditions { filter, check })
}

/// The check on stored rows: the rule is evaluated for each document, or an empty one where there is none, and a row must
/// pass the check of one of them.
fn stored_check(docs: &[Document], policy: &Policy, request: &RequestContext<'_>) -> Result<RuleFilter, Refusal> {
    let empty = [Document::default()];
    let docs = if docs.is_empty() { &empty[..] } else { docs };
    let mut conditions: Vec<RuleFilter> = Vec::new();
    for doc in docs {
        let request = RequestContext { doc: Some(doc), ..*request };
        let condition =
            rule_filter(policy, &request)?.and(condition_filter(policy.with_check.as_ref(), "withCheck", &request)?);
        if condition.is_true() {
            conditions = vec![condition];
        } else if !conditions.contains(&condition) && !conditions.first().is_some_and(RuleFilter::is_true) {
            conditions.push(condition);
        }
    }
    Ok(if conditions.len() == 1 { conditions.remove(0) } else { RuleFilter::Or(conditions) })
}

/// The filter of rows that are visible to the caller.
fn row_filter(policy: &Policy, request: &RequestContext<'_>) -> Result<RuleFilter, Refusal> {
    Ok(rule_filter(policy, request)?.and(condition_filter(policy.row_filter.as_ref(), "rowFilter", request)?))
}

/// The filter of the rule's verdict.
fn rule_filter(policy: &Policy, request: &RequestContext<'_>) -> Result<RuleFilter, Refusal> {
    match eval::verdict(&policy.rule, request) {
        Verdict::Where(filter) => Ok(filter),
        Verdict::Deny(error) => Err(Refusal::Rule(error.map(str::to_owned))),
    }
}

/// The condition with the values of the request; true where there is none.
fn condition_filter(
    condition: Option<&Condition>,
    key: &'static str,
    request: &RequestContext<'_>,
) -> Result<RuleFilter, Refusal> {
    let Some(condition) = condition else { return Ok(RuleFilter::TRUE) };
    condition.filter(request).ok_or(Refusal::Condition(key))
}
