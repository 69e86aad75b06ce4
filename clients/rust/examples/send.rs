//! A worker with one function.

use perigee_client::{Call, Client, Error};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

async fn send(call: Call) -> Result<Value, String> {
    let params: Value = call.params().map_err(|error| error.to_string())?;
    match params["to"].as_str() {
        Some(to) if !to.is_empty() => Ok(json!({ "sent": to })),
        _ => Err("to is required".to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).unwrap_or("http://localhost:4122".to_owned());
    let client = Client::new(&url, "shop")?.token(std::env::var("TOKEN").unwrap_or_default());
    let mut stop = signal(SignalKind::terminate()).expect("signals can be awaited");
    let stopped = async move {
        stop.recv().await;
    };
    client.worker("mail").function("send", send).run(stopped).await
}
