//! Calls to services: by the generated server trait where the service is in this process, else by the generated client.
//!
//! Both sides are generated from the contract, so no caller knows which it is. The near way leaves out what only a wire
//! needs (encoding, framing, routing: 5 µs a call); deadline, trace, panic and metrics are the same as on the far way.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture};
use proto::{
    auth::v1::{
        AuthorizeRequest, AuthorizeResponse, ReachableRequest, ReachableResponse, auth_rules_client::AuthRulesClient,
        auth_rules_server::AuthRules,
    },
    crud::v1::{
        DescribeRequest, DescribeResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
        crud_client::CrudClient, crud_server::Crud,
    },
};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use crate::{
    Call, Link,
    config::Service,
    link::late,
    server::{Method, panicked},
    telemetry::Metrics,
};

type Answer<A> = Result<Response<A>, Status>;

/// Services of this process that are called without a wire.
#[derive(Default)]
pub(crate) struct Local {
    pub crud: OnceLock<Arc<dyn Crud>>,
    pub auth_rules: OnceLock<Arc<dyn AuthRules>>,
}

/// Rows in databases.
#[derive(Clone, Copy)]
pub struct CrudLink<'m> {
    pub(crate) local: &'m Local,
    pub(crate) client: &'m CrudClient<Link>,
    pub(crate) metrics: &'m Metrics,
}

impl CrudLink<'_> {
    /// Whether calls stay in this process, and so cannot break on the way.
    pub fn is_near(&self) -> bool {
        self.local.crud.get().is_some()
    }

    /// Reads of one database, all in one snapshot.
    pub async fn read(&self, request: Request<ReadRequest>) -> Answer<ReadResponse> {
        match self.local.crud.get() {
            Some(crud) => near(self.metrics, Service::Crud, "Read", request, |request| crud.read(request)).await,
            None => self.client.clone().read(request).await,
        }
    }

    /// Mutations of one database, in one transaction.
    pub async fn write(&self, request: Request<WriteRequest>) -> Answer<WriteResponse> {
        match self.local.crud.get() {
            Some(crud) => near(self.metrics, Service::Crud, "Write", request, |request| crud.write(request)).await,
            None => self.client.clone().write(request).await,
        }
    }

    /// The databases of a project and what they hold.
    pub async fn describe(&self, request: Request<DescribeRequest>) -> Answer<DescribeResponse> {
        match self.local.crud.get() {
            Some(crud) => {
                near(self.metrics, Service::Crud, "Describe", request, |request| crud.describe(request)).await
            }
            None => self.client.clone().describe(request).await,
        }
    }
}

/// Who may do what.
#[derive(Clone, Copy)]
pub struct AuthRulesLink<'m> {
    pub(crate) local: &'m Local,
    pub(crate) client: &'m AuthRulesClient<Link>,
    pub(crate) metrics: &'m Metrics,
}

impl AuthRulesLink<'_> {
    /// Whether calls stay in this process, and so cannot break on the way.
    pub fn is_near(&self) -> bool {
        self.local.auth_rules.get().is_some()
    }

    /// Decides all accesses of one request.
    pub async fn authorize(&self, request: Request<AuthorizeRequest>) -> Answer<AuthorizeResponse> {
        match self.local.auth_rules.get() {
            Some(auth) => {
                near(self.metrics, Service::AuthRules, "Authorize", request, |request| auth.authorize(request)).await
            }
            None => self.client.clone().authorize(request).await,
        }
    }

    /// Which operations on which tables some caller could ever be allowed.
    pub async fn reachable(&self, request: Request<ReachableRequest>) -> Answer<ReachableResponse> {
        match self.local.auth_rules.get() {
            Some(auth) => {
                near(self.metrics, Service::AuthRules, "Reachable", request, |request| auth.reachable(request)).await
            }
            None => self.client.clone().reachable(request).await,
        }
    }
}

/// A call without a wire: within its deadline, as a step of its own in the trace, counted, and `INTERNAL` where the
/// service panics.
async fn near<'s, Q, A>(
    metrics: &Metrics,
    service: Service,
    name: &'static str,
    mut request: Request<Q>,
    answer: impl FnOnce(Request<Q>) -> BoxFuture<'s, Answer<A>>,
) -> Answer<A> {
    let started = Instant::now();
    let method = Method::new(service.name(), name);
    let call = Call::of(&request).stepped();
    request.extensions_mut().insert(call.clone());
    let span = tracing::debug_span!("rpc", service = method.service, method = name, request_id = %call.request_id);
    let work = AssertUnwindSafe(answer(request)).catch_unwind().instrument(span);
    let work = call.scope(work);
    let answered = match call.deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Ok(Err(late(service))))
        }
        None => work.await,
    };
    let answered = answered.unwrap_or_else(|panic| Err(panicked(method, &call, panic.as_ref())));
    let code = answered.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
    metrics.rpc(method.service, name, code, started.elapsed());
    answered
}

/// That this process has two of one service, which is a mistake of who starts it.
pub(crate) fn twice(service: Service) {
    tracing::warn!(service = service.name(), "the service of this process is open already");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Code, Fault};

    struct Fake;

    #[tonic::async_trait]
    impl Crud for Fake {
        async fn read(&self, request: Request<ReadRequest>) -> Answer<ReadResponse> {
            let call = Call::of(&request);
            match request.get_ref().project.as_str() {
                "panic" => panic!("a read that panics"),
                "hang" => std::future::pending().await,
                _ => assert_eq!(&*call.request_id, "mine"),
            }
            Ok(Response::new(ReadResponse::default()))
        }

        async fn write(&self, _: Request<WriteRequest>) -> Answer<WriteResponse> {
            Err(Fault::new(Code::Denied, "no").into())
        }

        async fn describe(&self, _: Request<DescribeRequest>) -> Answer<DescribeResponse> {
            Ok(Response::new(DescribeResponse::default()))
        }
    }

    async fn read(project: &str, time: Duration) -> Result<ReadResponse, Fault> {
        let crud: Arc<dyn Crud> = Arc::new(Fake);
        let call = Call::begin(Some("mine"), None, Some(time));
        let request = call.next(ReadRequest { project: project.to_owned(), ..Default::default() });
        let metrics = Metrics::default();
        let answer = near(&metrics, Service::Crud, "Read", request, |request| crud.read(request)).await;
        assert!(metrics.render().contains(r#"service="crud""#));
        answer.map(Response::into_inner).map_err(Fault::from)
    }

    #[tokio::test]
    async fn a_near_call_carries_its_identity() {
        assert!(read("shop", Duration::from_secs(5)).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_is_internal_and_the_next_call_lives() {
        let fault = read("panic", Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(fault.code, Code::Internal);
        assert!(!fault.message.contains("a read that panics"));
        assert!(read("shop", Duration::from_secs(5)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_is_given_up() {
        assert_eq!(read("hang", Duration::from_secs(5)).await.unwrap_err().code, Code::Deadline);
    }
}
