"""The service's pure deciders: splitting of batches, records of events, lag, addresses, names of fields, tokens."""

from __future__ import annotations

import asyncio
from operator import attrgetter

import msgspec
import pytest
from openapi_spec_validator import validate

from tests.services import invocation
from upon import errors
from upon.errors import ConfigError, EventError, FunctionError, InputError, PayloadTooLarge, UponError
from upon.events import Event
from upon.messages import MAX_PAYLOAD, Cause, FunctionCode, Timings, encode
from upon.portions import portions as portions_of
from upon.service.app import listen_address
from upon.service.lag import behind
from upon.service.registrar import check_code, check_name
from upon.service.rest.events import SLICE, entry_of, read_entries
from upon.service.rest.openapi import document
from upon.service.rest.problems import status_of
from upon.service.rest.routes import ROUTES
from upon.service.rest.views import hops, moment
from upon.service.submission import check_description


def test_what_describes_an_invocation_has_a_limit() -> None:
    subject = "x" * 40_000
    cause = Cause(rule="r", rule_revision=1, event_id="e", event_type="t", event_source="/s", event_subject=subject)
    check_description(invocation("1"), 400)
    with pytest.raises(PayloadTooLarge, match="names, retry and cause take"):
        check_description(invocation("1", cause=cause), len(encode(invocation("1", cause=cause))))


async def test_events_that_are_none_name_their_place() -> None:
    good = Event(type="t", source="/s").to_dict()
    for body, message in (
        ([good, {k: v for k, v in good.items() if k != "id"}], r"^\[1\]: id: is required"),
        ({**good, "specversion": "0.3"}, r"^specversion"),
        ([3], r"^\[0\]: an event is a JSON object"),
    ):
        with pytest.raises(EventError, match=message):
            await read_entries(msgspec.json.encode(body))
    for wrong in (b"", b"[", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"[1e999]"):
        with pytest.raises((InputError, EventError)):
            await read_entries(wrong)
    with pytest.raises(PayloadTooLarge, match="limit"):
        entry_of(Event(type="t", source="/s", data="x" * MAX_PAYLOAD))


async def test_many_events_are_read_while_others_have_their_turn() -> None:
    events = [Event(type="t", source="/s", id=str(n), subject=str(n % 7)).to_dict() for n in range(5_000)]
    body = msgspec.json.encode(events)
    reading = asyncio.ensure_future(read_entries(b" " + body))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    ids, entries = await reading
    assert ids == [str(n) for n in range(5_000)]
    assert turns >= len(body) // SLICE
    portions = list(portions_of(entries, attrgetter("size"), SLICE))
    assert [entry for some in portions for entry in some] == entries
    assert all(sum(entry.size for entry in some) <= SLICE + 1_000 for some in portions)


def test_lag() -> None:
    ends = {("t", 0): 10, ("t", 1): 5, ("u", 0): 7}
    begins = {("t", 0): 4, ("t", 1): 0, ("u", 0): 0}
    assert behind({}, begins, ends, {"t"}) == 6 + 5
    assert behind({("t", 0): 9, ("t", 1): 5}, begins, ends, {"t"}) == 1
    assert behind({("t", 0): 2}, begins, ends, {"t"}) == 6 + 5, "what retention took is not waited for"
    assert behind({("t", 0): 99, ("t", 1): 99}, begins, ends, {"t"}) == 6 + 5, "past the end: it was made anew"
    assert behind({}, begins, ends, set()) == 0


def test_hops_are_those_that_were_taken() -> None:
    assert hops(None, 0, Timings(), 0) == []
    found = hops(None, 1_000_000, Timings(started=3_000_000, finished=4_500_000), 0)
    assert [(hop.name, hop.after) for hop in found] == [("submitted", 0.0), ("started", 2.0), ("finished", 3.5)]
    assert moment(0) is None
    assert moment(2**63 - 1) is not None
    assert moment(10**30) is None, "a time no calendar has"
    assert moment(1_767_225_600_123_456_789) == "2026-01-01T00:00:00.123456Z"


def test_addresses() -> None:
    assert listen_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert listen_address("[::1]:8700") == ("::1", 8700)
    for wrong in ("", "8700", ":8700", "host:", "host:x", "host:99999"):
        with pytest.raises(ConfigError, match="UPON_LISTEN"):
            listen_address(wrong)


def test_names_and_code() -> None:
    for good in ("a", "_a", "0.a-b_c", "thumbs.make"):
        check_name(good)
    for bad in ("", "-a", ".a", "a/b", "a@1", "a\n"):
        with pytest.raises(FunctionError):
            check_name(bad)
    for wrong in (FunctionCode(hash="", body=b"", python=""), FunctionCode(hash="0" * 64, body=b"x", python="")):
        with pytest.raises(FunctionError):
            check_code(wrong)


def test_every_error_has_a_status() -> None:
    found = {name: status_of(cls("x")) for name, cls in errors.all_errors().items()}
    assert found["RuleError"] == found["EventError"] == 400
    assert found["KafkaUnavailable"] == found["ServiceUnavailable"] == 503
    assert found["PayloadTooLarge"] == 413
    assert all(status == 404 for name, status in found.items() if name.endswith("NotFound") and name[0] != "J")
    assert status_of(UponError("x")) == 500


def test_the_description_is_valid() -> None:
    described = document(ROUTES)
    validate(described)
    assert set(described["paths"]) == {route.path for route in ROUTES}
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)
