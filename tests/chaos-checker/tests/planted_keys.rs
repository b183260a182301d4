//! Each anomaly of a compacted topic, planted into a small sound history: found, by its name, with what else
//! must come of it and nothing more.

use chaos_checker::{
    Anomaly, Entry, Event, Holder, KeyRecord, Outcome, Report, Rules, Verdict, check, read_history,
};

const PRODUCER: u32 = 1;
const ANOTHER: u32 = 2;
const READER: u32 = 3;
const LAST_READER: u32 = 4;

fn entry(process: u32, event: Event) -> Entry {
    Entry {
        at_ms: 0,
        process,
        event,
    }
}

/// A write of a process, and how it ended.
fn sent(process: u32, key: u32, version: u64, tombstone: bool, outcome: Outcome) -> [Entry; 2] {
    let invoked = Event::KeyInvoked {
        partition: 0,
        key,
        version,
        tombstone,
    };
    let answered = Event::KeyAnswered {
        partition: 0,
        key,
        version,
        outcome,
    };
    [entry(process, invoked), entry(process, answered)]
}

fn at(offset: i64) -> Outcome {
    Outcome::Acknowledged { offset: Some(offset) }
}

const SOMEWHERE: Outcome = Outcome::Acknowledged { offset: None };

fn unknown() -> Outcome {
    Outcome::Unknown {
        error: "silence".to_owned(),
    }
}

/// After which librdkafka begins a new producer epoch.
fn timed_out() -> Outcome {
    Outcome::Unknown {
        error: "Message production error: MessageTimedOut".to_owned(),
    }
}

fn refused() -> Outcome {
    Outcome::Refused {
        error: "INVALID_TIMESTAMP".to_owned(),
    }
}

const fn value(offset: i64, key: u32, version: u64) -> KeyRecord {
    KeyRecord {
        offset,
        key,
        version,
        tombstone: false,
    }
}

const fn tombstone(offset: i64, key: u32, version: u64) -> KeyRecord {
    KeyRecord {
        tombstone: true,
        ..value(offset, key, version)
    }
}

const KEY_1: KeyRecord = value(2, 1, 2);
const KEY_2: KeyRecord = value(1, 2, 1);
const KEY_3: KeyRecord = tombstone(4, 3, 2);
const LAST: KeyRecord = value(5, 9, 1);

/// Key 1 at offsets 0 and 2, key 2 at 1, key 3 at 3 and deleted at 4, key 9 at 5: all acknowledged.
fn six() -> Vec<Entry> {
    [
        (1, 1, false),
        (2, 1, false),
        (1, 2, false),
        (3, 1, false),
        (3, 2, true),
        (9, 1, false),
    ]
    .into_iter()
    .zip(0..)
    .flat_map(|((key, version, tombstone), offset)| sent(PRODUCER, key, version, tombstone, at(offset)))
    .collect()
}

fn polled(records: &[KeyRecord]) -> Entry {
    let records = records.to_vec();
    entry(
        READER,
        Event::KeysPolled {
            partition: 0,
            records,
        },
    )
}

fn held(holder: Holder, records: &[KeyRecord]) -> Entry {
    let event = Event::KeysAtTheEnd {
        partition: 0,
        holder,
        records: records.to_vec(),
    };
    entry(LAST_READER, event)
}

/// The six, cleaned by everybody in his own way: clients are given a tombstone, replica 1 has it no more,
/// replica 2 has what it deleted too. `more` is behind that.
fn end(history: &mut Vec<Entry>, more: &[KeyRecord]) {
    let with = |records: &[KeyRecord]| [records, more].concat();
    history.extend([
        held(Holder::Clients, &with(&[KEY_2, KEY_1, KEY_3, LAST])),
        held(Holder::Replica(1), &with(&[KEY_2, KEY_1, LAST])),
        held(
            Holder::Replica(2),
            &with(&[KEY_2, KEY_1, value(3, 3, 1), KEY_3, LAST]),
        ),
    ]);
}

