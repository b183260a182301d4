//! `ottla completions`: the command line, known to a shell.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Arguments of `ottla completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ottla completions bash > /etc/bash_completion.d/ottla
  ottla completions zsh > \"${fpath[1]}/_ottla\"
  ottla completions fish > ~/.config/fish/completions/ottla.fish")]
pub(crate) struct Completions {
    /// The shell that reads the script.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        // Into memory first: the generator panics where its output ends early, as in `| head`.
        let mut script = Vec::new();
        generate(self.shell, &mut crate::Arguments::command(), "ottla", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        let mut arguments = crate::Arguments::command();
        let names: Vec<String> = arguments
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        assert!(names.iter().any(|name| name == "dump-log"), "{names:?}");
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let mut script = Vec::new();
            generate(shell, &mut arguments, "ottla", &mut script);
            let script = String::from_utf8(script).expect("scripts are text");
            for name in &names {
                assert!(script.contains(name), "{shell} does not learn {name}");
            }
        }
    }
}
