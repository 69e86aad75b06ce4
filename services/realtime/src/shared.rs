//! What all watches share.

use mesh::{Call, Mesh, Tasks};
use proto::{grant::Verifier, realtime::WatchRequest};
use tokio::sync::Semaphore;

use crate::{
    Config, Error, access::Authorizer, feed::Feeds, memory::RowMemory, plan::Plan, position::Signer, rights::Rights,
    rules::Rules, schemas::Schemas,
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
    /// Memory for rows that wait to be told.
    pub memory: RowMemory,
    /// Bytes of JSON that the rows of a table may have together.
    pub answer_bytes: u64,
    /// Turns to read.
    pub reads: Semaphore,
    authorizer: Authorizer,
}

impl Shared {
    /// Over `mesh`; `verifier` reads the grants of the rule engine.
    pub fn new(mesh: Mesh, config: &Config, verifier: Verifier, tasks: &Tasks) -> Self {
        Self {
            authorizer: Authorizer::new(mesh.clone(), verifier),
            schemas: Schemas::new(mesh.clone()),
            feeds: Feeds::new(mesh.clone(), tasks.clone()),
            rules: Rules::follow(&mesh, tasks),
            signer: Signer::new(&config.position_secret),
            memory: RowMemory::new(config.waiting_bytes),
            answer_bytes: config.answer_bytes,
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
