//! A service that is not one of ours: its contract, this server, and one line where a node registers it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use mesh::{Call, Code, Fault};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    services::echo::echo_server,
    wire::echo::v1::{RepeatRequest, SayRequest, SayResponse},
};

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<SayResponse, Status>> + Send>>;

/// Says what it hears.
#[derive(Clone, Default)]
pub struct Echo {
    /// Calls that it heard.
    pub heard: Arc<AtomicUsize>,
    /// Streams that it has not ended yet.
    pub open: Arc<AtomicUsize>,
}

/// Counts a stream as open until it is dropped.
struct Opened(Arc<AtomicUsize>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Echo {
    fn opened(&self) -> Opened {
        self.open.fetch_add(1, Ordering::SeqCst);
        Opened(self.open.clone())
    }
}

/// Says `text` back, or does what it says.
async fn said(text: &str) -> Result<SayResponse, Status> {
    let request_id = Call::current().map(|call| call.request_id.to_string()).unwrap_or_default();
    let text = match text.split_once(' ') {
        Some(("large", bytes)) => "x".repeat(bytes.parse().map_err(|_| Status::invalid_argument("no number"))?),
        _ => text.to_owned(),
    };
    match text.as_str() {
        "panic" => panic!("on purpose"),
        "hang" => tokio::time::sleep(Duration::from_secs(600)).await,
        "gone" => return Err(Fault::new(Code::Unavailable, "nobody there").into()),
        _ => {}
    }
    Ok(SayResponse { text, request_id })
}

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    async fn say(&self, request: Request<SayRequest>) -> Result<Response<SayResponse>, Status> {
        self.heard.fetch_add(1, Ordering::SeqCst);
        let _open = self.opened();
        said(&request.into_inner().text).await.map(Response::new)
    }

    async fn tell(&self, request: Request<SayRequest>) -> Result<Response<SayResponse>, Status> {
        self.say(request).await
    }

    type RepeatStream = Messages;

    async fn repeat(&self, request: Request<RepeatRequest>) -> Result<Response<Messages>, Status> {
        let RepeatRequest { text, times } = request.into_inner();
        let opened = self.opened();
        let messages = stream::iter(0..=times).then(move |time| {
            let _still = &opened;
            let text = if time < times { format!("{time}") } else { text.clone() };
            async move { said(&text).await }
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn join(&self, request: Request<Streaming<SayRequest>>) -> Result<Response<SayResponse>, Status> {
        let mut heard = request.into_inner();
        let mut texts = Vec::new();
        while let Some(message) = heard.message().await? {
            texts.push(message.text);
        }
        said(&texts.join(" ")).await.map(Response::new)
    }

    type TalkStream = Messages;

    async fn talk(&self, request: Request<Streaming<SayRequest>>) -> Result<Response<Messages>, Status> {
        let opened = self.opened();
        let messages = request.into_inner().then(move |message| {
            let _still = &opened;
            async move { said(&message?.text).await }
        });
        Ok(Response::new(messages.boxed()))
    }
}
