"""Dead letters: there is always one, it always fits, and it is the same one each time."""

from __future__ import annotations

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from upon.deadletters import (
    MAX_REASON,
    Received,
    alone,
    completed,
    letter,
    received,
    unwritten,
    with_values,
    without_record,
)
from upon.errors import EventError
from upon.events import Event, write_record
from upon.messages import MAX_PAYLOAD, MAX_RECORD, DeadLetter, Resolved, decode, encode
from upon.topics import origin_of, place_of

NOW = 1_000_000_000


def test_a_record_is_kept_whole_where_there_is_room() -> None:
    one = letter(Received("t", 1, 2, b"k", b"v", (("h", b"x"),)), "dispatcher", "InputError: no", NOW, site="local")
    assert (one.key, one.value, one.headers, one.origin, one.site) == (b"k", b"v", (("h", b"x"),), "t/1/2", "local")
    assert (one.whole, one.size, one.reason) == (True, 1, "InputError: no")
    assert decode(encode(one), DeadLetter) == one


def test_a_letter_that_would_not_fit_is_cut_and_says_so() -> None:
    one = letter(Received("t", 0, 5, None, b"x" * (MAX_PAYLOAD + 10)), "service", "too bad", NOW)
    assert len(one.value) == MAX_PAYLOAD
    assert one.reason == "too bad (the record has 16,711,690 bytes, 16,711,680 are kept here)"
    assert (one.whole, one.size, one.origin) == (False, MAX_PAYLOAD + 10, "t/0/5")


def test_whatever_is_long_the_letter_fits_a_record() -> None:
    long = "ä" * 100_000
    record = Received("t", 0, 0, b"k" * 10**6, b"v" * MAX_RECORD, tuple((f"h{n}", b"x" * 100_000) for n in range(50)))
    one = letter(record, "streams", long, NOW, rule=long, action=long, event_id=long, function=long, site=long)
    assert len(encode(one)) <= MAX_RECORD - 4096
    assert len(one.reason) <= MAX_REASON


def test_a_header_without_a_value_is_an_empty_one() -> None:
    found = received(ConsumerRecord("t", 0, 7, 3, 0, None, None, None, -1, -1, (("h", None),)))  # type: ignore[arg-type]
    assert (found.headers, found.recorded) == ((("h", b""),), 3_000_000)
    assert letter(found, "streams", "r", NOW).headers == (("h", b""),)


def test_what_is_no_unicode_can_be_written() -> None:
    one = letter(Received("t", 0, 0, None, b""), "streams", "bad \udcff", NOW, event_id="\ud800", about="\udcff")
    assert decode(encode(one), DeadLetter).reason == "bad \\udcff"


def test_ids_depend_on_the_place_the_part_and_the_matter_alone() -> None:
    here, there = Received("t", 0, 1, None, b"v"), Received("t", 0, 2, None, b"v")
    ids = {
        letter(here, "streams", "r", NOW).id,
        letter(there, "streams", "r", NOW).id,
        letter(here, "service", "r", NOW).id,
        letter(here, "streams", "r", NOW, rule="a").id,
        letter(here, "streams", "r", NOW, rule="a", site="b").id,
        letter(here, "streams", "r", NOW, about="1").id,
    }
    assert len(ids) == 6
    assert letter(here, "streams", "r", NOW).id == letter(here, "streams", "other words", NOW + 1).id
    assert letter(unwritten("t", None, b"v"), "sources", "r", NOW, about="a").origin == "t"


@pytest.mark.parametrize("value", [b"", b"[1", b"[" * 100_000, b"{}", b"[]"])
def test_what_only_looks_like_a_batch_stays_as_it_is(value: bytes) -> None:
    record = Received("t", 0, 0, None, value)
    assert alone(record, 3, EventError("no event")) == record


def test_one_event_of_a_batch_can_be_published_alone() -> None:
    record = Received("t", 0, 0, None, b"[]", (("Content-Type", b"x"), ("a", b"b")))
    found = alone(record, 0, Event(type="t", source="/s", id="1", time=None))
    assert found.value == b'{"specversion":"1.0","id":"1","source":"/s","type":"t"}'
    assert found.headers == (("a", b"b"), ("content-type", b"application/cloudevents+json"))


def test_a_letter_without_its_record_is_completed_from_kafka() -> None:
    events = [Event(type="t", source="/s", id=id, time=None, data={"n": id}) for id in ("a", "b")]
    value, headers = write_record(events)
    record = Received("t.events", 2, 7, b"k", value, tuple(headers))
    whole = letter(alone(record, 1, events[1]), "streams", "rule r: no", NOW, about="1", rule="r", event_id="b")
    bare = without_record(whole)
    assert (bare.id, bare.origin, bare.size, bare.whole) == (whole.id, "t.events/2/7", whole.size, False)
    assert len(encode(bare)) < 500
    found = completed(bare, record)
    assert found is not None
    assert (found.key, found.value, found.headers, found.whole) == (whole.key, whole.value, whole.headers, True)
    other = Received("t.events", 2, 7, b"k", *write_record([events[0]]))
    assert completed(bare, other) is None
    assert completed(bare, Received("t.events", 2, 7, None, b"\xff")) is None


@given(
    st.binary(max_size=300) | st.none(),
    st.binary(max_size=50) | st.none(),
    st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50) | st.none()), max_size=8),
    st.integers(0, 200),
)
def test_key_headers_and_value_never_take_more_than_their_room(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]], room: int
) -> None:
    one = letter(Received("t", 0, 0, key, value, with_values(headers)), "streams", "r", NOW, room=room)
    assert len(one.key) + len(one.value) + sum(len(name.encode()) + len(data) for name, data in one.headers) <= room
    assert one.size == len(value or b"")


def test_that_letters_were_dealt_with_travels() -> None:
    one = Resolved(ids=("a", "b"), how="dropped", principal="user", at=NOW)
    assert decode(encode(one), Resolved) == one


def test_an_origin_is_read_as_it_was_written() -> None:
    for place in (("upon.events", 0, 7), ("a/b", 3, 12345678901)):
        assert place_of(origin_of(*place)) == place
    for other in ("upon.events", "upon.events/1", "upon.events/x/3", "upon.events/-1/3", "/1/2", "t/²/3", ""):
        assert place_of(other) is None
