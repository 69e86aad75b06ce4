//! Files of a project, as one caller may use them: what HTTP and gRPC have in common.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use http::Extensions;
use mesh::{Fault, listener::Connection};
use proto::auth::{FileAccess, FileVerdict, SignedGrant, WireFileOperation};
use query::file::FileOperation;

use super::target::FileTarget;
use crate::{
    Service,
    catalogue::{Project, ProjectRef},
    edge::{Caller, Credential},
    http::guarded,
};

/// The files of a project, for one caller.
pub(crate) struct ProjectFiles {
    /// The gateway.
    pub(crate) service: Service,
    /// Who asks.
    pub(crate) caller: Caller,
    /// Whose files.
    pub(crate) project: Arc<Project>,
    /// What the caller shows for it.
    pub(super) credential: Credential,
    /// Where the caller is.
    pub(super) peer: Option<IpAddr>,
    /// Buckets in which the request was counted.
    pub(super) counted: Mutex<Vec<String>>,
}

/// Where the caller of a request is.
pub(crate) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Arc<Connection>>().map(|connection| connection.peer.ip())
}

impl ProjectFiles {
    /// The files of the project called `id`, for a caller at `peer`. Errors: it is not known.
    pub(crate) async fn of(service: &Service, caller: Caller, id: &str, peer: Option<IpAddr>) -> Result<Self, Fault> {
        let project = match service.edge().settings(id) {
            Some(project) => project,
            // For its error.
            None => service.edge().project(&caller, ProjectRef::from(id)).await?,
        };
        let (service, counted) = (service.clone(), Mutex::default());
        Ok(Self { service, caller, project, credential: Credential::Token, peer, counted })
    }

    /// Runs `work` within the time of a request: only streams of files take longer.
    pub(crate) fn within_time<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, Fault>> + Send + 'a,
    ) -> impl Future<Output = Result<T, Fault>> + Send + 'a {
        let time = self.service.config().time(&self.project.spec);
        let mut call = self.caller.call.clone();
        let end = Instant::now() + time;
        call.deadline = Some(call.deadline.map_or(end, |own| own.min(end)));
        // In a box, and so a pointer to those that wait for it.
        let mut work = Box::pin(work);
        async move { guarded(&call, work.as_mut()).await? }
    }

    /// Verdicts on accesses: of the signature of the address where there is one, else of the rules.
    pub(super) async fn verdicts(&self, accesses: Vec<FileAccess>, each: bool) -> Result<Vec<FileVerdict>, Fault> {
        let mut buckets: Vec<String> = accesses.iter().map(|access| access.bucket.clone()).collect();
        buckets.dedup();
        let edge = self.service.edge();
        let verdicts = edge.file_verdicts(&self.caller, &self.project, (accesses, each), &self.credential).await?;
        self.count_request(&buckets).await?;
        Ok(verdicts)
    }

    /// The verdict on one access, which is allowed. Errors: it is denied.
    pub(super) async fn allowed(&self, access: FileAccess) -> Result<FileVerdict, Fault> {
        let verdicts = self.verdicts(vec![access], false).await?;
        let verdict = verdicts.into_iter().next();
        verdict.ok_or_else(|| Fault::internal("the request could not be authorised", "no verdict on an access"))
    }

    /// The grant for one access. Errors: it is denied.
    pub(super) async fn grant(&self, access: FileAccess) -> Result<Option<SignedGrant>, Fault> {
        Ok(self.allowed(access).await?.grant)
    }
}

/// An access that writes nothing.
pub(super) fn access(target: &FileTarget, operation: FileOperation) -> FileAccess {
    FileAccess {
        bucket: target.bucket.id.clone(),
        operation: WireFileOperation::from(operation).into(),
        path: Some(target.path.as_str().to_owned()),
        no_size: true,
        ..FileAccess::default()
    }
}
