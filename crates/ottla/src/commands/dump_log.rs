//! `ottla dump-log`: prints segment files in the words of `kafka-dump-log`, through the code that reads
//! them.

use std::{
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use storage::dump::{DumpOptions, dump_segment};

/// Print segment files: `.log`, `.index`, `.timeindex` and `.snapshot`. Exit code 1 where something in
/// them is not as it should be.
#[derive(Debug, clap::Args)]
pub(crate) struct DumpLog {
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// A line for each record.
    #[arg(long)]
    deep_iteration: bool,
    /// Each record's key and value too.
    #[arg(long)]
    print_data_log: bool,
    /// Only the index entries that do not fit the log.
    #[arg(long)]
    verify_index_only: bool,
    /// End after so many bytes of a `.log` file.
    #[arg(long)]
    max_bytes: Option<u64>,
}

impl DumpLog {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let options = DumpOptions {
            deep: self.deep_iteration,
            print_data: self.print_data_log,
            verify_only: self.verify_index_only,
            max_bytes: self.max_bytes,
        };
        let stdout = std::io::stdout();
        let mut out = BufWriter::new(stdout.lock());
        let mut sound = true;
        for file in &self.files {
            // Its text already names the file and the cause.
            let summary = dump_segment(file, &options, &mut out).map_err(anyhow::Error::msg)?;
            sound &= summary.is_sound();
        }
        out.flush()?;
        Ok(if sound {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
