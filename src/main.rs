//! The `casemate` command: hands the command line to `cli` and the configuration to `app`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use casemate::{app, cli};

fn main() -> ExitCode {
    let config = match cli::start(std::env::args_os(), std::env::vars_os()) {
        cli::Next::Exit(code) => return code,
        cli::Next::Serve(config) => config,
    };
    cli::init_logging(&config, std::env::var_os("JOURNAL_STREAM").is_some());
    let runtime = match cli::runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("casemate: threads cannot be started ({error}): raise the limits of this user");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(app::run(*config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate: {error}");
            error.exit_code()
        }
    }
}