/// The six, and all holders have the same.
fn end_with(records: &[KeyRecord]) -> Vec<Entry> {
    let mut history = six();
    let holders = [Holder::Clients, Holder::Replica(1), Holder::Replica(2)];
    history.extend(holders.map(|holder| held(holder, records)));
    history
}

/// The six, and replica 2 alone has something else.
fn end_where_replica_2_has(records: &[KeyRecord]) -> Vec<Entry> {
    let mut history = six();
    history.extend([
        held(Holder::Clients, &[KEY_2, KEY_1, KEY_3, LAST]),
        held(Holder::Replica(1), &[KEY_2, KEY_1, LAST]),
        held(Holder::Replica(2), records),
    ]);
    history
}

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
    let mut history = six();
    // Unknown and read: it was committed. Unknown and not read: it was not.
    history.extend(sent(PRODUCER, 4, 1, false, unknown()));
    history.extend(sent(PRODUCER, 4, 2, false, unknown()));
    history.extend(sent(PRODUCER, 5, 1, false, refused()));
    history.push(polled(&[value(0, 1, 1), KEY_2, KEY_1, LAST, value(6, 4, 1)]));
    end(&mut history, &[value(6, 4, 1)]);
    let report = judge(&history);
    assert_eq!((report.anomalies, report.counted), (vec![], vec![]));
    let keys = report.keys;
    assert_eq!((keys.keys, keys.sent, keys.tombstones), (6, 9, 1));
    assert_eq!((keys.acknowledged, keys.unknown), (6, 2));
    assert_eq!(
        (keys.polled, keys.at_the_end, keys.live, keys.tombstones_gone),
        (5, 5, 4, 0)
    );
    let text: String = history.iter().map(|entry| entry.to_line() + "\n").collect();
    let again = read_history(text.as_bytes()).expect("what was written is read");
    assert_eq!(again, history);
}

#[test]
fn a_deleted_key_may_be_gone_with_its_tombstone() {
    let history = end_with(&[KEY_2, KEY_1, LAST]);
    let report = judge(&history);
    assert_eq!((report.anomalies, report.keys.tombstones_gone), (vec![], 1));
}

#[test]
fn a_key_that_is_gone_is_lost() {
    let lost = ["key-lost", "key-lost", "key-lost"];
    finds(&end_with(&[KEY_1, LAST]), &lost);
    assert!(judge(&end_with(&[KEY_1, LAST])).has_loss());
    // One replica's loss is a loss, whoever leads.
    finds(
        &end_where_replica_2_has(&[KEY_1, LAST]),
        &["key-lost", "key-diverged"],
    );
}

#[test]
fn a_key_that_somebody_was_given_and_that_is_gone_is_lost_whatever_its_sender_knew() {
    let mut history = six();
    history.extend(sent(PRODUCER, 4, 1, false, unknown()));
    history.push(polled(&[value(6, 4, 1)]));
    end(&mut history, &[]);
    finds(&history, &["key-lost", "key-lost", "key-lost"]);
}

#[test]
fn a_key_without_its_last_write_is_stale() {
    let stale = ["key-stale", "key-stale", "key-stale"];
    let before = [value(0, 1, 1), KEY_2, LAST];
    finds(&end_with(&before), &stale);
    assert!(judge(&end_with(&before)).has_loss());
    finds(&end_where_replica_2_has(&before), &["key-stale", "key-diverged"]);
}

#[test]
fn an_acknowledgement_without_an_offset_must_be_kept_too() {
    let with = |writes: &[(u64, bool, Outcome)], more: &[KeyRecord]| {
        let mut history = six();
        for (version, tombstone, outcome) in writes {
            history.extend(sent(PRODUCER, 4, *version, *tombstone, outcome.clone()));
        }
        end(&mut history, more);
        history
    };
    let (lost, stale) = (["key-lost"; 3], ["key-stale"; 3]);
    let first = (1, false, at(6));
    finds(&with(&[(1, false, SOMEWHERE)], &[]), &lost);
    finds(
        &with(&[first.clone(), (2, false, SOMEWHERE)], &[value(6, 4, 1)]),
        &stale,
    );
    finds(
        &with(&[first.clone(), (2, false, SOMEWHERE)], &[value(7, 4, 2)]),
        &[],
    );
    finds(&with(&[first, (2, true, SOMEWHERE)], &[]), &[]);
}

