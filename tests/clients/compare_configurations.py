"""Cases for compare_with_kafka.py: configurations of topics and brokers, described and altered."""

from kafka.protocol.admin import AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest

# Kinds of resources, and what is done to a key.
TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
RATE_OF_MOVES = "replica.alter.log.dirs.io.max.bytes.per.second"


def describe_configs(*resources, synonyms=True, documentation=False):
    """Each resource is (type, name, keys or None)."""
    kind = DescribeConfigsRequest.DescribeConfigsResource
    return DescribeConfigsRequest(
        version=4,
        resources=[kind(resource_type=t, resource_name=n, configuration_keys=keys) for t, n, keys in resources],
        include_synonyms=synonyms,
        include_documentation=documentation,
    )


def alter(*resources, validate=False):
    """IncrementalAlterConfigs; each resource is (type, name, [(key, operation, value)])."""
    kind = IncrementalAlterConfigsRequest.AlterConfigsResource
    return IncrementalAlterConfigsRequest(
        version=1,
        resources=[
            kind(
                resource_type=t,
                resource_name=n,
                configs=[kind.AlterableConfig(name=k, config_operation=op, value=v) for k, op, v in configs],
            )
            for t, n, configs in resources
        ],
        validate_only=validate,
    )


def alter_all(*resources, validate=False):
    """AlterConfigs; each resource is (type, name, [(key, value)])."""
    kind = AlterConfigsRequest.AlterConfigsResource
    return AlterConfigsRequest(
        version=2,
        resources=[
            kind(resource_type=t, resource_name=n, configs=[kind.AlterableConfig(name=k, value=v) for k, v in configs])
            for t, n, configs in resources
        ],
        validate_only=validate,
    )


def by_name(answer):
    """Lists of configurations as maps: their order means nothing."""
    for result in answer["results"]:
        result["configs"] = {config.pop("name"): config for config in result["configs"]}
    return answer


