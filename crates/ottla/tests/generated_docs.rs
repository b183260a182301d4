//! `docs/configuration.md` and `docs/protocol-support.md` say what the code's own tables say.
//!
//! A page that is not current fails its test; `OTTLA_WRITE_DOCS=1 cargo test -p ottla --test
//! generated_docs` writes it anew.

use std::{env, fmt::Write, fs, path::Path};

use broker::kafka::api::APIS;

const CONFIGURATION: &str = "\
# Configuration

A node reads a `.properties` file with Kafka's keys. A variable of the environment overrides a key of the file
(`OTTLA_NODE_ID` is `node.id`, `OTTLA_LOG_DIRS` is `log.dirs`), and `--set key=value` overrides both. A key that
nobody knows is an error that names the nearest known one; a key that Kafka has and Ottla does not is a warning.

What may change at runtime is changed with `kafka-configs`, `ottla configs` or any Kafka admin client. Where a
topic's key is set in several places, the nearest wins: the topic, this broker's dynamic value, the cluster-wide
dynamic default, the node's file, the built-in default. `min.insync.replicas` alone is never set for a single
broker ([decision 2](decisions/0002-min-insync-replicas-is-the-same-everywhere.md)). Defaults that differ from
Kafka's are in [differences.md](differences.md) with their reasons.

";

const PROTOCOL_SUPPORT: &str = "\
# Protocol support

The Kafka APIs and versions that the client port answers; ApiVersions advertises exactly these. Any other API or
version closes the connection, as Kafka does. ApiVersions alone answers a version that is too new with the range
that it knows (KIP-511). What an API leaves out or does in its own way is in [differences.md](differences.md).

| API | Key | Versions advertised | Versions answered |
|---|---|---|---|
";

const PROTOCOL_NOTES: &str = "
Produce 0 to 2 are advertised and close the connection: Kafka 4 does the same, because older librdkafka takes
compression to be missing where they are not advertised.

Records travel in batches of format version 2 (magic 2), compressed with gzip, snappy, lz4, zstd or not at all.
The public gRPC services on the same port are described in `proto/ottla/v1/admin.proto` and `records.proto`, and by reflection.
";

fn configuration() -> String {
    format!("{CONFIGURATION}{}", metadata::configs::to_markdown())
}

fn protocol_support() -> String {
    let mut page = String::from(PROTOCOL_SUPPORT);
    for api in APIS {
        writeln!(
            page,
            "| {:?} | {} | {} to {} | {} to {} |",
            api.key, api.key as i16, api.advertised_from, api.to, api.served_from, api.to
        )
        .expect("writing to a String cannot fail");
    }
    page + PROTOCOL_NOTES
}

/// Compares a page with what the code says, or writes it where that is asked for.
fn check(name: &str, current: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    if env::var_os("OTTLA_WRITE_DOCS").is_some_and(|value| value == "1") {
        fs::write(&path, current).expect("the pages are writable");
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found
        .lines()
        .zip(current.lines())
        .position(|(found, current)| found != current)
        .unwrap_or_else(|| found.lines().count().min(current.lines().count()));
    assert!(
        found == current,
        "docs/{name} is not current from line {} on; OTTLA_WRITE_DOCS=1 cargo test -p ottla --test \
         generated_docs writes it",
        differs + 1
    );
}

#[test]
fn the_configuration_page_is_current() {
    check("configuration.md", &configuration());
}

#[test]
fn the_protocol_page_is_current() {
    check("protocol-support.md", &protocol_support());
}
