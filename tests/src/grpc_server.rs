//! A gRPC server of a user, found by reflection or not: it tells what came beside a letter, and who left.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use futures::{FutureExt, Stream, StreamExt, stream};
use prost::Message;
use prost_types::Any;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes, transport::server::TcpIncoming};

use crate::mail::{
    CountRequest, CountResponse, Failure, Letter, Packed, Receipt, Size, Tree,
    mail_server::{self, MailServer},
};

/// How a server tells its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflection {
    /// Version 1.
    V1,
    /// The version before.
    V1Alpha,
    /// Not at all.
    None,
}

/// A running server; it ends when dropped.
pub struct GrpcServer {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct State {
    /// Calls, and those of them that wait, and whose callers have left.
    heard: AtomicUsize,
    waiting: watch::Sender<(usize, usize)>,
    failures: AtomicU32,
    /// Messages of streams that were made.
    counted: AtomicUsize,
}

impl GrpcServer {
    /// Serves on a free port of this machine.
    pub async fn start(reflection: Reflection) -> anyhow::Result<Self> {
        Self::at(([127, 0, 0, 1], 0).into(), reflection).await
    }

    /// Serves at an address.
    pub async fn at(address: SocketAddr, reflection: Reflection) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let mut routes = Routes::new(MailServer::new(Mail(state.clone())).max_encoding_message_size(usize::MAX));
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(crate::mail::DESCRIPTORS)
        };
        match reflection {
            Reflection::V1 => routes = routes.add_service(builder().build_v1()?),
            Reflection::V1Alpha => routes = routes.add_service(builder().build_v1alpha()?),
            Reflection::None => {}
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(async move {
            let served = tonic::transport::Server::builder().add_routes(routes);
            let served = served.serve_with_incoming_shutdown(incoming, stopped.map(drop));
            served.await.expect("the server of the test serves");
        });
        Ok(Self { address, state, stop: Some(stop) })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls that it heard since it was last asked.
    pub fn heard(&self) -> usize {
        self.state.heard.swap(0, Ordering::SeqCst)
    }

    /// Messages of streams that it made.
    pub fn counted(&self) -> usize {
        self.state.counted.load(Ordering::SeqCst)
    }

    /// Waits until as many calls wait, of all that ever did.
    pub async fn waits(&self, count: usize) -> anyhow::Result<()> {
        self.state.waiting.subscribe().wait_for(|(waiting, _)| *waiting >= count).await?;
        Ok(())
    }

    /// Waits until as many callers have left while their calls waited.
    pub async fn left(&self, count: usize) -> anyhow::Result<()> {
        let mut waiting = self.state.waiting.subscribe();
        let left = waiting.wait_for(|(_, left)| *left >= count);
        tokio::time::timeout(Duration::from_secs(20), left).await.context("nobody left")??;
        Ok(())
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        // Its connections end with it, once their calls have.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// A call that waits, until it is dropped.
struct Waiting(Arc<State>);

impl Waiting {
    fn begin(state: &Arc<State>) -> Self {
        state.waiting.send_modify(|(waiting, _)| *waiting += 1);
        Self(state.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|(_, left)| *left += 1);
    }
}

struct Mail(Arc<State>);

impl Mail {
    fn hear(&self) {
        self.0.heard.fetch_add(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl mail_server::Mail for Mail {
    async fn send(&self, request: Request<Letter>) -> Result<Response<Receipt>, Status> {
        self.hear();
        let texts = request.metadata().as_ref().iter();
        let texts = texts.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let metadata = texts.collect();
        let letter = request.into_inner();
        let text = format!("sent to {}", letter.to);
        Ok(Response::new(Receipt { letter: Some(letter), text, metadata }))
    }

    async fn fail(&self, request: Request<Failure>) -> Result<Response<Receipt>, Status> {
        self.hear();
        let Failure { code, text, times } = request.into_inner();
        let failed = self.0.failures.fetch_add(1, Ordering::SeqCst);
        match times > 0 && failed >= times {
            true => {
                self.0.failures.store(0, Ordering::SeqCst);
                Ok(Response::new(Receipt { text: format!("after {failed}"), ..Receipt::default() }))
            }
            false => Err(Status::new(Code::from_i32(code), text)),
        }
    }

    async fn wait(&self, _: Request<()>) -> Result<Response<Receipt>, Status> {
        self.hear();
        let _waiting = Waiting::begin(&self.0);
        std::future::pending().await
    }

    async fn large(&self, request: Request<Size>) -> Result<Response<Receipt>, Status> {
        self.hear();
        let text = "x".repeat(request.into_inner().bytes as usize);
        Ok(Response::new(Receipt { text, ..Receipt::default() }))
    }

    async fn pack(&self, request: Request<Size>) -> Result<Response<Packed>, Status> {
        self.hear();
        let mut inside = Any { type_url: "t/google.protobuf.Empty".to_owned(), value: Vec::new() };
        while inside.value.len() < request.get_ref().bytes as usize {
            inside = Any { type_url: "t/google.protobuf.Any".to_owned(), value: inside.encode_to_vec() };
        }
        Ok(Response::new(Packed { inside: Some(inside) }))
    }

    async fn grow(&self, request: Request<Tree>) -> Result<Response<Tree>, Status> {
        self.hear();
        Ok(Response::new(request.into_inner()))
    }

    type CountStream = Pin<Box<dyn Stream<Item = Result<CountResponse, Status>> + Send>>;

    async fn count(&self, request: Request<CountRequest>) -> Result<Response<Self::CountStream>, Status> {
        self.hear();
        let CountRequest { times, every_ms, bytes, error } = request.into_inner();
        let (waiting, state) = (Waiting::begin(&self.0), self.0.clone());
        let last = if times == 0 { i64::MAX } else { i64::from(times) };
        let text = "x".repeat(bytes as usize);
        let numbers = stream::iter(1..=last).then(move |number| {
            let (text, state) = (text.clone(), state.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(every_ms.into())).await;
                state.counted.fetch_add(1, Ordering::SeqCst);
                Ok(CountResponse { number, text })
            }
        });
        let failed = stream::iter((!error.is_empty()).then(|| Err(Status::unknown(error))));
        let messages = numbers.chain(failed).map(move |message| {
            // It is left when the stream is dropped.
            let _ = &waiting;
            message
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn collect(&self, request: Request<Streaming<Letter>>) -> Result<Response<Receipt>, Status> {
        self.hear();
        let count = request.into_inner().count().await;
        Ok(Response::new(Receipt { text: count.to_string(), ..Receipt::default() }))
    }
}
