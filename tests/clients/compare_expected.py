"""The differences from a real Kafka that are meant: a pattern of `case: path`, and why.

docs/differences.md has what a user may notice. Both lists are kept true by compare_with_kafka.py: it fails on a
difference that is not here, and on a line here that nothing meets any more.
"""

_LATER = "not built yet: only what is implemented is advertised"
_STRICT = "an unknown key is an error that names the nearest known one"
_TWICE = "what stands in a request twice is answered twice; Kafka answers once"
_NO_SUCH_KEY = "a key that only one of the two has"
_NO_CODE = "Kafka fails with UNKNOWN_SERVER_ERROR, or not at all; here a code says what is wrong"
_TEXT = "the texts for people are our own"
_LOG_START = "a refused batch is not told the log's start"
_BATCH_CODE = "bytes that are no batch: CORRUPT_MESSAGE and INVALID_RECORD are drawn apart elsewhere"
_DEFAULTS = "defaults that differ on purpose"
_OTHER_NODE = "nodes, folders, roles and listeners of two different clusters"
_IN_FILE = "set in the file of one of them"
_FIXED = "this key is not dynamic here, or is where Kafka's is not"

EXPECTED = {
    r"api versions: \.\d+ \(only Kafka\)": _LATER,
    r"api versions: \.(1|2|8|9|35)": _LATER,
    r"metadata v[01] of an unknown topic: .*": "created at once, and answered once it can be used",
    r"metadata of neither: .*": _NO_CODE,
    r"create.*: twice in one request: \.topics": _TWICE,
    r"create.*: an internal name: \.topics\[0\]\.error_code": "INVALID_TOPIC_EXCEPTION, as for every bad name",
    r"create: (defaults|an assignment): \.topics\[0\]\.configs": _NO_SUCH_KEY,
    r"partitions: a topic twice: \.results": _TWICE,
    r"delete: (twice|name and id of one topic): .*": _TWICE,
    r"offsets of a partition twice: .*": _TWICE + ", and Kafka with INVALID_REQUEST",
    r"delete records: a partition twice: .*": _TWICE,
    r"describe (a topic|after that): .* \(only (Kafka|Ottla)\)": _NO_SUCH_KEY,
    r"describe (a topic|after that): .*\.flush\.messages\..*": _DEFAULTS,
    r"describe (a topic|after that): .*\.min\.insync\.replicas\..*": _DEFAULTS,
    r"describe (a topic|after that): .*\.(flush|segment|retention)\.ms\.synonyms": "Kafka hides some defaults",
    r"describe a broker: .* \(only (Kafka|Ottla)\)": _NO_SUCH_KEY,
    r"describe a broker: .*\.(broker\.(session|heartbeat)\S*|log\.flush\.interval\.messages)\.\S+": _DEFAULTS,
    r"describe a broker: .*\.min\.insync\.replicas\..*": _DEFAULTS,
    r"describe a broker: .*\.(listeners|advertised\.listeners|process\.roles|controller\.\S+|log\.dirs?)\..*": _OTHER_NODE,
    r"describe a broker: .*\.(inter\.broker\.listener\.name|listener\.security\.protocol\.map)\..*": _OTHER_NODE,
    r"describe a broker: .*\.(auto\.create\.topics\.enable|num\.partitions)\..*": _IN_FILE,
    r"describe a broker: .*\.offsets\.topic\.replication\.factor\.(value|config_source|synonyms)": _IN_FILE,
    r"describe a broker: .*\.offsets\.topic\.replication\.factor\.config_type": "as wide as every other number",
    r"describe a broker: .*\.read_only": _FIXED,
    r"describe the default of brokers: .*\.min\.insync\.replicas \(only Kafka\)": _DEFAULTS,
    r"alter(, validated only)?: delete an unknown key: .*": _STRICT,
    r"alter(, validated only)?: an unknown key of a broker: .*": _STRICT,
    r"alter(, validated only)?: a topic's key of a broker: .*": _STRICT,
    r"alter(, validated only)?: an unknown operation: .*": _NO_CODE,
    r"alter(, validated only)?: another broker: .*": "any broker takes it; Kafka wants that broker itself asked",
    r"alter(, validated only)?: (no|a fraction as the) rate of moves: .*error_code": "INVALID_CONFIG, as for every bad key",
    r"alter(, validated only)?: a read-only key of .*: .*error_code": "INVALID_CONFIG, as for every bad key",
    r"a topic under brokers' dynamic settings: .*synonyms.*": "the same values; the last synonym's name differs",
    r"describe the rate of moves: .*synonyms": "Kafka hides some defaults",
    r"elect everything preferred: .*": "Kafka lists topics of which no partition needed it, empty",
    r"elect an unknown type: .*": "refused for the whole request",
    r"produce: null: ": "Kafka never answers that",
    r"produce: .*: .*\.log_start_offset": _LOG_START,
    r"produce: .*: .*\.batch_index_error_message": _TEXT,
    r"produce: (ten bytes|a cut batch|a byte too many|magic 3): .*": _BATCH_CODE,
    r"produce: (an unknown codec|not gzip): .*": _NO_CODE,
    r"produce: append time from a client: .*": "refused; Kafka takes it and clears the mark",
    r"fetch: .*\.aborted_transactions": "an empty list; Kafka says null for read_uncommitted",
    r"(consumer group|static member): .*_epoch": "Kafka 4.3 counts from 2, and before that from 1, as here",
    r"consumer group: a commits in an older epoch: .*": "STALE_MEMBER_EPOCH, as in Kafka before 4.3 (KIP-1251)",
    r"fetch: a later last epoch: .*": "told where its epoch ends; Kafka says OFFSET_OUT_OF_RANGE",
}
