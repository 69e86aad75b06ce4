//! Compiles the contracts with protox: no protoc on the machine is needed.

#[path = "build/generator.rs"]
mod generator;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use generator::Contracts;

/// Messages of internal contracts that services use as types of the operation model.
const CARRIED: [(&str, &str); 9] = [
    (".perigee.crud.v1.ReadRequest", "crate::crud::ReadRequest"),
    (".perigee.crud.v1.WriteRequest", "crate::crud::WriteRequest"),
    (".perigee.crud.v1.DescribeRequest", "crate::crud::DescribeRequest"),
    (".perigee.crud.v1.DescribeResponse", "crate::crud::DescribeResponse"),
    (".perigee.auth.v1.AuthorizeRequest", "crate::auth::AuthorizeRequest"),
    (".perigee.auth.v1.AuthorizeResponse", "crate::auth::AuthorizeResponse"),
    (".perigee.auth.v1.ReachableRequest", "crate::auth::ReachableRequest"),
    (".perigee.auth.v1.ReachableResponse", "crate::auth::ReachableResponse"),
    (".perigee.realtime.v1.WatchRequest", "crate::realtime::WatchRequest"),
];

/// Path of the contracts for clients.
const PUBLIC: &str = "perigee/api";

/// Path of the contracts of the predecessor.
const PREDECESSOR: &str = "predecessor";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=perigee");
    println!("cargo:rerun-if-changed=predecessor");
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let public = protox::compile(contracts(Path::new(PUBLIC))?, ["."])?;
    fs::write(out.join("public.bin"), prost::Message::encode_to_vec(&public))?;
    tonic_prost_build::configure().bytes(".perigee.api.v1").compile_fds(public)?;

    let predecessor = protox::compile(contracts(Path::new(PREDECESSOR))?, ["."])?;
    tonic_prost_build::configure().bytes(".proto").compile_fds(predecessor)?;

    let internal: Vec<PathBuf> =
        contracts(Path::new("perigee"))?.into_iter().filter(|path| !path.starts_with(PUBLIC)).collect();
    let contracts = Contracts {
        descriptors: protox::compile(internal, ["."])?,
        root: ".perigee",
        carried: &CARRIED,
        bytes: &[
            ".perigee.crud.v1.Answer.json",
            ".perigee.crud.v1.Written.rows",
            ".perigee.realtime.v1.Row",
            ".perigee.crud.v1.Seen.position",
            ".perigee.crud.v1.LogRequest.after",
            ".perigee.crud.v1.LogResponse.position",
            ".perigee.crud.v1.Change",
            ".perigee.crud.v1.RecordedLoss.since",
            ".perigee.crud.v1.Capture.since",
            ".perigee.auth.v1.SignedGrant",
            ".perigee.storage.v1.PutRequest",
            ".perigee.storage.v1.GetResponse",
            ".perigee.auth.v1.AuthorizeCallRequest.params",
            ".perigee.auth.v1.EventAccess.payload",
            ".perigee.functions.v1.QueuedEvent.payload",
            ".perigee.functions.v1.QueueResponse.response",
            ".perigee.functions.v1.CallRequest.params",
            ".perigee.functions.v1.CallResponse.body",
            ".perigee.functions.v1.WorkResult.result",
            ".perigee.functions.v1.Invocation.params",
        ],
        boxed: &[".perigee.crud.v1.ReadResponse.seen"],
    };
    generator::generate(contracts, &out)
}

/// The contracts below a folder, in order of their paths.
fn contracts(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contracts(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
