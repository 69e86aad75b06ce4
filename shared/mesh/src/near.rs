//! Calls to services: by the generated server trait where the service is in this process, else by the generated client.
//!
//! Both sides are generated from the contract, so no caller knows which it is. The near way leaves out what only a wire
//! needs (encoding, framing, routing: 5 µs a call); deadline, trace, panic and metrics are the same as on the far way.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
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
    method::{Method, Methods},
    server::panicked,
};

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
    pub(crate) methods: &'m Methods,
}

impl CrudLink<'_> {
    /// Whether calls stay in this process, and so cannot break on the way.
    pub fn is_near(&self) -> bool {
        self.local.crud.get().is_some()
    }

    /// Reads of one database, all in one snapshot.
    pub async fn read(&self, call: &Call, message: ReadRequest) -> Result<ReadResponse, Status> {
        match self.local.crud.get() {
            Some(crud) => near(&self.methods.read, call, message, |request| crud.read(request)).await,
            None => Ok(self.client.clone().read(call.next(message)).await?.into_inner()),
        }
    }

    /// Mutations of one database, in one transaction.
    pub async fn write(&self, call: &Call, message: WriteRequest) -> Result<WriteResponse, Status> {
        match self.local.crud.get() {
            Some(crud) => near(&self.methods.write, call, message, |request| crud.write(request)).await,
            None => Ok(self.client.clone().write(call.next(message)).await?.into_inner()),
        }
    }

    /// The databases of a project and what they hold.
    pub async fn describe(&self, call: &Call, message: DescribeRequest) -> Result<DescribeResponse, Status> {
        match self.local.crud.get() {
            Some(crud) => near(&self.methods.describe, call, message, |request| crud.describe(request)).await,
            None => Ok(self.client.clone().describe(call.next(message)).await?.into_inner()),
        }
    }
}

/// Who may do what.
#[derive(Clone, Copy)]
pub struct AuthRulesLink<'m> {
    pub(crate) local: &'m Local,
    pub(crate) client: &'m AuthRulesClient<Link>,
    pub(crate) methods: &'m Methods,
}

impl AuthRulesLink<'_> {
    /// Whether calls stay in this process, and so cannot break on the way.
    pub fn is_near(&self) -> bool {
        self.local.auth_rules.get().is_some()
    }

    /// Decides all accesses of one request.
    pub async fn authorize(&self, call: &Call, message: AuthorizeRequest) -> Result<AuthorizeResponse, Status> {
        match self.local.auth_rules.get() {
            Some(auth) => near(&self.methods.authorize, call, message, |request| auth.authorize(request)).await,
            None => Ok(self.client.clone().authorize(call.next(message)).await?.into_inner()),
        }
    }

    /// Which operations on which tables some caller could ever be allowed.
    pub async fn reachable(&self, call: &Call, message: ReachableRequest) -> Result<ReachableResponse, Status> {
        match self.local.auth_rules.get() {
            Some(auth) => near(&self.methods.reachable, call, message, |request| auth.reachable(request)).await,
            None => Ok(self.client.clone().reachable(call.next(message)).await?.into_inner()),
        }
    }
}

/// A call without a wire: given up at its deadline unless somebody else sees to that, a step of its own in the trace,
/// counted, and `INTERNAL` where the service panics.
async fn near<'s, Q, A>(
    method: &Method,
    call: &Call,
    message: Q,
    answer: impl FnOnce(Request<Q>) -> BoxFuture<'s, Result<Response<A>, Status>>,
) -> Result<A, Status> {
    let running = method.begin();
    let call = call.clone().stepped();
    let span =
        tracing::debug_span!("rpc", service = method.service, method = method.name, request_id = %call.request_id);
    let work = AssertUnwindSafe(answer(Request::new(message))).catch_unwind().instrument(span);
    let work = call.clone().scope(work);
    let answered = match call.limit() {
        Some(limit) => {
            tokio::time::timeout_at(limit.into(), work).await.unwrap_or_else(|_| Ok(Err(late(method.service))))
        }
        None => work.await,
    };
    let answered = answered.unwrap_or_else(|panic| Err(panicked(method, &call, panic.as_ref())));
    let code = answered.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
    running.answered(code);
    answered.map(Response::into_inner)
}

/// That this process has two of one service, which is a mistake of who starts it.
pub(crate) fn twice(service: Service) {
    tracing::warn!(service = service.name(), "the service of this process is open already");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Code, Fault, telemetry::Metrics};

    struct Fake;

    #[tonic::async_trait]
    impl Crud for Fake {
        async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
            match request.get_ref().project.as_str() {
                "panic" => panic!("a read that panics"),
                "hang" => std::future::pending().await,
                _ => assert_eq!(&*Call::current().expect("it is called").request_id, "mine"),
            }
            Ok(Response::new(ReadResponse::default()))
        }

        async fn write(&self, _: Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
            Err(Fault::new(Code::Denied, "no").into())
        }

        async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
            Ok(Response::new(DescribeResponse::default()))
        }
    }

    fn call() -> Call {
        Call::begin(Some("mine"), None, Some(Duration::from_secs(5)))
    }

    async fn read(project: &str, call: Call) -> Result<ReadResponse, Fault> {
        let crud: Arc<dyn Crud> = Arc::new(Fake);
        let message = ReadRequest { project: project.to_owned(), ..Default::default() };
        let metrics = Metrics::default();
        let methods = Methods::new(&metrics);
        let answer = near(&methods.read, &call, message, |request| crud.read(request)).await;
        assert!(metrics.render().contains(r#"service="crud""#));
        answer.map_err(Fault::from)
    }

    #[tokio::test]
    async fn a_near_call_carries_its_identity() {
        assert!(read("shop", call()).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_is_internal_and_the_next_call_lives() {
        let fault = read("panic", call()).await.unwrap_err();
        assert_eq!(fault.code, Code::Internal);
        assert!(!fault.message.contains("a read that panics"));
        assert!(read("shop", call()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_is_given_up() {
        assert_eq!(read("hang", call()).await.unwrap_err().code, Code::Deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_watched_is_left_to_who_watches_it_and_counted() {
        let metrics = Metrics::default();
        let methods = Methods::new(&metrics);
        let (message, watched) = (ReadRequest { project: "hang".to_owned(), ..Default::default() }, call().watched());
        let read = near(&methods.read, &watched, message, |request| Fake.read(request));
        assert!(tokio::time::timeout(Duration::from_secs(60), read).await.is_err());
        let counted = r#"perigee_requests_total{service="crud",method="Read",code="Cancelled"} 1"#;
        assert!(metrics.render().contains(counted), "{}", metrics.render());
    }
}
