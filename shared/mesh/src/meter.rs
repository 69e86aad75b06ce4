//! Counting and timing calls, by service and RPC.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use proto::link::Service;

use crate::telemetry::{Metrics, RpcMeter};

/// The meters of a service.
pub(crate) struct Meters {
    service: &'static Service,
    methods: Vec<MethodMeter>,
}

/// The meter of an RPC.
#[derive(Debug)]
pub(crate) struct MethodMeter {
    pub service: &'static str,
    pub name: &'static str,
    metrics: Metrics,
    /// Made by the first answer: a node counts only what it answers.
    meter: OnceLock<Arc<RpcMeter>>,
}

impl Meters {
    pub fn new(metrics: &Metrics, service: &'static Service) -> Self {
        let meter = |method: &proto::link::Method| MethodMeter::new(metrics, service.name, method.name);
        Self { service, methods: service.methods.iter().map(meter).collect() }
    }

    /// The meter of the RPC with this index in the contract.
    pub fn of(&self, method: usize) -> &MethodMeter {
        &self.methods[method]
    }

    /// The meter of the RPC at `path`.
    pub fn at(&self, path: &str) -> Option<&MethodMeter> {
        let index = self.service.methods.iter().position(|method| method.path == path)?;
        Some(&self.methods[index])
    }
}

impl MethodMeter {
    pub fn new(metrics: &Metrics, service: &'static str, name: &'static str) -> Self {
        Self { service, name, metrics: metrics.clone(), meter: OnceLock::new() }
    }

    /// Begins to time a call.
    pub fn begin(&self) -> RunningCall {
        let meter = self.meter.get_or_init(|| Arc::new(self.metrics.rpc(self.service, self.name)));
        RunningCall { meter: meter.clone(), started: Instant::now(), code: None }
    }
}

/// A call that is being answered. It is counted when it ends: as cancelled where nobody waited for the answer.
pub(crate) struct RunningCall {
    meter: Arc<RpcMeter>,
    started: Instant,
    code: Option<tonic::Code>,
}

impl RunningCall {
    /// Counts the call as answered with `code`.
    pub fn answered(mut self, code: tonic::Code) {
        self.code = Some(code);
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.meter.done(self.code.unwrap_or(tonic::Code::Cancelled), self.started.elapsed());
    }
}
