//! Write batching: what several callers send in one turn of the runtime is one system call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh::batch::Deferral;

/// The driver of a connection, whose polls are deferred to the end of the runtime's turn.
pub struct Batched<F> {
    work: Pin<Box<F>>,
    deferral: Deferral,
}

impl<F> Batched<F> {
    /// Batches the writes of `work`.
    pub fn new(work: F) -> Self {
        Self { work: Box::pin(work), deferral: Deferral::default() }
    }
}

impl<F: Future> Future for Batched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        ready!(self.deferral.poll(context));
        self.work.as_mut().poll(context)
    }
}
