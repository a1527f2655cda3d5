//! The `reelfs` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    reelfs::cli::main(std::env::args_os().collect())
}