#[test]
fn a_deleted_key_that_is_there_again_is_noticed() {
    let history = end_where_replica_2_has(&[KEY_2, KEY_1, value(3, 3, 1), LAST]);
    finds(&history, &["key-resurrected", "key-diverged"]);
    // Where a replica was away for longer than tombstones are kept, it never heard of it.
    let rules = Rules {
        resurrections: Verdict::Counted,
        ..Rules::IDEMPOTENT
    };
    let report = check(&history, rules);
    assert_eq!((report.anomalies.len(), report.counted.len()), (0, 2));
    // Which excuses nothing else.
    let stale = end_where_replica_2_has(&[value(0, 1, 1), KEY_2, LAST]);
    assert_eq!(check(&stale, rules).anomalies.len(), 2);
}

#[test]
fn only_a_tombstone_that_may_have_come_last_excuses_that_a_key_is_gone() {
    let gone_with = |tombstone: [Entry; 2]| {
        let mut history = six();
        history.extend(tombstone);
        let rest = [KEY_1, LAST];
        let holders = [Holder::Clients, Holder::Replica(1)];
        history.extend(holders.map(|holder| held(holder, &rest)));
        history
    };
    finds(&gone_with(sent(PRODUCER, 2, 2, true, unknown())), &[]);
    // It did not happen.
    finds(
        &gone_with(sent(PRODUCER, 2, 2, true, refused())),
        &["key-lost"; 2],
    );
    // It is no tombstone.
    finds(
        &gone_with(sent(PRODUCER, 2, 2, false, unknown())),
        &["key-lost"; 2],
    );
    // It was in front, by its process's order; a process that has ended may still have had it on its way.
    finds(
        &gone_with(sent(PRODUCER, 2, 0, true, unknown())),
        &["key-lost"; 2],
    );
    finds(&gone_with(sent(ANOTHER, 2, 0, true, unknown())), &[]);
}

#[test]
fn a_key_that_goes_back_is_noticed() {
    let mut history = six();
    end(&mut history, &[value(6, 1, 1)]);
    finds(&history, &["key-went-back"]);
    // The same again.
    let mut history = six();
    end(&mut history, &[value(6, 1, 2)]);
    finds(&history, &["key-went-back"]);
    let lenient = check(&history, Rules::AT_LEAST_ONCE);
    assert_eq!((lenient.anomalies.len(), lenient.counted.len()), (0, 1));
    // Also where compaction has taken it since.
    let mut history = six();
    history.push(polled(&[value(6, 1, 1)]));
    history.extend(sent(PRODUCER, 1, 3, false, at(7)));
    history.extend([
        held(Holder::Clients, &[KEY_2, KEY_3, LAST, value(7, 1, 3)]),
        held(Holder::Replica(1), &[KEY_2, LAST, value(7, 1, 3)]),
    ]);
    finds(&history, &["key-went-back"]);
}

#[test]
fn a_producer_that_gave_something_up_may_send_a_key_again() {
    let mut history = six();
    history.extend(sent(PRODUCER, 4, 1, false, timed_out()));
    end(&mut history, &[value(6, 1, 1)]);
    let report = judge(&history);
    assert_eq!((report.anomalies.len(), report.counted.len()), (0, 1));
}

#[test]
fn what_a_process_that_has_ended_had_on_its_way_may_come_late_unless_it_was_told() {
    let late = |outcome| {
        let mut history: Vec<_> = sent(ANOTHER, 1, 0, false, outcome).into();
        history.extend(six());
        end(&mut history, &[value(6, 1, 0)]);
        history
    };
    let report = judge(&late(unknown()));
    assert_eq!((report.anomalies.len(), report.counted.len()), (0, 1));
    finds(&late(at(6)), &["key-went-back"]);
}