def cases():
    """(name, function of a side): in order; later ones may see what earlier ones did."""
    yield "describe a topic", lambda s: by_name(s.ask(describe_configs((TOPIC, "configured", None))))
    yield "describe a topic without synonyms", lambda s: s.ask(
        describe_configs((TOPIC, "configured", ["retention.ms", "cleanup.policy"]), synonyms=False)
    )
    yield "describe a broker", lambda s: by_name(s.ask(describe_configs((BROKER, "1", None))))
    yield "describe the default of brokers", lambda s: by_name(s.ask(describe_configs((BROKER, "", None))))
    for name, *resource in [
        ("an unknown topic", TOPIC, "nope", None),
        ("no topic", TOPIC, "", None),
        ("a bad topic name", TOPIC, "a b", None),
        ("another broker", BROKER, "9", None),
        ("a broker with a name", BROKER, "one", None),
        ("an unknown type", 77, "x", None),
        ("an unknown key", TOPIC, "t", ["nope"]),
    ]:
        yield f"describe {name}", lambda s, r=resource: s.ask(describe_configs(tuple(r)))

    yield "describe no keys: all", lambda s: (
        len(s.ask(describe_configs((TOPIC, "t", [])))["results"][0]["configs"]) > 20
    )

    for name, kind, target, *configs in [
        ("an unknown key", TOPIC, "configured", ("nope", SET, "1")),
        ("a bad number", TOPIC, "configured", ("retention.ms", SET, "soon")),
        ("a number below its least", TOPIC, "configured", ("segment.bytes", SET, "1")),
        ("a bad enumeration", TOPIC, "configured", ("cleanup.policy", SET, "nope")),
        ("a bad codec", TOPIC, "configured", ("compression.type", SET, "nope")),
        ("null", TOPIC, "configured", ("retention.ms", SET, None)),
        ("empty", TOPIC, "configured", ("retention.ms", SET, "")),
        ("append to a number", TOPIC, "configured", ("retention.ms", APPEND, "1")),
        ("append to a list", TOPIC, "configured", ("cleanup.policy", APPEND, "compact")),
        ("append what is there", TOPIC, "configured", ("cleanup.policy", APPEND, "compact")),
        ("subtract from a list", TOPIC, "configured", ("cleanup.policy", SUBTRACT, "compact")),
        ("subtract what is not there", TOPIC, "configured", ("cleanup.policy", SUBTRACT, "compact")),
        ("delete what is not set", TOPIC, "configured", ("segment.ms", DELETE, None)),
        ("delete an unknown key", TOPIC, "configured", ("nope", DELETE, None)),
        ("a key twice", TOPIC, "configured", ("retention.ms", SET, "1"), ("retention.ms", SET, "2")),
        ("an unknown operation", TOPIC, "configured", ("retention.ms", 9, "1")),
        ("an unknown topic", TOPIC, "nope", ("retention.ms", SET, "1")),
        ("no topic", TOPIC, "", ("retention.ms", SET, "1")),
        ("a bad topic name", TOPIC, "a b", ("retention.ms", SET, "1")),
        ("another broker", BROKER, "9", ("log.retention.ms", SET, "1000")),
        ("a broker with a name", BROKER, "one", ("log.retention.ms", SET, "1000")),
        ("a read-only key of a broker", BROKER, "1", ("log.dirs", SET, "/tmp")),
        ("a read-only key of all brokers", BROKER, "", ("node.id", SET, "3")),
        ("an unknown key of a broker", BROKER, "1", ("nope", SET, "3")),
        ("a topic's key of a broker", BROKER, "1", ("retention.ms", SET, "3000")),
        ("the rate of moves", BROKER, "1", (RATE_OF_MOVES, SET, "1000000")),
        ("the rate of moves of all brokers", BROKER, "", (RATE_OF_MOVES, SET, "0")),
        ("no rate of moves", BROKER, "1", (RATE_OF_MOVES, SET, "-1")),
        ("a fraction as the rate of moves", BROKER, "1", (RATE_OF_MOVES, SET, "0.5")),
        ("an unknown type", 77, "x", ("retention.ms", SET, "1")),
        ("nothing", TOPIC, "configured"),
    ]:
        yield f"alter: {name}", lambda s, r=(kind, target, configs): s.ask(alter(r))
        yield f"alter, validated only: {name}", lambda s, r=(kind, target, configs): s.ask(alter(r, validate=True))
    yield "alter: a resource twice", lambda s: s.ask(
        alter((TOPIC, "small", [("retention.ms", SET, "1")]), (TOPIC, "small", [("retention.ms", SET, "2")]))
    )
    for name, kind, target, *configs in [
        ("an unknown key", TOPIC, "configured", ("nope", "1")),
        ("a bad number", TOPIC, "configured", ("retention.ms", "soon")),
        ("null", TOPIC, "configured", ("retention.ms", None)),
        ("an unknown topic", TOPIC, "nope", ("retention.ms", "1")),
        ("no topic", TOPIC, "", ("retention.ms", "1")),
        ("a key twice", TOPIC, "configured", ("retention.ms", "1"), ("retention.ms", "2")),
        ("one key", TOPIC, "configured", ("segment.ms", "60000")),
    ]:
        yield f"alter all: {name}", lambda s, r=(kind, target, configs): s.ask(alter_all(r))
    def after_that(side):
        def shows(answer):
            values = {config["name"]: config["value"] for config in answer["results"][0]["configs"]}
            # What the last of these has set, and what it has not named.
            return (values["segment.ms"], values["retention.ms"]) == ("60000", "604800000")

        return by_name(side.ask_until(describe_configs((TOPIC, "configured", None)), shows))

    yield "describe after that", after_that

    def cluster_default(side):
        side.ask(alter((BROKER, "", [("log.retention.ms", SET, "777000")])))
        side.ask(alter((BROKER, "1", [("log.segment.bytes", SET, "7770000")])))
        asked = describe_configs((TOPIC, "small", ["retention.ms", "segment.bytes"]), (BROKER, "1", ["log.retention.ms"]))

        def shows(answer):
            of_topic, of_broker = (
                {config["name"]: config["value"] for config in result["configs"]} for result in answer["results"]
            )
            return (
                of_topic == {"retention.ms": "777000", "segment.bytes": "7770000"}
                and of_broker == {"log.retention.ms": "777000"}
            )

        answer = side.ask_until(asked, shows)
        side.ask(alter((BROKER, "", [("log.retention.ms", DELETE, None)])))
        side.ask(alter((BROKER, "1", [("log.segment.bytes", DELETE, None)])))
        return answer

    yield "a topic under brokers' dynamic settings", cluster_default

    def rate_of_moves(side):
        asked = describe_configs((BROKER, "1", [RATE_OF_MOVES]))

        def shows(answer):
            return [config["value"] for config in answer["results"][0]["configs"]] == ["1000000"]

        answer = side.ask_until(asked, shows)
        for broker in ("1", ""):
            side.ask(alter((BROKER, broker, [(RATE_OF_MOVES, DELETE, None)])))
        return by_name(answer)

    yield "describe the rate of moves", rate_of_moves
