//! The `perigee` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match perigee::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}
