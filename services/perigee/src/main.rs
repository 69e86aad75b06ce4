//! The `perigee` command.

use std::process::ExitCode;

// The allocator takes the place of the C library's `malloc`, for SQLite too. As Rust's global allocator it would be asked
// for aligned memory each time, which costs it three times as much.
use mimalloc as _;

fn main() -> ExitCode {
    match perigee::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}
