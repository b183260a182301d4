"""The differences from a real Kafka that are meant: a pattern of `case: path`, and why.

docs/differences.md holds what a user may notice; the rest is here, with its reason.
"""

_LATER = "not built yet: only what is implemented is advertised"
_STRICT = "an unknown key is an error that names the nearest known one"
_ONE_ANSWER_EACH = "Kafka answers once for what stands in a request twice; here each gets its answer"
_NOT_HERE = "the key does not exist here"
_BETTER_CODE = "Kafka has no code for it (UNKNOWN_SERVER_ERROR)"

EXPECTED = {
    r"api versions: \.\d+": _LATER,
    r"metadata v[01] of an unknown topic: .*": "created at once, and told once it can be used",
    r"metadata of neither: .*": _BETTER_CODE + "; here UNKNOWN_TOPIC_ID",
}
