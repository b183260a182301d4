"""Kafka messages that kafka-python has no classes for, in the notation of its own.

Each class reads the file of its name beside this one.
"""

from kafka.protocol.api_message import ApiMessage


class ConsumerGroupHeartbeatRequest(ApiMessage, load_json=__name__):
    """A member of the KIP-848 protocol comes, lives or goes."""


class ConsumerGroupHeartbeatResponse(ApiMessage, load_json=__name__):
    """What it is to own."""


class ConsumerGroupDescribeRequest(ApiMessage, load_json=__name__):
    """Groups of the KIP-848 protocol, by name."""


class ConsumerGroupDescribeResponse(ApiMessage, load_json=__name__):
    """Their epochs and members."""
