//! Tables for people, JSON for programs: the same rows.

use std::io::Write;

use comfy_table::{Table, presets};
use serde_json::{Map, Value};

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table with headings.
    Table,
    /// A JSON array with one object a row.
    Json,
}

/// Rows under headings; a heading in lower case with `_` for blanks is the JSON key.
#[derive(Debug)]
pub(crate) struct Rows {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(crate) fn new<const N: usize>(headings: [&'static str; N]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn push<const N: usize>(&mut self, row: [Value; N]) {
        debug_assert_eq!(N, self.headings.len(), "a cell for every heading");
        self.rows.push(row.into());
    }

    /// Prints to standard output.
    pub(crate) fn print(self, format: Format) {
        let text = match format {
            Format::Table => self.table().to_string(),
            Format::Json => format!("{:#}", self.json()),
        };
        // A reader that has seen enough, such as `head`, is no failure.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Prints to standard output; a table without a row is not worth its headings where the failure of
    /// everything was said already.
    pub(crate) fn print_if_any(self, format: Format) {
        if format == Format::Json || !self.rows.is_empty() {
            self.print(format);
        }
    }

    fn table(self) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(self.headings.iter().map(|heading| heading.to_uppercase()));
        for row in self.rows {
            table.add_row(row.into_iter().map(|cell| {
                match cell {
                    Value::String(text) => text,
                    Value::Null => "-".to_owned(),
                    Value::Array(items) => items
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(","),
                    other => other.to_string(),
                }
            }));
        }
        table
    }

    fn json(self) -> Value {
        let keys: Vec<String> = self
            .headings
            .iter()
            .map(|heading| heading.replace(' ', "_"))
            .collect();
        let object = |row: Vec<Value>| Value::Object(keys.iter().cloned().zip(row).collect::<Map<_, _>>());
        Value::Array(self.rows.into_iter().map(object).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let mut rows = Rows::new(["topic", "leader epoch", "isr"]);
        rows.push(["orders".into(), 3.into(), vec![1, 2].into()]);
        rows
    }

    #[test]
    fn json_keys_are_the_headings() {
        let json = rows().json();
        assert_eq!(json[0]["leader_epoch"], 3);
        assert_eq!(json[0]["isr"][1], 2);
    }

    #[test]
    fn tables_are_for_people() {
        let text = rows().table().to_string();
        assert!(text.contains("LEADER EPOCH") && text.contains("1,2"), "{text}");
    }
}
