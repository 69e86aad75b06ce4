//! Response streams with a deadline, counted when they end.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use proto::{
    carried::{Carried, check_size},
    link::Messages,
};
use tokio::time::Sleep;
use tonic::Status;

use super::deadline_exceeded;
use crate::{
    Call,
    meter::{MethodMeter, RunningCall},
    server::panicked_in,
};

/// Messages of a service in this process: part of its call, counted when they end, `INTERNAL` where the service panics.
pub fn near<A: Carried>(messages: Messages<A>, meter: &MethodMeter, call: &Call, running: RunningCall) -> Messages<A> {
    let service = Served { name: meter.service, method: meter.name, call: call.clone(), running };
    Box::pin(DeadlineStream {
        messages: Some(messages),
        deadline: deadline(call),
        name: meter.service,
        service: Some(service),
    })
}

/// Messages of a peer.
pub fn far<A: Carried>(messages: Messages<A>, name: &'static str, call: &Call) -> Messages<A> {
    Box::pin(DeadlineStream { messages: Some(messages), deadline: deadline(call), name, service: None })
}

fn deadline(call: &Call) -> Option<Pin<Box<Sleep>>> {
    call.timer_deadline().map(|limit| Box::pin(tokio::time::sleep_until(limit.into())))
}

/// Messages until the deadline of their call.
struct DeadlineStream<A> {
    /// `None` after the end.
    messages: Option<Messages<A>>,
    deadline: Option<Pin<Box<Sleep>>>,
    name: &'static str,
    service: Option<Served>,
}

/// The service of this process that makes the messages.
struct Served {
    name: &'static str,
    method: &'static str,
    call: Call,
    running: RunningCall,
}

impl<A: Carried> DeadlineStream<A> {
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<A, Status>>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        let mut messages = messages.as_mut();
        let polled = match &self.service {
            None => messages.as_mut().poll_next(context),
            Some(served) => {
                let poll = AssertUnwindSafe(|| served.call.sync_scope(|| messages.as_mut().poll_next(context)));
                match std::panic::catch_unwind(poll) {
                    Ok(polled) => polled.map(|next| {
                        next.map(|message| message.and_then(|message| check_size(&message).map(|()| message)))
                    }),
                    Err(panic) => {
                        Poll::Ready(Some(Err(panicked_in(served.name, served.method, &served.call, panic.as_ref()))))
                    }
                }
            }
        };
        match (&polled, &mut self.deadline) {
            (Poll::Pending, Some(deadline)) => {
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Some(Err(deadline_exceeded(self.name))))
            }
            (Poll::Pending | Poll::Ready(_), _) => polled,
        }
    }
}

impl<A: Carried> Stream for DeadlineStream<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<A, Status>>> {
        let message = ready!(self.poll_message(context));
        let code = match &message {
            Some(Ok(_)) => return Poll::Ready(message),
            Some(Err(status)) => status.code(),
            None => tonic::Code::Ok,
        };
        self.messages = None;
        if let Some(served) = self.service.take() {
            served.running.answered(code);
        }
        Poll::Ready(message)
    }
}
