"""Event patterns mean what EventBridge says they mean."""

from __future__ import annotations

from typing import Any

import pytest

from upon.streams.operators import PatternError
from upon.streams.patterns import check_pattern, parse_pattern

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/lab/7",
    "type": "upon.file.ready",
    "subject": "/data/tomo/a/scan_1.h5",
    "beamline": "7bm",
    "data": {
        "size": 300,
        "ratio": 1.5,
        "zero": 0,
        "ok": True,
        "nothing": None,
        "empty": "",
        "tags": ["raw", "tomo", 3],
        "nested": [["deep"]],
        "none_in": [],
        "object": {"a": 1},
        "items": [{"a": 1, "b": 1}, {"a": 2, "b": 2, "c": [9]}],
        "host": "10.0.0.7",
        "host6": "2001:db8::1",
        "number_text": "300",
    },
}


def data(**fields: Any) -> dict[str, Any]:
    return {"data": fields}


MATCHING = [
    {"type": ["upon.file.ready"]},
    {"type": ["other", "upon.file.ready"]},
    {"beamline": ["7bm"]},
    {"source": [{"prefix": "/lab"}], "type": ["upon.file.ready"]},
    {"subject": [{"suffix": ".h5"}]},
    {"subject": [{"prefix": {"equals-ignore-case": "/DATA"}}]},
    {"subject": [{"suffix": {"equals-ignore-case": ".H5"}}]},
    {"subject": [{"wildcard": "/data/tomo/*/scan_*.h5"}]},
    {"subject": [{"wildcard": "*"}]},
    {"subject": [{"wildcard": "*.h5"}]},
    {"subject": [{"wildcard": "/data/*"}]},
    {"subject": [{"wildcard": "*tomo*scan*"}]},
    {"subject": [{"wildcard": "/data/tomo/a/scan_1.h5"}]},
    {"type": [{"equals-ignore-case": "UPON.file.READY"}]},
    data(size=[300]),
    data(size=[300.0]),
    data(size=[{"numeric": ["=", 300]}]),
    data(size=[{"numeric": [">", 299, "<=", 300]}]),
    data(size=[{"numeric": [">=", 300, "<=", 300]}]),
    data(zero=[{"numeric": ["<", 0.5]}]),
    data(ok=[True]),
    data(nothing=[None]),
    data(nothing=[{"exists": True}]),
    data(empty=[""]),
    data(tags=["tomo"]),
    data(tags=[3]),
    data(tags=[{"prefix": "to"}]),
    data(nested=["deep"]),
    data(missing=[{"exists": False}]),
    data(none_in=[{"exists": False}]),
    data(object=[{"exists": False}]),
    data(size={"below": [{"exists": False}]}),
    data(missing={"below": [{"exists": False}]}),
    data(size=["x", {"exists": False}, {"numeric": [">", 1]}]),
    data(object={"a": [1]}),
    data(items={"a": [2], "b": [2]}),
    data(items={"c": [9]}),
    data(items={"d": [{"exists": False}]}),
    data(host=[{"cidr": "10.0.0.0/24"}]),
    data(host6=[{"cidr": "2001:db8::/32"}]),
    data(number_text=["300"]),
    data(size=[{"anything-but": 5}]),
    data(size=[{"anything-but": [5, "x"]}]),
    data(nothing=[{"anything-but": "x"}]),
    {"subject": [{"anything-but": {"prefix": "/home"}}]},
    {"subject": [{"anything-but": {"suffix": [".tmp", ".part"]}}]},
    {"subject": [{"anything-but": {"wildcard": "/home/*"}}]},
    {"type": [{"anything-but": {"equals-ignore-case": ["x", "y"]}}]},
    data(tags=[{"anything-but": ["raw", "tomo"]}]),
    {"$or": [{"type": ["x"]}, {"beamline": ["7bm"]}]},
    {"source": ["/lab/7"], "data": {"$or": [{"size": [1]}, {"ratio": [1.5]}], "ok": [True]}},
]

