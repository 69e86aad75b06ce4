//! Compiles the contract of a service that only tests have, by the generator of the contracts that ship.

#[path = "../proto/build/generator.rs"]
mod generator;

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/build");
    let descriptors = protox::compile(["test/echo/v1/echo.proto"], ["proto"])?;
    let mail = protox::compile(["test/mail/v1/mail.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("mail.bin"), prost::Message::encode_to_vec(&mail))?;
    tonic_prost_build::configure().build_client(false).compile_fds(mail)?;
    let contracts = generator::Contracts { descriptors, root: ".test", carried: &[], bytes: &[], boxed: &[] };
    generator::generate(contracts, &out)
}
