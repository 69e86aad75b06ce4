//! Workers by the clients in `clients/`: the example of each, as a program.

mod documented;

use std::time::Duration;

use anyhow::ensure;
use futures::FutureExt;
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::Engine,
    mesh::{Setup, Shape, TestMesh, ready},
    node_tool,
    process::{Process, free_address},
    token,
    worker_program::{Language, WorkerProgram, clients, package},
};
use tokio::process::Command;

/// Scenarios for the client of each language, in both shapes of the mesh.
macro_rules! languages {
    ($($module:ident $language:expr),* $(,)?) => {$(
        mod $module {
            use tests::{mesh::Shape, worker_program::Language};

            const LANGUAGE: Language = $language;

            #[tokio::test(flavor = "multi_thread")]
            async fn takes_calls_in_one_process() -> anyhow::Result<()> {
                super::a_worker_takes_calls(LANGUAGE, Shape::OneProcess).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn takes_calls_split() -> anyhow::Result<()> {
                super::a_worker_takes_calls(LANGUAGE, Shape::Split).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn comes_back() -> anyhow::Result<()> {
                super::a_worker_comes_back(LANGUAGE).await
            }
        }
    )*};
}

languages!(
    typescript Language::TypeScript,
    python Language::Python,
    go Language::Go,
    rust Language::Rust,
);

/// Service `mail`, whose workers staff registers.
fn service() -> String {
    let register = json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff" });
    let functions =
        json!({ "send": { "rule": { "rule": "allow" } }, "later": { "rule": { "rule": "allow" }, "timeout": "60s" } });
    let spec = json!({ "worker": { "register": register }, "functions": functions });
    json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string()
}

async fn call(client: &Client, function: &str, params: Value, timeout: f64) -> anyhow::Result<(u16, Value)> {
    client.post(&format!("services/mail/{function}"), &json!({ "params": params, "timeout": timeout })).await
}

async fn a_worker_takes_calls(language: Language, shape: Shape) -> anyhow::Result<()> {
    if language.is_left_out() {
        return Ok(());
    }
    let setup = Setup { resources: service(), ..Setup::default() };
    let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
    let (folder, url) = (tempfile::tempdir()?, format!("http://{}", mesh.client.address()));
    for (token, code) in [
        ("", "unauthenticated"),
        (&*token::customer(1), "permissiondenied"),
        // As it is read from a file.
        ("secret\n", "unauthenticated"),
    ] {
        let mut stranger = language.start("mail", folder.path(), &[&url, "shop", token])?;
        let (status, log) = (stranger.0.ended().await?, stranger.0.log());
        ensure!(status.code() == Some(1), "{status} {log}");
        ensure!(log.to_lowercase().replace('_', "").contains(code) && !log.contains("secret"), "{log}");
        std::fs::remove_file(folder.path().join("worker.log"))?;
    }

    let mut worker = language.start("mail", folder.path(), &[&url, "shop", &token::staff()])?;
    worker.printed("registered", 1).await?;
    let ann = mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    assert_eq!(call(&ann, "send", json!({ "to": "x" }), 0.0).await?, (200, json!({ "sent": "x", "by": "ann" })));
    // Without a token, and as large as the frames of no library by default.
    let large = "x".repeat(6_000_000);
    let sent = call(&mesh.client, "send", json!({ "to": large }), 30.0).await?;
    ensure!(sent == (200, json!({ "sent": large, "by": null })), "{}", sent.0);
    let failed = call(&ann, "send", json!({ "to": "" }), 0.0).await?;
    assert_eq!(failed, (500, json!({ "error": "to is required" })));

    // Several at once, each with its time.
    let together = (0..10).map(|_| call(&ann, "later", json!({ "seconds": 0.2 }), 20.0));
    for answer in futures::future::join_all(together).await {
        let (status, told) = answer?;
        let left = told["left"].as_f64().unwrap_or_default();
        // In seconds, or milliseconds.
        ensure!(status == 200 && (0.0..20_000.0).contains(&left) && left > 1.0, "{status} {told}");
    }
    // Its time is over, and then its caller leaves.
    assert_eq!(call(&ann, "later", json!({ "seconds": 60 }), 0.3).await?.0, 504);
    worker.printed("later: cancelled", 1).await?;
    tokio::select! {
        answered = call(&ann, "later", json!({ "seconds": 60 }), 60.0) => anyhow::bail!("{answered:?}"),
        begun = worker.printed("later: begun", 12) => begun?,
    }
    worker.printed("later: cancelled", 2).await?;

    // An answer that is too large fails alone.
    let long = mesh.client.with_token(&token::sign(json!({ "id": "x".repeat(1000) })));
    let large = "x".repeat((8 << 20) - 200);
    let too_large = async {
        worker.printed("later: begun", 13).await?;
        call(&long, "send", json!({ "to": large }), 30.0).await
    };
    let (kept, failed) = futures::join!(call(&ann, "later", json!({ "seconds": 5 }), 60.0), too_large);
    let (kept, failed) = (kept?, failed?);
    ensure!(kept.0 == 200, "{kept:?}");
    assert_eq!(failed, (500, json!({ "error": "the answer is over the limit of 8388608 bytes" })));

    stops(&mut worker, &ann, 14).await
}

/// Told to stop, it answers the call that it has, takes no more, and ends.
async fn stops(worker: &mut WorkerProgram, client: &Client, begun: usize) -> anyhow::Result<()> {
    let last = call(client, "later", json!({ "seconds": 1 }), 20.0);
    let stop = async {
        worker.printed("later: begun", begun).await?;
        worker.0.terminate().await
    };
    let (last, status) = futures::join!(last, stop);
    let (last, status) = (last?, status?);
    ensure!(last.0 == 200 && status.success(), "{last:?} {status} {}", worker.0.log());
    assert_eq!(call(client, "send", json!({ "to": "x" }), 0.0).await?.0, 503, "nobody is there");
    Ok(())
}

async fn a_worker_comes_back(language: Language) -> anyhow::Result<()> {
    if language.is_left_out() {
        return Ok(());
    }
    let (folder, address) = (tempfile::tempdir()?, free_address()?);
    std::fs::create_dir_all(folder.path().join("resources"))?;
    let tokens = json!([{ "kid": "main", "alg": "HS256", "secret": token::SECRET, "primary": true }]);
    let project = json!({ "kind": "project", "meta": { "id": "shop" }, "spec": { "tokens": tokens } });
    std::fs::write(folder.path().join("resources/shop.yaml"), format!("{project}\n---\n{}\n", service()))?;
    // The worker is there before the node.
    let arguments = [&*format!("http://{address}"), "shop", &*token::staff()];
    let mut worker = language.start("mail", folder.path(), &arguments)?;
    let mut node = Process::dev(folder.path(), address)?;
    let client = Client::new(address, "shop");
    ready(&client).await?;
    worker.printed("registered", 1).await?;
    assert_eq!(call(&client, "send", json!({ "to": "x" }), 0.0).await?.0, 200);

    // The node dies: what runs is given up.
    let lost = call(&client, "later", json!({ "seconds": 60 }), 60.0).map(|lost| lost.is_err());
    let kill = async {
        worker.printed("later: begun", 1).await?;
        node.kill()?;
        worker.printed("later: cancelled", 1).await
    };
    let (lost, killed) = futures::join!(lost, kill);
    killed?;
    ensure!(lost, "its caller is told nothing");
    node.restart()?;
    ready(&client).await?;
    worker.printed("registered", 2).await?;
    assert_eq!(call(&client, "send", json!({ "to": "x" }), 0.0).await?.0, 200);

    // The node stops: what runs is answered.
    let kept = call(&client, "later", json!({ "seconds": 1.5 }), 60.0);
    let terminate = async {
        worker.printed("later: begun", 2).await?;
        node.terminate().await
    };
    let (kept, terminated) = futures::join!(kept, terminate);
    ensure!(terminated?.success(), "the node stops: {}", node.log());
    assert_eq!(kept?.0, 200, "{}", worker.0.log());
    node.restart()?;
    ready(&client).await?;
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while call(&client, "send", json!({ "to": "x" }), 0.0).await?.0 != 200 {
        ensure!(tokio::time::Instant::now() < until, "it does not come back: {}", worker.0.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stops(&mut worker, &client, 3).await
}

/// The types of the package of Node are those of its code and its example.
#[tokio::test(flavor = "multi_thread")]
async fn the_types_of_typescript_hold() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let package = package(folder.path())?;
    let mut tsc = Command::new(node_tool::packages().join(".bin/tsc"));
    tsc.current_dir(package).args([
        "--noEmit",
        "--allowJs",
        "--checkJs",
        "--strict",
        "--skipLibCheck",
        "--noImplicitAny",
        "false",
    ]);
    tsc.args([
        "--module",
        "nodenext",
        "--target",
        "es2022",
        "index.js",
        "index.d.ts",
        "examples/mail.js",
        "examples/send.js",
    ]);
    node_tool::output(tsc).await?;
    Ok(())
}

/// The messages of the clients are those of the contract; `clients/generate` writes them anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_messages_are_those_of_the_contract() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut generate = Command::new(clients().join("generate"));
    generate.arg(folder.path());
    node_tool::output(generate).await?;
    for file in [
        "typescript/functions_pb.js",
        "typescript/functions_pb.d.ts",
        "python/perigee/api/v1/functions_pb2.py",
        "python/perigee/api/v1/functions_pb2.pyi",
        "go/functions/functions.pb.go",
    ] {
        if file.starts_with("go/") && Language::Go.is_left_out() {
            continue;
        }
        let (kept, wanted) = (clients().join(file), folder.path().join(file));
        ensure!(std::fs::read(&kept)? == std::fs::read(&wanted)?, "{file} is not what clients/generate writes");
    }
    Ok(())
}