#[test]
fn what_nobody_sent_so_is_a_phantom() {
    let with = |more: KeyRecord| {
        let mut history = six();
        history.extend(sent(PRODUCER, 4, 1, false, unknown()));
        history.extend(sent(PRODUCER, 5, 1, false, refused()));
        end(&mut history, &[more]);
        history
    };
    finds(&with(value(6, 4, 1)), &[]);
    finds(&with(value(6, 7, 1)), &["key-phantom"]);
    finds(&with(value(6, 4, 2)), &["key-phantom"]);
    finds(&with(tombstone(6, 4, 1)), &["key-phantom"]);
    finds(&with(value(6, 5, 1)), &["key-phantom"]);
}

#[test]
fn an_offset_with_two_writes_is_noticed() {
    let mut history = end_where_replica_2_has(&[value(1, 4, 1), KEY_1, LAST]);
    history.extend(sent(PRODUCER, 4, 1, false, unknown()));
    // It stands where key 2 stood, which replica 2 has no more.
    let more = ["key-lost", "key-diverged", "key-diverged"];
    finds(&history, &[&["key-offsets"][..], &more].concat());
}

#[test]
fn a_reader_that_is_not_given_a_last_value_was_made_to_skip() {
    let with = |polls: &[Entry]| {
        let mut history = six();
        history.extend_from_slice(polls);
        end(&mut history, &[]);
        history
    };
    finds(&with(&[polled(&[KEY_2]), polled(&[LAST])]), &["key-skip"]);
    finds(&with(&[polled(&[KEY_2, LAST])]), &["key-skip"]);
    // What compaction may have taken by then, a tombstone too, is no skip.
    finds(&with(&[polled(&[KEY_2, KEY_1, LAST])]), &[]);
}

#[test]
fn a_reader_that_is_thrown_back_is_noticed_and_one_that_goes_back_is_not() {
    let with = |polls: &[Entry]| {
        let mut history = six();
        history.extend_from_slice(polls);
        end(&mut history, &[]);
        history
    };
    let again = [polled(&[KEY_2, KEY_1]), polled(&[KEY_1])];
    finds(&with(&again), &["key-thrown-back"]);
    let assigned = entry(READER, Event::KeyAssigned { partition: 0 });
    finds(&with(&[again[0].clone(), assigned, again[1].clone()]), &[]);
    // Files that hold the same offsets twice.
    finds(
        &end_where_replica_2_has(&[KEY_2, KEY_1, KEY_2, LAST]),
        &["key-thrown-back"],
    );
}

#[test]
fn replicas_that_do_not_agree_are_noticed_where_nobody_knows_who_is_right() {
    let mut history = end_where_replica_2_has(&[KEY_2, KEY_1, LAST, value(6, 2, 2)]);
    history.extend(sent(PRODUCER, 2, 2, false, unknown()));
    finds(&history, &["key-diverged"]);
    let mut history = end_where_replica_2_has(&[KEY_2, KEY_1, LAST, value(6, 4, 1)]);
    history.extend(sent(PRODUCER, 4, 1, false, unknown()));
    finds(&history, &["key-diverged"]);
}

#[test]
fn a_log_that_was_never_cleaned_proves_nothing() {
    let all = [value(0, 1, 1), KEY_2, KEY_1, value(3, 3, 1), KEY_3, LAST];
    finds(&end_where_replica_2_has(&all), &["not-compacted"]);
    // Nor does one in which there is nothing to clean.
    let mut history: Vec<_> = sent(PRODUCER, 1, 1, false, at(0)).into();
    let holders = [Holder::Clients, Holder::Replica(1)];
    history.extend(holders.map(|holder| held(holder, &[value(0, 1, 1)])));
    finds(&history, &["not-compacted"; 2]);
}

#[test]
fn a_history_without_its_end_proves_nothing() {
    let mut history = six();
    history.push(held(Holder::Clients, &[KEY_2, KEY_1, LAST]));
    finds(&history, &["key-no-final-read"]);
    let mut history = six();
    history.push(held(Holder::Replica(1), &[KEY_2, KEY_1, LAST]));
    finds(&history, &["key-no-final-read"]);
    finds(&six(), &["key-no-final-read"; 2]);
}
