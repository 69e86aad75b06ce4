//! The RPCs.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use mesh::{Mesh, Tasks, resources::Current, seal::Sealer};
use prost::Message;
use proto::auth::v1::{
    Access, AuthorizeRequest, AuthorizeResponse, Grant as WireGrant, ReachableRequest, ReachableResponse,
    ReachableTable, SealedGrant, auth_rules_server::AuthRules,
};
use query::{Change, Columns, Filter, Grant, Object, Operation};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    config::Config,
    error::Error,
    eval::{self, Verdict},
    facts::Facts,
    rule::{Guard, Kind},
    state::{Project, State},
    table::OPERATIONS,
    token,
};

/// How long a grant holds: longer than any request may take.
const GRANT_MS: i64 = 60_000;

/// Who may do what.
#[derive(Clone)]
pub struct Service {
    state: Arc<ArcSwap<State>>,
    sealer: Sealer,
}

impl Service {
    /// Starts with the resources in force, and follows them.
    pub fn start(mesh: Mesh, config: Config, current: Current, sealer: Sealer, tasks: Tasks) -> Self {
        let mut current = current;
        let snapshot = current.borrow_and_update().clone();
        let first = State::new(&snapshot, config.dev_keys.as_deref(), &State::default());
        let state = Arc::new(ArcSwap::from_pointee(first));
        let service = Self { state: state.clone(), sealer };
        let stop = tasks.stop().clone();
        tasks.spawn("auth-rules: follow resources", async move {
            stop.run_until_cancelled(follow(state, config.dev_keys, current)).await;
        });
        mesh.board().set("service auth-rules", mesh::State::Ready);
        service
    }

    /// A service over a state that nobody follows.
    #[cfg(test)]
    pub(crate) fn of(state: Arc<ArcSwap<State>>, sealer: Sealer) -> Self {
        Self { state, sealer }
    }

    /// Grants for all accesses of a request, asked at `now`; the first that is denied denies it.
    pub fn authorize(&self, request: AuthorizeRequest, now: OffsetDateTime) -> Result<AuthorizeResponse, Error> {
        let state = self.state.load();
        let AuthorizeRequest { project: id, token, accesses } = request;
        let project = state.project(&id).ok_or_else(|| Error::UnknownProject(id.clone()))?;
        let mut caller = Caller { project, id: &id, token: &token, now, claims: None };
        let mut grants = Vec::with_capacity(accesses.len());
        for (index, access) in accesses.into_iter().enumerate() {
            let grant = caller.grant(access, index)?;
            grants.push(self.sealed(grant));
        }
        Ok(AuthorizeResponse { grants })
    }

    fn sealed(&self, grant: Grant) -> SealedGrant {
        let grant = WireGrant::from(grant).encode_to_vec();
        let seal = self.sealer.seal(&grant).to_vec();
        SealedGrant { grant: grant.into(), seal: seal.into() }
    }

    /// Operations that the rules allow somebody.
    pub fn reachable(&self, request: &ReachableRequest) -> Result<ReachableResponse, Error> {
        let state = self.state.load();
        let id = &request.project;
        let project = state.project(id).ok_or_else(|| Error::UnknownProject(id.clone()))?;
        let mut tables = Vec::new();
        for (database, table, guards) in project.tables() {
            let possible = |operation: &Operation| {
                guards.of(*operation).is_some_and(|guard| eval::is_possible(&guard.rule, *operation))
            };
            let operations: Vec<i32> = OPERATIONS.into_iter().filter(possible).map(i32::from).collect();
            if !operations.is_empty() {
                tables.push(ReachableTable { database: database.to_owned(), table: table.to_owned(), operations });
            }
        }
        Ok(ReachableResponse { tables })
    }
}

/// Puts each new snapshot in force.
async fn follow(state: Arc<ArcSwap<State>>, dev_keys: Option<PathBuf>, mut current: Current) {
    while current.changed().await.is_ok() {
        let snapshot = current.borrow_and_update().clone();
        let next = State::new(&snapshot, dev_keys.as_deref(), &state.load());
        state.store(Arc::new(next));
    }
}

/// Whoever sent a request.
struct Caller<'a> {
    project: &'a Project,
    id: &'a str,
    token: &'a str,
    now: OffsetDateTime,
    claims: Option<Result<Arc<Object>, token::Error>>,
}

