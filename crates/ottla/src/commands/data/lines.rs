//! A record as one line of text: `header=value,…<tab>key<separator>value`, as the options say.

use anyhow::{Context, bail};

/// How lines are cut.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LineFormat {
    /// What stands between key and value; without it, lines have no key.
    #[arg(long, short = 'K', value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// Lines begin with headers, `name=value,name=value`, and a tab.
    #[arg(long)]
    pub(crate) headers: bool,
}

/// A line, cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) key: Option<&'a str>,
    pub(crate) value: &'a str,
}

impl LineFormat {
    /// Cuts a line; what the options ask for must be there.
    pub(crate) fn parse<'a>(&self, line: &'a str) -> anyhow::Result<Line<'a>> {
        let (headers, rest) = if self.headers {
            let (headers, rest) = line
                .split_once('\t')
                .with_context(|| format!("{line:?} has no tab after its headers (--headers)"))?;
            let headers = headers
                .split(',')
                .filter(|header| !header.is_empty())
                .map(|header| {
                    header
                        .split_once('=')
                        .with_context(|| format!("header {header:?} is not name=value"))
                })
                .collect::<anyhow::Result<_>>()?;
            (headers, rest)
        } else {
            (Vec::new(), line)
        };
        let (key, value) = match &self.key_separator {
            Some(separator) => match rest.split_once(separator.as_str()) {
                Some((key, value)) => (Some(key), value),
                None => bail!("{rest:?} has no key separator {separator:?}"),
            },
            None => (None, rest),
        };
        Ok(Line { headers, key, value })
    }

    /// Writes a record as a line, without the line's end.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        headers: &[(&str, &[u8])],
        key: Option<&[u8]>,
        value: &[u8],
    ) {
        if self.headers {
            for (at, (name, value)) in headers.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                out.extend_from_slice(value);
            }
            out.push(b'\t');
        }
        if let Some(separator) = &self.key_separator {
            out.extend_from_slice(key.unwrap_or_default());
            out.extend_from_slice(separator.as_bytes());
        }
        out.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> LineFormat {
        LineFormat {
            key_separator: Some(":".to_owned()),
            headers: true,
        }
    }

    #[test]
    fn lines_round_trip() {
        let line = "a=1,a=2\tkey:value:with:colons";
        let cut = format().parse(line).expect("well formed");
        assert_eq!(cut.headers, [("a", "1"), ("a", "2")]);
        assert_eq!((cut.key, cut.value), (Some("key"), "value:with:colons"));
        let headers: Vec<_> = cut
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        let mut out = Vec::new();
        format().write(
            &mut out,
            &headers,
            cut.key.map(str::as_bytes),
            cut.value.as_bytes(),
        );
        assert_eq!(out, line.as_bytes());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(format().parse("no tab").is_err());
        assert!(format().parse("x\tk:v").is_err());
        assert!(format().parse("\tno separator").is_err());
        assert_eq!(LineFormat::default().parse("k:v").expect("plain").value, "k:v");
    }
}
