//! What needs no gateway.

use std::{fs, path::Path};

use crate::{Client, Error};

/// The code in `generated.rs` is that of the contract. With `UPDATE_GENERATED=1` it is written anew.
#[test]
fn the_generated_code_is_that_of_the_contract() {
    let out = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = protox::compile(["perigee/api/v1/functions.proto"], [here.join("../../proto")]).unwrap();
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .out_dir(out.path())
        .compile_fds(contract)
        .unwrap();
    let wanted = fs::read_to_string(out.path().join("perigee.api.v1.rs")).unwrap();
    let file = here.join("src/generated.rs");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    assert!(fs::read_to_string(file).unwrap() == wanted, "UPDATE_GENERATED=1 writes it anew");
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    for url in ["", "localhost:4122", "ftp://localhost", "http://"] {
        assert!(matches!(Client::new(url, "shop"), Err(Error::Address(_))), "{url}");
    }
    let worker = Client::new("http://localhost:1", "shop").unwrap().worker("mail");
    assert!(matches!(worker.run(std::future::pending()).await, Err(Error::NoFunctions)));
}
