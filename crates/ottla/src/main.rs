//! The `ottla` binary: parses arguments, starts roles, prints tables.

mod commands;
mod config;
mod logging;
mod roles;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;

/// Ottla: a Kafka-compatible event streaming cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ottla: {error:#}");
            ExitCode::FAILURE
        }
    }
}
