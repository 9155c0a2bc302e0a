"""CloudEvents from any Kafka producer: kcat (librdkafka), in structured, binary and batch form."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import missing
from tests.integration.streams_worker import (
    functions_and_rules,
    invocations,
    letters,
    register,
    workers,
)
from upon.kafka.admin import ensure_topics
from upon.messages import Invocation
from upon.serialize import loads_plain
from upon.topics import Topics

RULES = """
rules:
  - name: foreign
    upon: {type: [lab.foreign], beamline: [7bm]}
    run: {function: lab.take, args: ["${id}", "${subject}", "${data}", "${datacontenttype}"]}
"""

ATTRIBUTES = {"specversion": "1.0", "type": "lab.foreign", "source": "/kcat", "subject": "S-1", "beamline": "7bm"}


@pytest.fixture(scope="module")
def lab(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    """Topics with a worker whose rule gives back what it saw of an event."""
    if shutil.which("kcat") is None:
        missing("kcat is not installed: apt-get install kcat")
    topics = Topics(f"test-{secrets.token_hex(4)}")
    asyncio.run(ensure_topics(kafka, [*topics.shared(), *topics.of_site("local")]))
    register(kafka, topics, functions_and_rules(RULES, "lab.take"), "local")
    with workers(kafka, topics, tmp_path_factory.mktemp("lab")) as start:
        start().wait_ready()
        yield topics


def kcat(kafka: str, topics: Topics, value: bytes, *headers: str, key: str = "S-1") -> None:
    """Publish one record; each header is ``name=value``."""
    words = ["kcat", "-P", "-b", kafka, "-t", topics.events, "-k", key, "-D", "\x1e"]
    for header in headers:
        words += ["-H", header]
    subprocess.run(words, input=value, check=True, timeout=60)


async def seen(kafka: str, topics: Topics, kind: str, count: int = 1) -> list[Any]:
    """Return what the rule saw of the events whose id begins with `kind`, once there are `count`."""

    def values(found: list[Invocation]) -> list[Any]:
        return [one for one in (loads_plain(call.payload)[0] for call in found) if one[0].startswith(kind)]

    return values(await invocations(kafka, topics, lambda found: len(values(found)) >= count))


async def test_structured(kafka: str, lab: Topics) -> None:
    event = {**ATTRIBUTES, "id": "structured", "data": {"mass": 3, "é": [1.5, None]}}
    kcat(kafka, lab, json.dumps(event).encode(), "content-type=application/cloudevents+json; charset=UTF-8")
    assert await seen(kafka, lab, "structured") == [["structured", "S-1", {"mass": 3, "é": [1.5, None]}, None]]


async def test_structured_without_its_header(kafka: str, lab: Topics) -> None:
    kcat(kafka, lab, json.dumps({**ATTRIBUTES, "id": "bare"}).encode())
    assert await seen(kafka, lab, "bare") == [["bare", "S-1", None, None]]


@pytest.mark.parametrize(
    ("content_type", "value", "data"),
    [
        ("application/json", b'{"mass": 3}', {"mass": 3}),
        ("text/plain", "häuser".encode(), "häuser"),
        ("application/octet-stream", b"\x00\xff\n\x01", b"\x00\xff\n\x01"),
    ],
)
async def test_binary(kafka: str, lab: Topics, content_type: str, value: bytes, data: object) -> None:
    headers = [f"ce_{name}={text}" for name, text in ATTRIBUTES.items()]
    kcat(kafka, lab, value, *headers, f"ce_id={content_type}", f"content-type={content_type}")
    assert await seen(kafka, lab, content_type) == [[content_type, "S-1", data, content_type]]


async def test_batch(kafka: str, lab: Topics) -> None:
    events = [{**ATTRIBUTES, "id": f"batch-{number}", "data": number} for number in range(5)]
    kcat(kafka, lab, json.dumps(events).encode(), "content-type=application/cloudevents-batch+json")
    found = await seen(kafka, lab, "batch", 5)
    assert found == [[f"batch-{number}", "S-1", number, None] for number in range(5)]


async def test_binary_that_is_none_names_the_reason(kafka: str, lab: Topics) -> None:
    kcat(kafka, lab, b"{}", "ce_specversion=1.0", "ce_id=4", "ce_type=lab.foreign", "content-type=application/json")
    (dead,) = await letters(kafka, lab, 1)
    assert "source: is required" in dead.reason
    assert dict(dead.headers)["ce_id"] == b"4"
    assert dead.value == b"{}"
    assert dead.key == b"S-1"
