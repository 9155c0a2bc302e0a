"""Every setting of every Kafka client, with its reason. The clients' own defaults lose records or seconds."""

from __future__ import annotations

from typing import Any

from upon.messages import MAX_RECORD

REQUEST_TIMEOUT_MS = 60_000
"""How long a client keeps trying while the broker is away; a restart after kill -9 takes 4 to 10 s."""


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
        "metadata_max_age_ms": 60_000,
    }


def async_consumer(kafka: str, client_id: str, group: str | None) -> dict[str, Any]:
    """aiokafka: offsets are committed by hand, after the effect; a consumer without committed offset begins at 0."""
    return {
        "bootstrap_servers": kafka,
        "client_id": client_id,
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "fetch_max_bytes": 4 * MAX_RECORD,
        "max_partition_fetch_bytes": MAX_RECORD,
        "fetch_max_wait_ms": 1000,  # a waiting fetch returns as soon as there is data; fewer empty ones when idle
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 50,
        "session_timeout_ms": 6_000,  # a dead member's partitions move after this
        "heartbeat_interval_ms": 1_500,
        "metadata_max_age_ms": 60_000,
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
    }
