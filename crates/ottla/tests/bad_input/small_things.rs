//! gRPC requests that are small on the wire and would be large in memory: two bytes are an element that takes
//! a hundred.

use crate::{scene::Scene, strangers::call};

const MIB: u64 = 1 << 20;
/// The largest message.
const REQUEST: usize = 4 << 20;
/// What such a request may add to the node's memory, its own bytes on their way included. Decoded, the first of
/// them would take 235 MB.
const ADDED: u64 = 128 * MIB;

#[test]
fn requests_of_many_small_things() {
    let scene = Scene::start(&[]);
    scene.after("nothing yet", "");
    let before = scene.node.peak_memory().unwrap_or(0);
    let rows: &[(&str, &str, &[u8])] = &[
        ("empty records", "Records/Produce", &[0x12, 0]),
        ("empty records", "Records/ProduceMany", &[0x12, 0]),
        (
            "records with an empty header",
            "Records/Produce",
            &[0x12, 2, 0x1a, 0],
        ),
        ("empty offsets", "Records/Commit", &[0x12, 0]),
        ("empty topics", "Records/Committed", &[0x12, 0]),
        ("empty topics", "Admin/AdminCreateTopics", &[0x0a, 0]),
        ("empty names", "Admin/DescribeTopics", &[0x0a, 0]),
        ("empty names", "Admin/AdminDeleteGroups", &[0x0a, 0]),
    ];
    for &(what, method, element) in rows {
        let row = format!("{method}: 4 MiB of {what}");
        let message = element.repeat(REQUEST / element.len());
        let answer = call(scene.client(), &format!("/ottla.v1.{method}"), &message);
        assert!(answer.contains("grpc-status: 8"), "{row}: {answer}");
        assert!(answer.contains("too%20many%20small%20things"), "{row}: {answer}");
        scene.after(&row, "RESOURCE_EXHAUSTED");
        let added = scene.node.peak_memory().unwrap_or(0).saturating_sub(before);
        assert!(added < ADDED, "{row}: {} MiB more", added / MIB);
    }
}
