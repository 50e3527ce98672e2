//! The program `tract`.

use std::process::ExitCode;

// Many small short-lived allocations from many threads are what this program does.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tract::cli::main()
}
