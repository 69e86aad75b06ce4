//! Compiles the contract of a service that only tests have, by the generator of the contracts that ship.

#[path = "../proto/build/generator.rs"]
mod generator;

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/build");
    let descriptors = protox::compile(["test/echo/v1/echo.proto"], ["proto"])?;
    let contracts = generator::Contracts { descriptors, root: ".test", carried: &[], bytes: &[], boxed: &[] };
    generator::generate(contracts, &PathBuf::from(env::var("OUT_DIR")?))
}
