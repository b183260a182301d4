//! The lag of groups among the metrics of a running broker, in records and in seconds.

use crate::{
    ground::{produce, topic, wait_for},
    group_offsets::commit,
    groups::coordinator,
    support::{DevNode, batch},
};

/// A series of one partition, as long as it is shown.
fn shown(node: &DevNode, metric: &str, group: &str, topic: &str) -> Option<f64> {
    let page = node.http_get("/metrics").expect("an answer");
    let series = format!(r#"{metric}{{group="{group}",topic="{topic}",partition="0"}} "#);
    let value = page.lines().find_map(|line| line.strip_prefix(&series))?;
    Some(value.parse().expect("a number"))
}

#[test]
fn lag_in_records_and_in_seconds() {
    let node = DevNode::shared();
    let group = "lags";
    let topic = topic(&node, "of-lags");
    let mut client = coordinator(&node, group);
    for _ in 0..5 {
        produce(&mut client, &topic, batch(&[b"v"]));
    }
    let records = || shown(&node, "ottla_group_lag", group, &topic.name);
    let seconds = || shown(&node, "ottla_group_lag_seconds", group, &topic.name);
    assert_eq!((records(), seconds()), (None, None), "nobody has committed");

    assert_eq!(commit(&mut client, 9, group, &topic.name, 2).0, 0);
    wait_for("a lag", || records() == Some(3.0));
    let first = seconds().expect("both are shown");
    wait_for("an older lag", || seconds().expect("it stays") >= first + 9.0);
    assert_eq!(records(), Some(3.0));

    assert_eq!(commit(&mut client, 9, group, &topic.name, 5).0, 0);
    wait_for("no lag", || (records(), seconds()) == (Some(0.0), Some(0.0)));
}
