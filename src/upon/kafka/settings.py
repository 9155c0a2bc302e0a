"""Every setting of every Kafka client, with its reason. The clients' own defaults lose records or seconds."""

from __future__ import annotations

from typing import Any

from upon.messages import MAX_RECORD

REQUEST_TIMEOUT_MS = 60_000
"""How long a client keeps trying while the broker is away; a restart after kill -9 takes 4 to 10 s."""
SESSION_TIMEOUT_MS = 6_000
"""A dead group member's partitions move after this; the least that brokers allow by default."""
HEARTBEAT_INTERVAL_MS = 1_500
LOOK_MS = 5_000
"""How often a client looks for new partitions, and for topics that are gone."""


def async_producer(kafka: str, client_id: str) -> dict[str, Any]:
    """aiokafka: neither idempotence nor acks=all are its defaults."""
    return {
        "bootstrap_servers": kafka,
        "client_id": client_id,
        "acks": "all",
        "enable_idempotence": True,
        "max_request_size": MAX_RECORD,
        "max_batch_size": 1024 * 1024,  # aiokafka fills a batch while one is under way: this is the load case
        "linger_ms": 0,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 50,
        "metadata_max_age_ms": LOOK_MS,
    }


def async_consumer(kafka: str, client_id: str, group: str | None, reset: str = "earliest") -> dict[str, Any]:
    """aiokafka: offsets are committed by hand, after the effect.

    Args:
        reset: where a consumer begins whose position the log does not have; ``none``: it raises.
    """
    return {
        "bootstrap_servers": kafka,
        "client_id": client_id,
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": reset,
        "fetch_max_bytes": 4 * MAX_RECORD,
        "max_partition_fetch_bytes": MAX_RECORD,
        "fetch_max_wait_ms": 1000,  # a waiting fetch returns as soon as there is data; fewer empty ones when idle
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 50,
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS,
        "metadata_max_age_ms": LOOK_MS,
    }


def sync_producer(kafka: str, client_id: str) -> dict[str, Any]:
    """kafka-python 3: idempotence and acks=all are its defaults; stated all the same."""
    return {
        "bootstrap_servers": kafka,
        "client_id": client_id,
        "acks": "all",
        "enable_idempotence": True,
        "max_request_size": MAX_RECORD,
        "allow_auto_create_topics": False,
        "reconnect_backoff_max_ms": 1_000,
        "delivery_timeout_ms": 2 * REQUEST_TIMEOUT_MS,
        "bootstrap_timeout_ms": 5_000,  # an attempt to connect; the default of 30 s would leave a user in the dark
        "max_block_ms": 5_000,  # the same for a topic that is not there
        "metadata_max_age_ms": LOOK_MS,  # its default is 300 s
    }


def faust_app(kafka: str, client_id: str, group: str, datadir: str) -> dict[str, Any]:
    """Faust as a consumer with agents: no tables, no web server, no topics of its own, no acknowledgements of its own.

    Args:
        client_id: for the broker's logs.
        group: consumer group, which is Faust's app id.
        datadir: where Faust makes its (empty) folders; its default is the working directory.
    """
    never = 86_400.0 * 365
    return {
        "id": group,
        "broker": [f"aiokafka://{address.strip()}" for address in kafka.split(",")],
        "broker_client_id": client_id,
        "datadir": datadir,
        "autodiscover": False,
        "web_enabled": False,
        "topic_allow_declare": False,  # topics are created by the service alone
        "topic_disable_leader": True,
        "reply_create_topic": False,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": MAX_RECORD,
        "consumer_metadata_max_age_ms": LOOK_MS,
        "broker_request_timeout": REQUEST_TIMEOUT_MS / 1000,
        "broker_session_timeout": SESSION_TIMEOUT_MS / 1000,
        "broker_heartbeat_interval": HEARTBEAT_INTERVAL_MS / 1000,
        "broker_rebalance_timeout": 30.0,
        "broker_commit_interval": never,  # the stream worker commits itself; this also silences a watchdog that cries
        "broker_commit_livelock_soft_timeout": never,  # wolf about partitions without traffic
        "stream_processing_timeout": never,
        "stream_buffer_maxsize": 256,  # records; each may be a batch of 1 MB
        "stream_wait_empty": False,
        "stream_recovery_delay": 0.0,
    }
