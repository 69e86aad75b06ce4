//! What allows a caller to listen: asked again when the token expires or is renewed, and when rules are edited.

use std::{sync::Arc, time::Duration};

use mesh::{Code, Fault, clock, follow::Retries};
use tokio::{sync::watch, time::Instant};

use crate::{
    catalogue::Project,
    edge::{Edge, StreamPermission},
};

/// How long after an edit it is asked once more: rules may be in force there a little later than here.
const EDIT_TIME: Duration = Duration::from_secs(1);
/// Interval of questions about a token that has expired by the clock here, and is valid still.
const EXPIRED_INTERVAL: Duration = Duration::from_secs(1);
/// Back-off after a question that nobody could answer.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The rights of one caller to one stream.
pub struct Rights {
    edge: Edge,
    project: Arc<str>,
    /// The version of the project for which they were asked; `None` where it was gone.
    version: Option<u64>,
    /// Told when a project is another.
    projects: watch::Receiver<()>,
    permission: StreamPermission,
    /// The token, whenever it is renewed.
    token: watch::Receiver<Arc<str>>,
    /// When the token expires.
    expires: Option<Instant>,
    /// When they are asked again in any case.
    again: Option<Instant>,
    retries: Retries,
}

impl Rights {
    /// Those that a stream has begun with.
    pub fn new(edge: &Edge, project: &Project, permission: StreamPermission, token: watch::Receiver<Arc<str>>) -> Self {
        Self {
            projects: edge.project_changes(),
            edge: edge.clone(),
            project: project.id.clone(),
            version: Some(project.version),
            token,
            expires: permission.token_expires_ms.and_then(clock::instant),
            permission,
            again: None,
            retries: Retries::new(RETRY_FIRST, RETRY_MAX),
        }
    }

    /// Why the caller may listen no more; waits until then.
    pub async fn lost(&mut self) -> Fault {
        loop {
            self.changed().await;
            if let Err(fault) = self.check().await {
                return fault;
            }
        }
    }

    /// Waits until they may be others.
    async fn changed(&mut self) {
        let edited = self.edge.edited(&self.project, self.version, &mut self.projects);
        let next = [self.expires, self.again].into_iter().flatten().min();
        tokio::select! {
            () = edited => self.again = Some(Instant::now() + EDIT_TIME),
            // Nobody can renew the token any more where its sender is gone.
            Ok(()) = self.token.changed() => {}
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.again = None,
        }
    }

    /// Errors: the caller may not, or nobody could be asked for too long.
    async fn check(&mut self) -> Result<(), Fault> {
        let token = self.token.borrow_and_update().clone();
        self.version = self.edge.version(&self.project);
        match self.edge.permit_again(&mut self.permission, &token).await {
            Ok(()) => {
                self.retries.succeeded();
                let expires = self.permission.token_expires_ms.and_then(clock::instant);
                self.expires = expires.map(|expires| expires.max(Instant::now() + EXPIRED_INTERVAL));
                Ok(())
            }
            Err(fault) if matches!(fault.code, Code::Unavailable | Code::Deadline) => {
                let wait = self.retries.failed().ok_or(fault)?;
                self.again = Some(Instant::now() + wait);
                // It is asked again sooner.
                self.expires = self.expires.map(|expires| expires.max(Instant::now() + EXPIRED_INTERVAL));
                Ok(())
            }
            Err(fault) if fault.code == Code::Unauthenticated && self.permission.token_expires_ms.is_some() => {
                Err(Fault::new(Code::TokenExpired, "the token of the call has expired"))
            }
            Err(fault) => Err(fault),
        }
    }
}
