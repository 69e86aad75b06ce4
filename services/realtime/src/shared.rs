//! What all watches share.

use mesh::{Call, Mesh, Tasks};
use proto::{grant::Verifier, realtime::WatchRequest};
use tokio::sync::Semaphore;

use crate::{
    Error, access::Authorizer, feed::Feeds, plan::Plan, position::Signer, rights::Rights, rules::Rules,
    schemas::Schemas,
};

/// Reads at once for all watches.
const READS_MAX: usize = 64;

/// What all watches share.
pub struct Shared {
    /// The other services.
    pub mesh: Mesh,
    /// Schemas of databases.
    pub schemas: Schemas,
    /// What logs tell.
    pub feeds: Feeds,
    /// Changes of rules.
    pub rules: Rules,
    /// Signs positions.
    pub signer: Signer,
    /// Turns to read.
    pub reads: Semaphore,
    authorizer: Authorizer,
}

impl Shared {
    /// Over `mesh`; positions are signed with `position_secret`, and `verifier` reads the grants of the rule engine.
    pub fn new(mesh: Mesh, position_secret: &[u8], verifier: Verifier, tasks: &Tasks) -> Self {
        Self {
            authorizer: Authorizer::new(mesh.clone(), verifier),
            schemas: Schemas::new(mesh.clone()),
            feeds: Feeds::new(mesh.clone(), tasks.clone()),
            rules: Rules::follow(&mesh, tasks),
            signer: Signer::new(position_secret),
            reads: Semaphore::new(READS_MAX),
            mesh,
        }
    }

    /// The rights of the caller of a watch.
    pub async fn rights(&self, call: &Call, plan: &Plan) -> Result<Rights, Error> {
        let WatchRequest { project, token, read, .. } = &plan.request;
        let granted = self.authorizer.authorize(call, (project, token), &plan.schema, read).await?;
        Rights::of(plan, granted)
    }
}
