//! `ottla groups`: what people see of groups and do to them.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    ground::topic,
    group_offsets::commit,
    groups::{coordinator, stable},
    support::DevNode,
};

/// Calls `ottla groups`.
fn ottla_groups(node: &DevNode, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.arg("groups").args(arguments);
    command.args([
        "--output",
        "json",
        "--bootstrap-server",
        &node.address().to_string(),
    ]);
    command.output().expect("the binary runs")
}

/// The rows of a call that must succeed.
pub(crate) fn rows(node: &DevNode, arguments: &[&str]) -> Vec<Value> {
    let output = ottla_groups(node, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What a call says that must not succeed.
pub(crate) fn refused(node: &DevNode, arguments: &[&str]) -> String {
    let output = ottla_groups(node, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn groups_on_the_command_line() {
    let node = DevNode::shared();
    let (with_members, idle) = ("cli-members", "cli-idle");
    let topic = topic(&node, "cli-topic").name;
    let mut client = coordinator(&node, with_members);
    let member = stable(&mut client, with_members);
    let mut client = coordinator(&node, idle);
    assert_eq!(commit(&mut client, 9, idle, &topic, 0).0, 0);

    let listed = rows(&node, &["list"]);
    let state_of = |group: &str| {
        let row = listed.iter().find(|row| row["group"] == group);
        row.map(|row| row["state"].clone())
    };
    assert_eq!(state_of(with_members), Some("Stable".into()));
    assert_eq!(state_of(idle), Some("Empty".into()));
    let empty = rows(&node, &["list", "--state", "Empty"]);
    assert!(empty.iter().all(|row| row["state"] == "Empty"));
    let of_type = |kind: &str| rows(&node, &["list", "--type", kind, "--state", "stable"]);
    let members = |row: &Value| row["group"] == with_members;
    assert!(of_type("classic").iter().any(members));
    assert!(!of_type("Consumer").iter().any(members));
    let slip = refused(&node, &["list", "--state", "stabel"]);
    assert!(
        slip.contains("\"stabel\"") && slip.contains("CompletingRebalance"),
        "{slip}"
    );
    assert!(refused(&node, &["list", "--type", "share"]).contains("classic, consumer"));

    let described = rows(&node, &["describe", with_members]);
    assert_eq!(described.len(), 1);
    assert_eq!(described[0]["member"], *member);
    let both = rows(&node, &["describe", idle, with_members]);
    let names: Vec<_> = both.iter().map(|row| &row["group"]).collect();
    assert_eq!(names, [idle, with_members], "as they were asked for");
    // Others come and go meanwhile.
    let all = rows(&node, &["lag"]);
    assert!(all.iter().any(|row| row["group"] == idle), "{all:?}");
    let lag = rows(&node, &["lag", idle]);
    assert_eq!(lag.len(), 1);
    assert_eq!(
        (&lag[0]["committed_offset"], &lag[0]["end_offset"], &lag[0]["lag"]),
        (&0.into(), &0.into(), &0.into())
    );

    assert!(refused(&node, &["delete", with_members]).contains("NON_EMPTY_GROUP"));
    let busy = refused(&node, &["reset-offsets", with_members, "--to-latest"]);
    assert!(busy.contains("NON_EMPTY_GROUP"), "{busy}");
    assert!(refused(&node, &["describe", "no-such-group"]).contains("GROUP_ID_NOT_FOUND"));
    assert!(refused(&node, &["reset-offsets", idle]).contains("--to-earliest"));

    let dry = rows(&node, &["reset-offsets", idle, "--to-offset", "5"]);
    assert_eq!((&dry[0]["before"], &dry[0]["after"]), (&0.into(), &0.into()));
    assert_eq!(rows(&node, &["delete", idle]).len(), 1);
    assert!(refused(&node, &["delete", idle]).contains("GROUP_ID_NOT_FOUND"));
}
