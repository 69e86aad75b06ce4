//! What a caller may see of a table: the grant of the rule engine, in the form of the table's columns.

use std::sync::Arc;

use mesh::{Call, Fault, Mesh, clock};
use proto::{
    Links,
    auth::{Access, AuthorizeRequest, RuleRelations, TableAccess},
    grant::{Grant, Verifier},
};
use query::{GrantTerms, Read, Schema, read_accesses};
use tokio::time::Instant;

use crate::Error;

/// Grants for one read.
pub struct Granted {
    /// In the order of the accesses of the read.
    pub grants: Vec<Grant>,
    /// Their terms.
    pub terms: Vec<Arc<GrantTerms>>,
    /// What their rules look at besides.
    pub relations: Vec<RuleRelations>,
    /// When the token is no longer valid, where that was looked at.
    pub token_expires: Option<Instant>,
}

impl Granted {
    /// The terms for the watched table, the first of the accesses.
    pub fn own(&self) -> Result<&GrantTerms, Error> {
        self.terms.first().map(Arc::as_ref).ok_or_else(|| Error::Unreadable("no grant".to_owned()))
    }
}

/// Asks the rule engine.
#[derive(Clone)]
pub struct Authorizer {
    mesh: Mesh,
    verifier: Verifier,
}

impl Authorizer {
    /// Over `mesh`; `verifier` reads its grants.
    pub fn new(mesh: Mesh, verifier: Verifier) -> Self {
        Self { mesh, verifier }
    }

    /// Grants for all that `read` accesses.
    pub async fn authorize(
        &self,
        call: &Call,
        (project, token): (&Arc<str>, &Arc<str>),
        schema: &Schema,
        read: &Read,
    ) -> Result<Granted, Error> {
        let database = read.database.clone();
        let accesses = read_accesses(schema, read)?.into_iter();
        let accesses: Vec<Access> = accesses.map(|access| Access::Table(TableAccess::of(&database, access))).collect();
        let wanted = accesses.len();
        let request = AuthorizeRequest { project: project.clone(), token: token.clone(), accesses };
        let answer = self.mesh.auth_rules().authorize(call, request).await?;
        if answer.grants.len() != wanted {
            let cause = format!("{} grants for {wanted} accesses", answer.grants.len());
            return Err(Fault::internal("the watch could not be authorised", cause).into());
        }
        let terms = answer.grants.iter().map(|grant| self.verifier.terms(grant.clone())).collect::<Result<_, _>>()?;
        let token_expires = answer.token_expires_ms.and_then(clock::instant);
        Ok(Granted { grants: answer.grants, terms, relations: answer.relations, token_expires })
    }
}
