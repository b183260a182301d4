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
            eprintln!("ottla: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// What went wrong and why, each thing said once: some errors name their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence.push_str(": ");
            sentence.push_str(&cause);
        }
    }
    sentence
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let told = anyhow!("no space")
            .context("cannot write x: no space")
            .context("cannot start");
        assert_eq!(sentence(&told), "cannot start: cannot write x: no space");
        let untold = anyhow!("no space").context("cannot write x");
        assert_eq!(sentence(&untold), "cannot write x: no space");
    }
}
