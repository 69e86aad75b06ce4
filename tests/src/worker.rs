//! A worker over gRPC, which a test answers for.

use anyhow::{Context, bail};
use futures::StreamExt;
use proto::api::v1::{
    Drain, GatewayMessage, Invocation, Register, Result as WorkerResult, WorkerMessage, gateway_message::Message,
    worker_message,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::client::Client;

/// A worker. Dropped, its connection ends.
pub struct Worker {
    answers: mpsc::Sender<WorkerMessage>,
    messages: Streaming<GatewayMessage>,
}

impl Worker {
    /// Registers a worker of `service` with these functions (none: all) and so many calls at once, or is refused.
    pub async fn register(
        client: &Client,
        service: &str,
        functions: &[&str],
        capacity: u32,
    ) -> anyhow::Result<Result<Self, Status>> {
        let (answers, queue) = mpsc::channel(100);
        answers.send(registers(service, functions, capacity)).await?;
        let queue = futures::stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        let messages = match client.bidirectional("/perigee.api.v1.Functions/Work", queue).await? {
            Ok(messages) => messages,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut worker = Self { answers, messages };
        match worker.next().await? {
            Some(Message::Registered(_)) => Ok(Ok(worker)),
            other => bail!("{other:?}"),
        }
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        match self.messages.next().await.transpose()? {
            Some(message) => Ok(Some(message.message.context("a message")?)),
            None => Ok(None),
        }
    }

    /// The next message, which is a call.
    pub async fn call(&mut self) -> anyhow::Result<Invocation> {
        match self.next().await? {
            Some(Message::Call(call)) => Ok(call),
            other => bail!("{other:?}"),
        }
    }

    /// Answers a call.
    pub async fn answer(&self, id: &str, result: &Value) -> anyhow::Result<()> {
        self.answer_raw(id, &result.to_string(), "").await
    }

    /// Answers a call with these bytes, or this text of its failure.
    pub async fn answer_raw(&self, id: &str, result: &str, error: &str) -> anyhow::Result<()> {
        let (id, error) = (id.to_owned(), error.to_owned());
        let result = WorkerResult { id, result: result.as_bytes().to_vec().into(), error };
        Ok(self.answers.send(WorkerMessage { message: Some(worker_message::Message::Result(result)) }).await?)
    }

    /// Registers a second time.
    pub async fn register_again(&self, service: &str) -> anyhow::Result<()> {
        Ok(self.answers.send(registers(service, &[], 1)).await?)
    }

    /// Asks for no more calls.
    pub async fn drain(&self) -> anyhow::Result<()> {
        Ok(self.answers.send(WorkerMessage { message: Some(worker_message::Message::Drain(Drain {})) }).await?)
    }
}

fn registers(service: &str, functions: &[&str], capacity: u32) -> WorkerMessage {
    let functions = functions.iter().map(|name| (*name).to_owned()).collect();
    let register = Register { project: "shop".to_owned(), service: service.to_owned(), functions, capacity };
    WorkerMessage { message: Some(worker_message::Message::Register(register)) }
}
