//! Functions that answer with a stream: each answer within the time of the function, and one of its places for as long as the
//! stream goes on.

use std::time::Instant;

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use proto::functions::CallResponse;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    Error,
    asked::AskedCall,
    attempts::{CallMeans, admitted, outcome},
    conversions::Conversions,
    grpc::MethodCall,
    retries::CallRetries,
};

/// Answers of a server.
type Answers = BoxStream<'static, Result<Bytes, Error>>;

/// A stream that has begun.
struct Open {
    answers: Answers,
    asked: AskedCall,
    conversions: Conversions,
    _running: OwnedSemaphorePermit,
}

/// Begins the stream of a call. Its answers end with the first error. Dropped, the server is told.
pub async fn open(
    means: &CallMeans,
    asked: AskedCall,
) -> Result<impl Stream<Item = Result<CallResponse, Error>> + Send + use<>, Error> {
    let (answers, running) = {
        let (_, state) = asked.function()?;
        let admitted = admitted(&asked.target, state, &asked.grant)?;
        let begun = timeout(asked.time, begin(means, &asked)).await.unwrap_or(Err(Error::Deadline(asked.time)));
        means.ended(admitted, outcome(&begun), &asked.grant);
        begun?
    };
    let open = Open { answers, asked, conversions: means.conversions.clone(), _running: running };
    Ok(stream::unfold(Some(open), |open| async {
        let mut open = open?;
        let late = Error::Deadline(open.asked.time);
        let answer = timeout(open.asked.time, open.next()).await.unwrap_or(Some(Err(late)))?;
        let rest = answer.is_ok().then_some(open);
        Some((answer, rest))
    }))
}

impl Open {
    /// The next answer, which fits the function's schema.
    async fn next(&mut self) -> Option<Result<CallResponse, Error>> {
        let body = match self.answers.next().await? {
            Ok(body) => body,
            Err(error) => return Some(Err(error)),
        };
        let checked = async {
            let (_, state) = self.asked.function()?;
            state.schemas.check_output((200, &body), &self.conversions).await
        };
        Some(checked.await.map(|()| CallResponse { status: 200, body }))
    }
}

/// Answers of the server, and the place that they have among the calls of the function. What
/// fails before it has begun is tried again as another call is.
async fn begin(means: &CallMeans, asked: &AskedCall) -> Result<(Answers, OwnedSemaphorePermit), Error> {
    let (function, state) = asked.function()?;
    let mut retries = CallRetries::of(function);
    let running = state.limiter.enter_owned().await?;
    let deadline = Instant::now() + asked.time;
    loop {
        let error = match attempt(asked).await {
            Ok(answers) => return Ok((answers, running)),
            Err(error) => error,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(wait) = retries.wait(&Err(error.clone()), left, rand::random()) else { return Err(error) };
        means.metrics.function_retries().inc();
        tokio::time::sleep(wait).await;
    }
}

/// One attempt to begin.
async fn attempt(asked: &AskedCall) -> Result<Answers, Error> {
    let AskedCall { grant, target, params, answer_bytes, .. } = asked;
    let remote = target.remote().ok_or_else(|| Error::NoWorker(grant.service.clone()))??;
    let (params, answer_bytes, numbers) = (params.clone(), *answer_bytes, target.numbers);
    let call = MethodCall { grant, params, deadline: None, answer_bytes, numbers };
    let answers = Box::pin(remote.stream(call)).await?;
    Ok(answers.boxed())
}
