//! The `mapsmith` program: takes the arguments and hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    mapsmith::cli::main()
}
