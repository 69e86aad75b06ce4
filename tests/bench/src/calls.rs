//! Calls of a gRPC server of a user, directly and through Perigee: what a rule, an identity and JSON cost.

use std::{collections::BTreeMap, fs, path::Path, pin::Pin, time::Duration};

use futures::Stream;
use prost::Message;
use proto::api::v1::{CallRequest, CallResponse, GatewayMessage, WorkerMessage, functions_server};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    grpc::Calls,
    load::{self, Requests},
    report::{self, Rounds},
    subject::{Inputs, Server},
};

/// The method of both, and its service.
const PATH: &str = "/perigee.api.v1.Functions/Call";
const SERVICE: &str = "perigee.api.v1.Functions";
const TEXT: &str = "a letter of some length, as they are sent";

/// A server that says its parameters back.
struct Echo;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl functions_server::Functions for Echo {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        Ok(Response::new(CallResponse { result: request.into_inner().params }))
    }

    type StreamStream = Messages<CallResponse>;

    async fn stream(&self, _: Request<CallRequest>) -> Result<Response<Self::StreamStream>, Status> {
        Err(Status::unimplemented("nobody measures it"))
    }

    type WorkStream = Messages<GatewayMessage>;

    async fn work(&self, _: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::WorkStream>, Status> {
        Err(Status::unimplemented("nobody measures it"))
    }
}

/// Serves the server of the user; the comparison starts it itself.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let server = functions_server::FunctionsServer::new(Echo);
    tonic::transport::Server::builder().add_service(server).serve(([127, 0, 0, 1], port).into()).await?;
    Ok(())
}

/// Measures both in turn and prints them.
pub async fn run(inputs: &Inputs, home: &Path, (rounds, seconds): (usize, u64)) -> anyhow::Result<()> {
    let direct = Server::echo()?;
    write_resources(home, direct.port)?;
    let near = Server::calling(&inputs.perigee, home)?;
    let subjects = [
        ("a grpc server", &direct, requests(CallRequest { params: TEXT.into(), ..CallRequest::default() })),
        (
            "b perigee grpc",
            &near,
            requests(CallRequest {
                project: "shop".to_owned(),
                service: "echo".to_owned(),
                function: "Call".to_owned(),
                // The same bytes, in base64.
                params: r#"{"params":"YSBsZXR0ZXIgb2Ygc29tZSBsZW5ndGgsIGFzIHRoZXkgYXJlIHNlbnQ="}"#.into(),
                timeout: None,
            }),
        ),
    ];
    let mut results = BTreeMap::<String, Rounds>::new();
    for round in 0..=rounds {
        for (name, server, requests) in &subjects {
            let lasting = if round == 0 { Duration::from_millis(500) } else { Duration::from_secs(seconds) };
            let before = server.processor_time();
            let measured = load::round(server.port, requests, lasting).await?;
            if round > 0 {
                let used = server.processor_time().saturating_sub(before);
                results.entry((*name).to_owned()).or_default().push(measured, used, Duration::ZERO);
            }
        }
    }
    report::print("calls: a gRPC server of the user, directly and through Perigee", &results);
    Ok(())
}

fn requests(message: CallRequest) -> Requests {
    Requests::Grpc(Calls { path: PATH, token: String::new(), messages: vec![message.encode_to_vec()] })
}

fn write_resources(home: &Path, port: u16) -> anyhow::Result<()> {
    let resources = home.join("resources");
    fs::create_dir_all(&resources)?;
    fs::create_dir_all(home.join("data"))?;
    fs::write(resources.join("functions.bin"), proto::api::DESCRIPTORS)?;
    let text = format!(
        "kind: project\nmeta: {{ id: shop }}\n---\nkind: service\nmeta: {{ project: shop, id: echo }}\nspec:\n  \
         grpc: {{ url: \"http://127.0.0.1:{port}\", service: {SERVICE}, descriptor: functions.bin }}\n  \
         functions: {{ Call: {{ rule: {{ rule: allow }} }} }}\n"
    );
    Ok(fs::write(resources.join("shop.yaml"), text)?)
}