NOT_MATCHING = [
    {"type": ["upon.file"]},
    {"type": ["upon.file.ready"], "source": ["/lab/8"]},
    {"subject": [{"prefix": "data"}]},
    {"subject": [{"prefix": "/DATA"}]},
    {"subject": [{"suffix": ".H5"}]},
    {"subject": [{"wildcard": "/data/*/x_*.h5"}]},
    {"subject": [{"wildcard": "/data/tomo"}]},
    {"subject": [{"wildcard": "/data/tomo/a/scan_1.h5*5"}]},
    {"subject": [{"wildcard": "\\*"}]},
    data(size=["300"]),
    data(number_text=[300]),
    data(number_text=[{"numeric": ["=", 300]}]),
    data(size=[{"numeric": [">", 300]}]),
    data(size=[{"numeric": ["<", 300]}]),
    data(ok=[1]),
    data(ok=[{"numeric": ["=", 1]}]),
    data(ok=["true"]),
    data(zero=[False]),
    data(zero=[None]),
    data(nothing=[""]),
    data(nothing=[{"exists": False}]),
    data(empty=[{"exists": False}]),
    data(empty=[None]),
    data(missing=[None]),
    data(missing=[{"exists": True}]),
    data(missing=[{"anything-but": "x"}]),
    data(object=[{"exists": True}]),
    data(none_in=[{"exists": True}]),
    data(tags=["x"]),
    data(items={"a": [1], "b": [2]}),
    data(items={"c": [{"exists": False}]}),
    data(items=[1]),
    data(host=[{"cidr": "10.0.1.0/24"}]),
    data(size=[{"cidr": "10.0.0.0/8"}]),
    data(number_text=[{"cidr": "0.0.0.0/0"}]),
    data(size=[{"anything-but": 300.0}]),
    {"subject": [{"anything-but": {"prefix": ["/home", "/data"]}}]},
    data(tags=[{"anything-but": ["raw", "tomo", 3]}]),
    {"$or": [{"type": ["x"]}, {"beamline": ["8bm"]}]},
    {"type": ["x"], "$or": [{"source": ["/lab/7"]}, {"beamline": ["7bm"]}]},
]


@pytest.mark.parametrize("pattern", MATCHING, ids=str)
def test_matches(pattern: dict[str, Any]) -> None:
    assert parse_pattern(pattern).matches(EVENT)


@pytest.mark.parametrize("pattern", NOT_MATCHING, ids=str)
def test_does_not_match(pattern: dict[str, Any]) -> None:
    assert not parse_pattern(pattern).matches(EVENT)


def test_wildcard_escapes_stand_for_themselves() -> None:
    pattern = parse_pattern({"subject": [{"wildcard": "a\\*b\\\\*"}]})
    assert pattern.matches({"subject": "a*b\\c"})
    assert not pattern.matches({"subject": "axb\\c"})


def test_a_long_text_and_many_stars_do_not_explode() -> None:
    pattern = parse_pattern({"subject": [{"wildcard": "*a" * 30 + "b"}]})
    assert not pattern.matches({"subject": "a" * 20_000})


WRONG = [
    ({}, (), "empty pattern"),
    ({"type": "x"}, ("type",), "write [x]"),
    ({"type": []}, ("type",), "not an empty list"),
    ({"type": None}, ("type",), "not nothing"),
    ({"Type": ["x"]}, ("Type",), "did you mean 'type'"),
    ({"data_base64": ["x"]}, ("data_base64",), "bytes cannot be matched"),
    ({1: ["x"]}, (1,), "put it in quotes"),
    ({"type": {"x": ["y"]}}, ("type",), "only data has fields"),
    ({"data": {"size": {"numeric": [">", 1]}}}, ("data", "size"), "stands in a list"),
    ({"time": {"numeric": [{"a": "b"}]}}, ("time",), "only data has fields below it"),
    ({"subject": {"prefix": "x"}}, ("subject",), "stands in a list"),
    ({"type": [{"prefx": "x"}]}, ("type", 0, "prefx"), "did you mean 'prefix'"),
    ({"type": [{"prefix": "x", "suffix": "y"}]}, ("type", 0), "exactly one key"),
    ({"type": [{}]}, ("type", 0), "exactly one key"),
    ({"type": [["x"]]}, ("type", 0), "not a list"),
    ({"type": [float("nan")]}, ("type", 0), "finite"),
    ({"type": [{"prefix": 3}]}, ("type", 0, "prefix"), "must be a string"),
    ({"type": [{"exactly": 3}]}, ("type", 0, "exactly"), "must be a string"),
    ({"type": [{"anything-but": {"prefix": ""}}]}, ("type", 0, "anything-but", "prefix"), "refuse every string"),
    ({"type": [{"prefix": {"x": "y"}}]}, ("type", 0, "prefix"), "equals-ignore-case"),
    ({"type": [{"equals-ignore-case": 1}]}, ("type", 0, "equals-ignore-case"), "must be a string"),
    ({"type": [{"wildcard": "a**b"}]}, ("type", 0, "wildcard"), "'**'"),
    ({"type": [{"wildcard": "a\\b"}]}, ("type", 0, "wildcard"), "backslash"),
    ({"type": [{"wildcard": "a\\"}]}, ("type", 0, "wildcard"), "backslash"),
    ({"data": {"x": [{"numeric": 3}]}}, ("data", "x", 0, "numeric"), "comparisons"),
    ({"data": {"x": [{"numeric": [">", 1, "<"]}]}}, ("data", "x", 0, "numeric"), "comparisons"),
    ({"data": {"x": [{"numeric": ["!=", 1]}]}}, ("data", "x", 0, "numeric", 0), "unknown comparison"),
    ({"data": {"x": [{"numeric": [">", "1"]}]}}, ("data", "x", 0, "numeric", 1), "must be a number"),
    ({"data": {"x": [{"numeric": [">", True]}]}}, ("data", "x", 0, "numeric", 1), "must be a number"),
    ({"data": {"x": [{"numeric": [">", 1, ">", 2]}]}}, ("data", "x", 0, "numeric"), "lower bound"),
    ({"data": {"x": [{"numeric": [">", 5, "<", 2]}]}}, ("data", "x", 0, "numeric"), "no number"),
    ({"data": {"x": [{"numeric": [">", 5, "<=", 5]}]}}, ("data", "x", 0, "numeric"), "no number"),
    ({"data": {"x": [{"exists": "yes"}]}}, ("data", "x", 0, "exists"), "true or false"),
    ({"data": {"x": [{"cidr": "300.1.1.1/8"}]}}, ("data", "x", 0, "cidr"), "address range"),
    ({"data": {"x": [{"anything-but": []}]}}, ("data", "x", 0, "anything-but"), "exists"),
    ({"data": {"x": [{"anything-but": {"numeric": ["=", 1]}}]}}, ("data", "x", 0, "anything-but"), "one of"),
    ({"data": {"x": [{"anything-but": {"prefix": []}}]}}, ("data", "x", 0, "anything-but", "prefix"), "empty list"),
    ({"data": {}}, ("data",), "empty pattern"),
    ({"$or": [{"type": ["x"]}]}, ("$or",), "at least two"),
    ({"$or": [{"type": ["x"]}, {"Type": ["y"]}]}, ("$or", 1, "Type"), "no event has"),
    ({"all": [{"all": 3}]}, ("all", 0, "all"), "not supported yet"),
    ([], (), "must be a mapping"),
]


