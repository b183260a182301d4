//! Each anomaly, planted into a small sound history: found, by its name, and nothing else with it.

use chaos_checker::{Anomaly, Entry, Event, Outcome, Report, Rules, check, read_history};

const PRODUCER: u32 = 1;
const READER: u32 = 2;
const LAST_READER: u32 = 3;

fn entry(process: u32, event: Event) -> Entry {
    Entry {
        at_ms: 0,
        process,
        event,
    }
}

fn invoked(value: u64) -> Entry {
    entry(PRODUCER, Event::Invoked { partition: 0, value })
}

fn answered(value: u64, outcome: Outcome) -> Entry {
    entry(
        PRODUCER,
        Event::Answered {
            partition: 0,
            value,
            outcome,
        },
    )
}

fn acknowledged(value: u64, offset: i64) -> [Entry; 2] {
    let outcome = Outcome::Acknowledged { offset: Some(offset) };
    [invoked(value), answered(value, outcome)]
}

fn unknown(value: u64) -> [Entry; 2] {
    let error = "timed out".to_owned();
    [invoked(value), answered(value, Outcome::Unknown { error })]
}

fn refused(value: u64) -> [Entry; 2] {
    let error = "INVALID_TIMESTAMP".to_owned();
    [invoked(value), answered(value, Outcome::Refused { error })]
}

fn polled(records: &[(i64, u64)]) -> Entry {
    entry(
        READER,
        Event::Polled {
            partition: 0,
            records: records.to_vec(),
        },
    )
}

fn assigned() -> Entry {
    entry(READER, Event::Assigned { partition: 0 })
}

fn at_the_end(records: &[(i64, u64)]) -> Entry {
    entry(
        LAST_READER,
        Event::FinalRead {
            partition: 0,
            records: records.to_vec(),
        },
    )
}

/// Values 100, 101 and 102, acknowledged at offsets 0, 1 and 2.
fn three() -> Vec<Entry> {
    (0..3)
        .flat_map(|n| acknowledged(100 + n, n.cast_signed()))
        .collect()
}

const THREE: [(i64, u64); 3] = [(0, 100), (1, 101), (2, 102)];

fn judge(history: &[Entry]) -> Report {
    check(history, Rules::IDEMPOTENT)
}

#[track_caller]
fn finds(history: &[Entry], expected: &[&str]) {
    let found = judge(history).anomalies;
    let kinds: Vec<_> = found.iter().map(Anomaly::kind).collect();
    assert_eq!(kinds, expected, "{found:?}");
}

#[test]
fn a_sound_history_has_no_anomaly() {
    let mut history = three();
    // Unknown and read: it was committed. Unknown and not read: it was not.
    history.extend(unknown(103));
    history.extend(unknown(104));
    history.extend(refused(105));
    history.extend([polled(&THREE[..2]), polled(&[(2, 102), (3, 103)])]);
    history.push(at_the_end(&[(0, 100), (1, 101), (2, 102), (3, 103)]));
    let report = judge(&history);
    assert_eq!(report.anomalies, []);
    assert_eq!(
        (
            report.counts.sent,
            report.counts.acknowledged,
            report.counts.refused,
            report.counts.unknown
        ),
        (6, 3, 1, 2)
    );
    assert_eq!((report.counts.polled, report.counts.at_the_end), (4, 4));
}

#[test]
fn offsets_that_nobody_ever_saw_are_no_skip() {
    let mut history: Vec<_> = acknowledged(100, 0).into_iter().collect();
    history.extend(acknowledged(101, 7));
    history.extend([polled(&[(0, 100), (7, 101)]), at_the_end(&[(0, 100), (7, 101)])]);
    finds(&history, &[]);
}

#[test]
fn an_acknowledged_value_that_readers_passed_is_a_lost_write() {
    let mut history = three();
    history.push(at_the_end(&[THREE[0], THREE[2]]));
    // The reader who passed it saw the gap too.
    finds(&history, &["lost-write", "poll-skip"]);
}

#[test]
fn an_acknowledged_tail_that_is_gone_is_unseen() {
    let mut history = three();
    history.push(at_the_end(&THREE[..2]));
    finds(&history, &["unseen"]);
}

#[test]
fn an_acknowledgement_without_an_offset_must_be_kept_too() {
    let mut history = three();
    history.extend([
        invoked(103),
        answered(103, Outcome::Acknowledged { offset: None }),
    ]);
    history.push(at_the_end(&THREE));
    finds(&history, &["unseen"]);
}