impl Caller<'_> {
    fn grant(&mut self, access: Access, index: usize) -> Result<Grant, Error> {
        let operation = Operation::try_from(access.operation)?;
        let asked = Asked {
            operation,
            op: access.op,
            find: access.find.map(Filter::try_from).transpose()?,
            docs: access.docs.into_iter().map(Object::try_from).collect::<Result<_, _>>()?,
            changes: access.changes.into_iter().map(Change::try_from).collect::<Result<_, _>>()?,
            limit: access.limit,
            skip: access.skip,
        };
        let project = self.project;
        let guard = project.guards(&access.database, &access.table).and_then(|guards| guards.of(operation));
        let condition = match guard {
            Some(guard) if matches!(guard.rule.kind, Kind::Allow) => Ok(Filter::TRUE),
            Some(guard) if guard.anonymous => {
                let claims = self.claims();
                asked.condition(guard, self.facts(&asked, claims.as_deref().ok())).map_err(|error| match claims {
                    Err(reason) => Refused::Token(reason),
                    Ok(_) => error,
                })
            }
            Some(guard) => match self.claims() {
                Ok(claims) => asked.condition(guard, self.facts(&asked, Some(&claims))),
                Err(reason) => Err(Refused::Token(reason)),
            },
            None => match self.claims() {
                Ok(_) => Err(Refused::Rule(None)),
                Err(reason) => Err(Refused::Token(reason)),
            },
        };
        let (database, table) = (access.database, access.table);
        let condition = condition.map_err(|refused| match refused {
            Refused::Token(reason) => Error::Unauthenticated { reason, access: index },
            Refused::Rule(Some(message)) => Error::Denied { message, access: index },
            Refused::Rule(None) => {
                // The same whether the table has a rule, has none, or does not exist.
                let message = format!("{} of {database}.{table} is denied by the rules", operation.name());
                Error::Denied { message, access: index }
            }
        })?;
        let (filter, check) = match operation {
            Operation::Create => (Filter::TRUE, condition),
            Operation::Update => (condition.clone(), condition),
            Operation::Read | Operation::Delete => (condition, Filter::TRUE),
        };
        Ok(Grant {
            project: self.id.to_owned(),
            database,
            table,
            operation,
            filter,
            check,
            columns: guard.map_or_else(Columns::default, |guard| guard.columns.clone()),
            allow_all: guard.is_some_and(|guard| guard.allow_all),
            expires_ms: millis(self.now) + GRANT_MS,
        })
    }

    /// Claims of the token, which is looked at when they are first asked for.
    fn claims(&mut self) -> Result<Arc<Object>, token::Error> {
        let Caller { project, token, now, .. } = self;
        self.claims.get_or_insert_with(|| project.keys.claims(token, now.unix_timestamp())).clone()
    }

    fn facts<'a>(&'a self, asked: &'a Asked, claims: Option<&'a Object>) -> Facts<'a> {
        Facts {
            project: self.id,
            operation: asked.operation,
            op: &asked.op,
            token: self.token,
            claims,
            find: asked.find.as_ref(),
            doc: None,
            changes: &asked.changes,
            limit: asked.limit,
            skip: asked.skip,
            now: self.now,
        }
    }
}

/// What a caller wants of one table.
struct Asked {
    operation: Operation,
    op: String,
    find: Option<Filter>,
    docs: Vec<Object>,
    changes: Vec<Change>,
    limit: Option<u64>,
    skip: Option<u64>,
}

/// Why it is not granted.
enum Refused {
    Token(token::Error),
    Rule(Option<String>),
}

impl Asked {
    /// What rows must pass. A create asks the rule for each document: a row must pass what one of them had to.
    fn condition(&self, guard: &Guard, facts: Facts<'_>) -> Result<Filter, Refused> {
        let ask = |facts: &Facts<'_>| match eval::verdict(&guard.rule, facts) {
            Verdict::Where(filter) => Ok(filter),
            Verdict::Deny(error) => Err(Refused::Rule(error.map(str::to_owned))),
        };
        if self.operation != Operation::Create {
            return ask(&facts);
        }
        let none = [Object::default()];
        let docs = if self.docs.is_empty() { &none[..] } else { &self.docs };
        let mut conditions: Vec<Filter> = Vec::new();
        for doc in docs {
            let condition = ask(&Facts { doc: Some(doc), ..facts })?;
            if !conditions.contains(&condition) {
                conditions.push(condition);
            }
        }
        if conditions.iter().any(Filter::is_true) {
            return Ok(Filter::TRUE);
        }
        Ok(if conditions.len() == 1 { conditions.remove(0) } else { Filter::Or(conditions) })
    }
}

fn millis(instant: OffsetDateTime) -> i64 {
    i64::try_from(instant.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX - GRANT_MS)
}

#[tonic::async_trait]
impl AuthRules for Service {
    async fn authorize(&self, request: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        let response = Service::authorize(self, request.into_inner(), OffsetDateTime::now_utc())?;
        Ok(Response::new(response))
    }

    async fn reachable(&self, request: Request<ReachableRequest>) -> Result<Response<ReachableResponse>, Status> {
        let response = Service::reachable(self, request.get_ref())?;
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests;