@pytest.mark.parametrize(("pattern", "path", "words"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named_with_its_place(pattern: Any, path: tuple[Any, ...], words: str) -> None:
    with pytest.raises(PatternError) as raised:
        parse_pattern(pattern)
    assert raised.value.path == path
    assert words in raised.value.problem


def test_all_errors_are_found_not_the_first_only() -> None:
    _, problems = check_pattern({"Type": ["x"], "data": {"a": 1, "b": [{"x": 1}]}, "source": [{"exists": 1}]})
    assert [problem.path for problem in problems] == [
        ("Type",),
        ("data", "a"),
        ("data", "b", 0, "x"),
        ("source", 0, "exists"),
    ]


def test_a_field_of_data_may_have_an_operators_name() -> None:
    assert parse_pattern({"data": {"prefix": ["x"]}}).matches({"data": {"prefix": "x"}})
    assert parse_pattern({"data": {"numeric": [1]}}).matches({"data": {"numeric": 1}})


RULER = {"s": "abc", "n": 5, "z": None, "l": [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "o": {"p": "q"}, "e": "",
         "ip": "10.0.0.1", "tags": ["x", "y"]}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"s": [{"prefix": ""}]}, True),
        ({"n": [{"prefix": ""}]}, False),
        ({"s": [{"suffix": ""}]}, True),
        ({"e": [{"prefix": ""}]}, True),
        ({"s": [{"wildcard": ""}]}, False),
        ({"e": [{"wildcard": ""}]}, True),
        ({"s": [{"exactly": "abc"}]}, True),
        ({"z": [None]}, True),
        ({"z": [{"exists": True}]}, True),
        ({"z": [{"exists": False}]}, False),
        ({"s": [{"exists": False}, "abc"]}, True),
        ({"q": [{"exists": False}, "abc"]}, True),
        ({"s": [{"anything-but": {"prefix": ["x", "y"]}}]}, True),
        ({"s": [{"anything-but": {"suffix": ["x", "bc"]}}]}, False),
        ({"s": [{"anything-but": {"wildcard": ["x*", "*b*"]}}]}, False),
        ({"s": [{"anything-but": {"equals-ignore-case": ["ABC"]}}]}, False),
        ({"z": [{"anything-but": "x"}]}, True),
        ({"tags": [{"anything-but": "x"}]}, True),
        ({"s": [{"equals-ignore-case": ""}]}, False),
        ({"s": [{"prefix": {"equals-ignore-case": "AB"}}]}, True),
        ({"s": [{"suffix": {"equals-ignore-case": "BC"}}]}, True),
        ({"ip": [{"cidr": "10.0.0.0/24"}]}, True),
        ({"$or": [{"s": ["x"]}, {"n": [5]}]}, True),
        ({"l": {"$or": [{"a": [1]}, {"a": [9]}], "b": [4]}}, False),
        ({"l": {"a": [1], "b": [4]}}, False),
        ({"l": {"a": [1], "b": [{"exists": False}]}}, False),
        ({"o": [{"exists": True}]}, False),
        ({"o": [{"exists": False}]}, True),
        ({"n": [5.0]}, True),
        ({"n": [True]}, False),
        ({"n": [{"equals-ignore-case": "5"}]}, False),
    ],
)
def test_patterns_say_what_event_ruler_1_7_3_says(spec: dict[str, Any], fits: bool) -> None:
    assert parse_pattern({"data": spec}).matches({"data": RULER}) is fits
