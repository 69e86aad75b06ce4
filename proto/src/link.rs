//! Links to services: the description of a service, and the transport of its calls.

use std::{
    any::Any,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::carried::{Carried, check_size};

pub use futures_core::Stream;

/// A service, as its contract describes it.
#[derive(Debug)]
pub struct Service {
    /// In configuration, metrics and logs: `auth-rules`.
    pub name: &'static str,
    /// In paths: `perigee.auth.v1.AuthRules`.
    pub path: &'static str,
    /// Its RPCs, in the order of the contract.
    pub methods: &'static [Method],
}

/// An RPC.
#[derive(Debug)]
pub struct Method {
    /// `Authorize`.
    pub name: &'static str,
    /// `/perigee.auth.v1.AuthRules/Authorize`.
    pub path: &'static str,
    /// Whether it may be sent twice.
    pub retry: Retry,
}

/// Whether a call that found nobody may be sent again. Source: `idempotency_level` of the RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may have been done.
    Never,
    /// Doing it twice does no harm.
    Once,
}

/// An answer of a server in this process.
pub type Answer<'a, A> = Pin<Box<dyn Future<Output = Result<Response<A>, Status>> + Send + 'a>>;

/// Messages as they come.
pub type Messages<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// Messages as they are sent.
pub type Sent<Q> = Pin<Box<dyn Stream<Item = Q> + Send>>;

/// Carries calls to services, near or far. `S` is what a server in this process is called by, and `near` calls it.
pub trait Transport: Sized + Send + Sync + 'static {
    /// Identity, trace and time of a call.
    type Call: Sync;

    /// One message there, one back.
    fn unary<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Self::Call,
        message: Q,
        near: impl FnOnce(&'a S, Request<Q>) -> Answer<'a, A> + Send + 'a,
    ) -> impl Future<Output = Result<A, Status>> + Send + 'a;

    /// One message there, many back.
    fn server_streaming<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Self::Call,
        message: Q,
        near: impl FnOnce(&'a S, Request<Q>) -> Answer<'a, Messages<A>> + Send + 'a,
    ) -> impl Future<Output = Result<Messages<A>, Status>> + Send + 'a;

    /// Many messages there, one back.
    fn client_streaming<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Self::Call,
        messages: Sent<Q>,
        near: impl FnOnce(&'a S, Request<Streaming<Q>>) -> Answer<'a, A> + Send + 'a,
    ) -> impl Future<Output = Result<A, Status>> + Send + 'a;

    /// Many messages there, many back.
    fn streaming<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Self::Call,
        messages: Sent<Q>,
        near: impl FnOnce(&'a S, Request<Streaming<Q>>) -> Answer<'a, Messages<A>> + Send + 'a,
    ) -> impl Future<Output = Result<Messages<A>, Status>> + Send + 'a;
}

/// A server as a node registers it, for calls from this process and from others.
pub struct Host {
    /// The service.
    pub service: &'static Service,
    /// An `Arc` of what calls from this process go to.
    pub near: Box<dyn Any + Send + Sync>,
    /// Its routes for calls from other processes.
    pub routes: Routes,
}

impl Host {
    /// A server of `service` that is called as `near` from this process, and over `routes` from others.
    pub fn new<S: ?Sized + Send + Sync + 'static>(service: &'static Service, near: Arc<S>, routes: Routes) -> Self {
        Self { service, near: Box::new(near), routes }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("service", &self.service.name).finish_non_exhaustive()
    }
}

/// The answer with a stream that ends where it panics (`INTERNAL`) or has a message over the limit, after all messages
/// before.
pub fn caught<'a, A: Carried, M>(
    service: &'static str,
    answer: Pin<Box<dyn Future<Output = Result<Response<M>, Status>> + Send + 'a>>,
) -> Answer<'a, Messages<A>>
where
    M: Stream<Item = Result<A, Status>> + Send + 'static,
{
    Box::pin(async move {
        let caught = |messages| Caught { service, messages: Some(Box::pin(messages)) };
        Ok(answer.await?.map(|messages| Box::pin(caught(messages)) as Messages<A>))
    })
}

/// Messages until their end, a panic, or one over the limit.
struct Caught<M> {
    service: &'static str,
    /// `None` after the end.
    messages: Option<Pin<Box<M>>>,
}

impl<A: Carried, M: Stream<Item = Result<A, Status>>> Stream for Caught<M> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        let poll = AssertUnwindSafe(|| messages.as_mut().poll_next(context));
        let polled = match std::panic::catch_unwind(poll) {
            Ok(polled) => polled
                .map(|next| next.map(|message| message.and_then(|message| check_size(&message).map(|()| message)))),
            Err(_logged) => Poll::Ready(Some(Err(Status::internal(format!("service {} failed", self.service))))),
        };
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            self.messages = None;
        }
        polled
    }
}

/// The answer with its stream boxed.
pub fn boxed<'a, A: 'static, M>(
    answer: Pin<Box<dyn Future<Output = Result<Response<M>, Status>> + Send + 'a>>,
) -> Answer<'a, Messages<A>>
where
    M: Stream<Item = Result<A, Status>> + Send + 'static,
{
    Box::pin(async move { Ok(answer.await?.map(|messages| Box::pin(messages) as Messages<A>)) })
}
