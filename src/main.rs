//! The `sekali` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sekali::cli::main()
}
