"""Events: CloudEvents 1.0 in, CloudEvents 1.0 out; what is none is named, and spoils nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upon.errors import EventError
from upon.events import BATCH, STRUCTURED, Event, from_dict, read_record, time_ns, write_record

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)
events = st.builds(
    Event,
    type=names,
    source=names,
    subject=st.none() | names,
    data=json_values | st.binary(min_size=1, max_size=20),
    id=names,
    extensions=st.dictionaries(
        st.from_regex(r"x[a-z0-9]{1,8}", fullmatch=True), st.text() | st.booleans() | st.integers(-9, 9), max_size=3
    ),
)
RECORD = {"specversion": "1.0", "id": "1", "source": "/lab", "type": "t"}


@given(st.lists(events, min_size=1, max_size=4))
def test_what_is_written_is_read(written: list[Event]) -> None:
    value, headers = write_record(written)
    assert headers == [("content-type", (STRUCTURED if len(written) == 1 else BATCH).encode())]
    assert read_record(value, headers) == written


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | json_values.map(lambda v: json.dumps(v).encode())
)
def test_reading_anything_gives_events_or_errors(value: bytes) -> None:
    assert all(isinstance(one, Event | EventError) for one in read_record(value, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specversion": "0.3"}, "specversion: must be '1.0', not '0.3'"),
        ({"id": ""}, "id: must be a non-empty string"),
        ({"type": 3}, "type: must be a non-empty string, not 3"),
        ({"subject": ""}, "subject: must be a non-empty string if present"),
        ({"time": "yesterday"}, "time: 'yesterday' is not an RFC 3339 time"),
        ({"time": "2026-11-21T10:00:00"}, "RFC 3339"),
        ({"Bad-Name": "x"}, "extension 'Bad-Name'"),
        ({"ext": [1]}, "extension 'ext': must be a string, integer or boolean"),
        ({"data": 1, "data_base64": "AA=="}, "data and data_base64"),
        ({"data_base64": "!"}, "data_base64: not base64"),
    ],
)
def test_what_breaks_the_specification_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EventError) as caught:
        from_dict(RECORD | change)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["id", "source", "type"])
def test_a_missing_attribute_is_named(name: str) -> None:
    with pytest.raises(EventError, match=f"{name}: is required"):
        from_dict({key: value for key, value in RECORD.items() if key != name})


def test_one_bad_event_does_not_spoil_its_neighbours() -> None:
    good, bad, other = read_record(json.dumps([RECORD, {"id": 1}, RECORD | {"id": "2"}]).encode(), None)
    assert isinstance(good, Event)
    assert isinstance(bad, EventError)
    assert isinstance(other, Event)
    assert other.id == "2"


def test_the_binary_form_is_read() -> None:
    headers = [
        ("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/lab"), ("ce_type", b"t"), ("CE_subject", b"S"),
        ("ce_beamline", b"7"), ("content-type", b"application/json; charset=utf-8"),
    ]  # fmt: skip
    assert read_record(b'{"mass": 3}', headers) == [
        Event(
            type="t", source="/lab", id="1", subject="S", data={"mass": 3}, time=None,
            datacontenttype="application/json; charset=utf-8", extensions={"beamline": "7"},
        )
    ]  # fmt: skip
    (error,) = read_record(b"{", headers)
    assert "data: not JSON" in str(error)
    (image,) = read_record(b"\x00\xff", [*headers[:4], ("content-type", b"image/png")])
    assert isinstance(image, Event)
    assert image.data == b"\x00\xff"


def test_json_nested_too_deeply_is_an_error_not_a_crash() -> None:
    (error,) = read_record(b"[" * 100_000 + b"]" * 100_000, None)
    assert isinstance(error, EventError)


def test_the_key_is_the_partitionkey_else_the_subject() -> None:
    assert Event(type="t", source="s").key is None
    assert Event(type="t", source="s", subject="a").key == "a"
    assert Event(type="t", source="s", subject="a", extensions={"partitionkey": "b"}).key == "b"


def test_data_that_is_no_json_is_refused_where_it_is_written() -> None:
    with pytest.raises(EventError, match="data: not JSON-serializable"):
        write_record([Event(type="t", source="s", data=object())])


def test_times_are_exact() -> None:
    assert time_ns("1970-01-01T00:00:00Z") == 0
    assert time_ns("2026-11-21T10:00:00.000001+01:00") - time_ns("2026-11-21T09:00:00Z") == 1000
