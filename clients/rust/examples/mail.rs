//! A worker: mail URL PROJECT TOKEN

use std::time::{Duration, Instant};

use perigee_client::{Call, Client, Error};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

async fn send(call: Call) -> Result<Value, String> {
    let params: Value = call.params().map_err(|error| error.to_string())?;
    let auth: Value = call.auth().map_err(|error| error.to_string())?;
    match params["to"].as_str() {
        None | Some("") => Err("to is required".to_owned()),
        Some(to) => Ok(json!({ "sent": to, "by": auth["id"] })),
    }
}

/// Tells that a call was given up.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        println!("later: cancelled");
    }
}

async fn later(call: Call) -> Result<Value, serde_json::Error> {
    let params: Value = call.params()?;
    println!("later: begun");
    let guard = Guard;
    tokio::time::sleep(Duration::from_secs_f64(params["seconds"].as_f64().unwrap_or_default())).await;
    std::mem::forget(guard);
    Ok(json!({ "left": call.deadline.saturating_duration_since(Instant::now()).as_secs_f64() }))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().init();
    let arguments: Vec<String> = std::env::args().collect();
    let mut stop = signal(SignalKind::terminate()).expect("signals can be awaited");
    let client = Client::new(&arguments[1], &arguments[2])?.token(&*arguments[3]);
    let worker = client.worker("mail").function("send", send).function("later", later);
    let stopped = async move {
        stop.recv().await;
    };
    worker.run(stopped).await
}