#[test]
fn what_was_shown_and_is_gone_has_vanished_whatever_its_sender_knew() {
    let mut history = three();
    history.extend(unknown(103));
    history.extend([
        polled(&[THREE[0], THREE[1], THREE[2], (3, 103)]),
        at_the_end(&THREE),
    ]);
    finds(&history, &["vanished"]);
}

#[test]
fn an_overwritten_record_is_an_inconsistent_offset_and_a_loss() {
    let mut history = three();
    history.extend(acknowledged(103, 2));
    history.push(at_the_end(&[THREE[0], THREE[1], (2, 103)]));
    finds(
        &history,
        &["lost-write", "inconsistent-offsets", "nonmonotonic-send"],
    );
}

#[test]
fn two_readers_that_see_different_values_at_an_offset_are_noticed() {
    let mut history = three();
    history.extend(unknown(103));
    history.extend([polled(&[(2, 103)]), assigned(), at_the_end(&THREE)]);
    finds(&history, &["vanished", "inconsistent-offsets"]);
}

#[test]
fn a_value_at_two_offsets_is_a_duplicate_unless_retries_may_double() {
    let mut history = three();
    history.push(at_the_end(&[THREE[0], THREE[1], THREE[2], (3, 101)]));
    finds(&history, &["duplicate"]);
    let lenient = check(&history, Rules::AT_LEAST_ONCE);
    assert_eq!((lenient.anomalies.len(), lenient.counted.len()), (0, 1));
}

#[test]
fn a_duplicate_of_a_producer_that_gave_something_up_is_counted() {
    let mut history = three();
    history.extend(refused(103));
    history.push(at_the_end(&[THREE[0], THREE[1], THREE[2], (3, 101)]));
    let report = check(&history, Rules::IDEMPOTENT);
    assert_eq!((report.anomalies.len(), report.counted.len()), (0, 1));
}

#[test]
fn a_refused_value_that_is_read_is_an_aborted_read() {
    let mut history = three();
    history.extend(refused(103));
    history.push(at_the_end(&[THREE[0], THREE[1], THREE[2], (3, 103)]));
    finds(&history, &["aborted-read"]);
}

#[test]
fn a_value_that_nobody_sent_is_a_phantom() {
    let mut history = three();
    history.push(at_the_end(&[THREE[0], THREE[1], THREE[2], (3, 999)]));
    finds(&history, &["phantom"]);
}

#[test]
fn a_reader_that_is_not_given_a_record_was_made_to_skip() {
    let mut history = three();
    history.extend([polled(&THREE[..1]), polled(&THREE[2..]), at_the_end(&THREE)]);
    finds(&history, &["poll-skip"]);
    // Within one poll as between two.
    let mut history = three();
    history.extend([polled(&[THREE[0], THREE[2]]), at_the_end(&THREE)]);
    finds(&history, &["poll-skip"]);
}

#[test]
fn a_reader_that_is_thrown_back_is_noticed_and_one_that_goes_back_is_not() {
    let mut history = three();
    history.extend([polled(&THREE), polled(&THREE[1..]), at_the_end(&THREE)]);
    finds(&history, &["nonmonotonic-poll"]);
    let mut history = three();
    history.extend([
        polled(&THREE),
        assigned(),
        polled(&THREE[1..]),
        at_the_end(&THREE),
    ]);
    finds(&history, &[]);
}

#[test]
fn acknowledgements_out_of_the_order_of_sending_are_noticed() {
    let mut history: Vec<_> = acknowledged(101, 1).into_iter().collect();
    history.extend(acknowledged(100, 0));
    history.push(at_the_end(&THREE[..2]));
    finds(&history, &["nonmonotonic-send"]);
    assert_eq!(check(&history, Rules::AT_LEAST_ONCE).anomalies, []);
}

#[test]
fn a_history_without_its_end_proves_nothing() {
    let mut history = three();
    history.push(polled(&THREE));
    finds(&history, &["no-final-read"]);
}

#[test]
fn a_malformed_line_is_named() {
    let history = three();
    let text = format!("{}\n\n{{\"at_ms\":1}}\n", history[0].to_line());
    let error = read_history(text.as_bytes()).expect_err("the third line is no entry");
    assert!(error.to_string().starts_with("line 3: "), "{error}");
}
