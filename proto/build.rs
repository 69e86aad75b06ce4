//! Compiles the contracts with protox: no protoc on the machine is needed.

use std::{env, error::Error, fs, path::PathBuf};

const CONTRACTS: [&str; 4] = [
    "perigee/query/v1/query.proto",
    "perigee/crud/v1/crud.proto",
    "perigee/auth/v1/auth.proto",
    "perigee/api/v1/data.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(CONTRACTS, ["."])?;
    let public = protox::compile(["perigee/api/v1/data.proto"], ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("public.bin"), prost::Message::encode_to_vec(&public))?;
    tonic_prost_build::configure()
        .bytes(".perigee.crud.v1.Answer.json")
        .bytes(".perigee.crud.v1.Written.rows")
        .bytes(".perigee.api.v1")
        .bytes(".perigee.auth.v1.SealedGrant")
        .compile_well_known_types(false)
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=perigee");
    Ok(())
}
