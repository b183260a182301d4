//! MetadataLogMatching: what a broker, or a controller that believes to be active, has folded from the metadata
//! log is what the log gives at that offset, whichever controllers streamed it in whichever pieces.

use metadata::ClusterImage;

use crate::broker::Broker;
use crate::checker::Checker;
use crate::controller::Active;

/// `images` has one image for each entry of the log. What was compared is not compared again.
pub(super) fn poll(
    brokers: &mut [Broker],
    actives: &mut [Active],
    images: &[ClusterImage],
    checker: &mut Checker,
) {
    let processes = brokers.iter_mut().filter_map(|broker| {
        let process = broker.process.as_mut()?;
        Some((broker.id, &process.seen, &mut process.compared))
    });
    let actives = actives
        .iter_mut()
        .map(|active| (active.node, &active.committed, &mut active.compared));
    for (node, folded, compared) in processes.chain(actives) {
        let Some(offset) = folded.offset.filter(|_| folded.offset != *compared) else {
            continue;
        };
        *compared = folded.offset;
        if images.get(offset.0 as usize) != Some(folded) {
            let what = format!("node {node} has another image at offset {offset} than the log gives");
            checker.fail("MetadataLogMatching", what);
        }
    }
}
