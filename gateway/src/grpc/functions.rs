//! The service `perigee.api.v1.Functions`.

use std::{sync::Arc, time::Duration};

use mesh::{Fault, listener::Connection};
use proto::api::v1::{CallRequest, CallResponse, WorkerMessage, functions_server};
use query::Value;
use tonic::{Request, Response, Status, Streaming};

use super::{
    function_stream,
    messages::Messages,
    status,
    work::{self, WorkMessages},
};
use crate::{
    Service,
    catalogue::Project,
    edge::{Caller, FunctionCall},
    error,
    http::{body, cors::RequestedProject, current},
};

/// The handlers.
pub struct Functions {
    service: Service,
}

#[tonic::async_trait]
impl functions_server::Functions for Functions {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        Box::pin(self.answer(request)).await.map(Response::new).map_err(status)
    }

    type StreamStream = Messages<CallResponse>;

    async fn stream(&self, request: Request<CallRequest>) -> Result<Response<Messages<CallResponse>>, Status> {
        Box::pin(self.begin(request)).await.map(Response::new).map_err(status)
    }

    type WorkStream = WorkMessages;

    async fn work(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<WorkMessages>, Status> {
        Box::pin(work::begin(&self.service, request)).await.map(Response::new).map_err(status)
    }
}

impl Functions {
    /// Handlers of `service`.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    async fn answer(&self, request: Request<CallRequest>) -> Result<CallResponse, Fault> {
        let (caller, project, call) = self.asked(request).await?;
        let answered = self.service.edge().call_function(&caller, &project, call).await?;
        Ok(CallResponse { result: answered.result()? })
    }

    async fn begin(&self, request: Request<CallRequest>) -> Result<Messages<CallResponse>, Fault> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let (caller, project, call) = self.asked(request).await?;
        function_stream::begin(&self.service, (&caller, &project), call, connection).await
    }

    /// The call that a message asks for.
    async fn asked(&self, request: Request<CallRequest>) -> Result<(Caller, Arc<Project>, FunctionCall), Fault> {
        let caller = Caller::of(current(), request.metadata().as_ref())?;
        let requested = request.extensions().get::<RequestedProject>().cloned();
        let CallRequest { project, service, function, params, timeout } = request.into_inner();
        if let Some(requested) = requested {
            requested.set(&project);
        }
        let project = self.service.edge().project(&caller, project.as_str().into()).await?;
        let limit = body::limit(self.service.config(), Some(&project));
        if params.len() > limit {
            return Err(body::too_large(limit, Some(params.len() as u64)));
        }
        for (name, value) in [("service", &service), ("function", &function)] {
            if value.is_empty() {
                return Err(Fault::from(query::Error::Required(name.to_owned())));
            }
        }
        let call = FunctionCall { service, function, params: self.json(&params)?, timeout: time(timeout)? };
        Ok((caller, project, call))
    }

    /// The parameters, which are JSON; without a byte null.
    fn json(&self, params: &[u8]) -> Result<bytes::Bytes, Fault> {
        if params.is_empty() {
            return Ok(bytes::Bytes::from_static(b"null"));
        }
        let value: Value = proto::json::parse(params, self.service.guard()).map_err(|error| {
            let fault = Fault::from(error);
            Fault { message: format!("invalid params: {}", fault.message), ..fault }
        })?;
        let mut json = Vec::with_capacity(params.len());
        value.write_json(&mut json);
        Ok(json.into())
    }
}

/// The time that a call asks for; `None` where it leaves that to the function.
fn time(timeout: Option<prost_types::Duration>) -> Result<Option<Duration>, Fault> {
    let Some(timeout) = timeout else { return Ok(None) };
    let time = Duration::try_from(timeout).map_err(|_| error::bad_request("invalid timeout: must not be negative"))?;
    Ok(Some(time).filter(|time| !time.is_zero()))
}
