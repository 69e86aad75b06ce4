//! What a message asks for: a call of a function, whose grant and parameters are checked.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::auth::CallGrant;
use query::function::Function;

use crate::{
    Error,
    targets::{FunctionState, Target},
};

/// A call that a message asks for.
pub struct AskedCall {
    /// Who calls which function.
    pub grant: CallGrant,
    /// Its service.
    pub target: Arc<Target>,
    /// JSON.
    pub params: Bytes,
    /// Until its answer.
    pub time: Duration,
    /// Most bytes of an answer.
    pub answer_bytes: u64,
}

impl AskedCall {
    /// The function, and what is known of its calls.
    pub fn function(&self) -> Result<(&Function, &FunctionState), Error> {
        let CallGrant { service, function, .. } = &self.grant;
        let unknown = || Error::Unknown { service: service.clone(), function: function.clone() };
        self.target.function(function).ok_or_else(unknown)
    }
}
