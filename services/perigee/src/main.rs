//! The `perigee` command.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request makes some hundred small allocations: with this one they cost half of what the system's allocator takes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match perigee::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}
