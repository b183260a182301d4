//! The table as a page of the users' documentation.

use std::fmt::Write;

use super::{
    GROUP_CONFIGS, KNOWN_BUT_ABSENT, NODE_CONFIGS, TOPIC_CONFIGS,
    def::{ConfigDef, ConfigKind, UpdateMode, Valid},
};

/// Every key, with type, default, bounds and meaning, as Markdown.
pub fn to_markdown() -> String {
    let mut page = String::new();
    for (title, table) in [
        ("## Topic configuration\n\n", TOPIC_CONFIGS),
        ("\n## Group configuration\n\n", GROUP_CONFIGS),
    ] {
        page.push_str(title);
        page.push_str("| Key | Type | Default | Takes | Node key that gives the default | Meaning |\n");
        page.push_str("|---|---|---|---|---|---|\n");
        for def in table {
            let synonyms: Vec<_> = def.synonyms.iter().map(|s| format!("`{}`", s.key)).collect();
            row(&mut page, def, &synonyms.join(", "));
        }
    }
    page.push_str("\n## Node configuration\n\n");
    page.push_str("| Key | Type | Default | Takes | Changed | Meaning |\n|---|---|---|---|---|---|\n");
    for def in NODE_CONFIGS {
        row(
            &mut page,
            def,
            match def.update {
                UpdateMode::ReadOnly => "at start",
                UpdateMode::PerBroker => "at runtime",
                UpdateMode::ClusterWide => "at runtime, for all",
            },
        );
    }
    page.push_str(
        "\n## Kafka's keys without an effect\n\nA node that is given one of these starts with a warning.\n\n",
    );
    for key in KNOWN_BUT_ABSENT {
        let _ = writeln!(page, "- `{key}`");
    }
    page
}

fn row(page: &mut String, def: &ConfigDef, fifth: &str) {
    let default = def
        .default
        .map_or_else(|| "—".to_owned(), |value| format!("`{value}`"));
    let kind = match def.kind {
        ConfigKind::Boolean => "boolean",
        ConfigKind::String => "string",
        ConfigKind::Int => "int",
        ConfigKind::Long => "long",
        ConfigKind::Double => "double",
        ConfigKind::List => "list",
    };
    let valid = match def.valid {
        Valid::Any => String::new(),
        Valid::NonEmpty => "not empty".to_owned(),
        Valid::AtLeast(least) => format!("≥ {least}"),
        Valid::Between(least, most) => format!("{least} to {most}"),
        Valid::Ratio => "0 to 1".to_owned(),
        Valid::OneOf(allowed) | Valid::OneOfAnyCase(allowed) => allowed.join(", "),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "| `{}` | {kind} | {default} | {valid} | {fifth} | {} |",
        def.name, def.doc
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_row() {
        let page = to_markdown();
        for def in TOPIC_CONFIGS.iter().chain(GROUP_CONFIGS) {
            assert!(page.contains(&format!("| `{}` |", def.name)));
        }
        assert!(page.contains("`num.network.threads`"));
    }
}
