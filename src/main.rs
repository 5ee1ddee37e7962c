//! The `sekali` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Events are allocated on one thread and freed on another by the hundred thousand a second, where the system's
/// allocator contends for locks: docs/DESIGN.md has the measurement.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    sekali::cli::main()
}
