"""Events: CloudEvents 1.0 in, CloudEvents 1.0 out; what is none is named, and spoils nothing else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
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
        st.from_regex(r"x[a-z0-9]{1,8}", fullmatch=True), names | st.booleans() | st.integers(-9, 9), max_size=3
    ),
)
RECORD = {"specversion": "1.0", "id": "1", "source": "/lab", "type": "t"}


@given(st.lists(events, min_size=1, max_size=4))
def test_what_is_written_is_read(written: list[Event]) -> None:
    value, headers = write_record(written)
    assert headers == [("content-type", (STRUCTURED if len(written) == 1 else BATCH).encode())]
    assert list(read_record(value, headers)) == written


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
        ({"ext": [1]}, "extension 'ext': must be a string, integer of 64 bits or boolean"),
        ({"ext": 2**63}, "extension 'ext': must be a string, integer of 64 bits or boolean, not 9223372036854775808"),
        ({"x" * 10**6: "1"}, "extension 'xxxxxxxxx"),
        ({"subject": "x" * 16_000_000}, "subject: has 16,000,000 bytes, the limit is 8,192; large values belong into"),
        ({"id": "ä" * 4097}, "id: has 8,194 bytes"),
        ({"source": "a\0b"}, "source: must not contain the character NUL"),
        ({"ext": "\0"}, "extension 'ext': must not contain the character NUL"),
        ({"type": 10**5000}, "type: must be a non-empty string, not an integer beyond 64 bits"),
        ({"specversion": ["x" * 10**6]}, "specversion: must be '1.0', not a value of type list"),
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
    assert list(read_record(b'{"mass": 3}', headers)) == [
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


@pytest.mark.parametrize(
    ("time", "same"),
    [
        ("2026-11-21t10:00:00z", "2026-11-21T10:00:00Z"),
        ("2026-11-21T10:00:00-00:00", "2026-11-21T10:00:00Z"),
        ("1990-12-31T23:59:60Z", "1991-01-01T00:00:00Z"),
        ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00Z"),
        ("2026-11-21T10:00:00.1234567891234567Z", "2026-11-21T10:00:00.123456789Z"),
        ("2024-02-29T23:59:60.5Z", "2024-03-01T00:00:00.5Z"),
        ("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.870Z"),
    ],
)
def test_times_are_those_of_rfc_3339(time: str, same: str) -> None:
    assert time_ns(time) == time_ns(same)
    assert Event(type="t", source="s", time=time).time == time


@pytest.mark.parametrize(
    "time",
    [
        "2026-W47-6T10:00:00Z", "2026-325T10:00:00Z", "20261121T100000Z", "2026-11-21T10:00:00", "2026-11-21",
        "2026-11-21 10:00:00Z", "2026-11-21T10:00Z", "2026-11-21T24:00:00Z", "2026-11-21T10:00:60Z",
        "2026-11-30T23:58:60Z", "2026-02-29T10:00:00Z", "2100-02-29T10:00:00Z", "2026-11-31T10:00:00Z",
        "2026-00-01T10:00:00Z", "2026-11-21T10:00:00+24:00", "2026-11-21T10:00:00+0100", "2026-11-21T10:00:00,5Z",
        "2026-11-21T10:00:00.Z", "٢026-11-21T10:00:00Z", "2026-11-21T10:00:00Z\n", "12026-11-21T10:00:00Z",
        "0000-01-01T00:00:60Z", "9999-12-31T23:59:60+00:01",
    ],
)  # fmt: skip
def test_what_is_no_time_of_rfc_3339_is_refused(time: str) -> None:
    with pytest.raises(EventError, match="is not an RFC 3339 time"):
        time_ns(time)


@given(st.datetimes(), st.integers(-1439, 1439))
def test_times_are_what_the_calendar_says(moment: datetime, minutes: int) -> None:
    sign, offset = "-" if minutes < 0 else "+", abs(minutes)
    text = f"{moment.isoformat(timespec='microseconds')}{sign}{offset // 60:02}:{offset % 60:02}"
    since = moment - datetime(1970, 1, 1) - timedelta(minutes=minutes)
    assert time_ns(text) == (since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds) * 1000


def test_headers_are_no_place_for_data_and_may_lack_a_value() -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t"), ("ce_x", None)]
    (found,) = read_record(b"1", headers)
    assert isinstance(found, Event)
    assert (found.data, found.extensions) == (1, {})
    (error,) = read_record(None, [*headers, ("ce_data", b"1")])
    assert "the data of an event is the record's value" in str(error)
