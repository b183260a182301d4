//! The one-way arrows between crates (docs/architecture.md): a crate may use what is drawn below it,
//! never what stands beside or above. `cargo metadata` is the witness.

use std::{collections::BTreeMap, process::Command};

/// Each crate with the crates of this workspace that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("metadata", &["protocol"]),
    ("storage", &["protocol", "metadata"]),
    ("replication", &["protocol", "metadata", "storage"]),
    ("controller", &["protocol", "metadata", "storage"]),
    ("broker", &["protocol", "metadata", "storage", "replication"]),
    (
        "ottla",
        &[
            "protocol",
            "metadata",
            "storage",
            "replication",
            "controller",
            "broker",
        ],
    ),
];

/// Crates under `tests/` and `bench/` may use any crate of the product; no product crate may use them.
const PRODUCT: &str = "/crates/";

#[test]
fn crates_use_only_what_lies_below_them() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo is running this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let members: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut seen = 0;
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        if !package["manifest_path"]
            .as_str()
            .is_some_and(|path| path.contains(PRODUCT))
        {
            continue;
        }
        let below = allowed
            .get(name)
            .unwrap_or_else(|| panic!("crate {name} is not drawn in the house"));
        seen += 1;
        for dependency in package["dependencies"].as_array().expect("a list") {
            let target = dependency["name"].as_str().expect("a name");
            if members.contains(&target) {
                assert!(below.contains(&target), "{name} must not use {target}");
            }
        }
    }
    assert_eq!(seen, ALLOWED.len(), "every crate of the house is there");
}
