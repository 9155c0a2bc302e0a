"""Values of any size there and back through a store: the same values, nothing left of what did not get there."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from upon.errors import PayloadTooLarge, StoreError
from upon.messages import MAX_PAYLOAD
from upon.store import reference
from upon.store.files import FileStore
from upon.store.payloads import Payloads, Where
from upon.store.reference import ARGUMENTS, RESULT

LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return FileStore.make(tmp_path / "store").folder


@pytest.fixture
def payloads(folder: Path) -> Payloads:
    return at(folder)


def at(folder: Path, limit: int = LIMIT) -> Payloads:
    return Payloads(lambda: Where(folder, limit))


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
            and a.flags.writeable == b.flags.writeable
            and (a.flags.f_contiguous and not a.flags.c_contiguous)
            == (b.flags.f_contiguous and not b.flags.c_contiguous)
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _ready(array: np.ndarray[Any, Any], order: str, writeable: bool) -> np.ndarray[Any, Any]:
    made = np.array(array, order=order)  # type: ignore[call-overload]
    made.flags.writeable = writeable
    return made  # type: ignore[no-any-return]


some_arrays = st.builds(
    _ready,
    arrays.arrays(
        st.sampled_from([np.uint8, np.int32, np.float64, np.complex128]),
        arrays.array_shapes(max_dims=3, max_side=12),
        elements={"allow_nan": False} if False else None,
    ),
    st.sampled_from("CF"),
    st.booleans(),
)
leaves = (
    st.none()
    | st.integers()
    | st.text(max_size=50)
    | st.binary(max_size=50)
    | st.integers(LIMIT - 20, LIMIT + 20).map(bytes)
    | st.integers(LIMIT - 20, LIMIT + 20).map(lambda n: "ä" * (n // 2))
    | st.integers(LIMIT - 20, LIMIT + 20).map(bytearray)
    | some_arrays
)
nested = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(nested)
def test_any_value_comes_back_as_it_was(payloads: Payloads, value: Any) -> None:
    payload = payloads.dumps(value, "t", ARGUMENTS)
    assert len(payload) <= LIMIT
    assert same(payloads.loads(payload), value)
    payloads.free(payload, "t")
    assert list(payloads.store().list()) == []


def test_a_lambda_and_a_class_of_main_go_by_value(payloads: Payloads) -> None:
    big = np.arange(LIMIT)
    payload = payloads.dumps({"f": lambda x: x + 1, "a": big, "b": "x" * 300_000}, "t", RESULT)
    assert reference.is_reference(payload)
    found = payloads.loads(payload)
    assert found["f"](1) == 2
    assert same(found["a"], big)

    by_reference = payloads.dumps([Pair(1, big), "x" * 300_000], "t", RESULT)
    by_value = payloads.dumps([Pair(1, big), "x" * 300_000], "t", RESULT, [__name__.encode()])
    assert same(payloads.loads(by_value)[0].second, big)
    methods = [(FileStore(folder_of(payloads)).folder / reference.decode(one).key).read_bytes()[:1]
               for one in (by_reference, by_value)]  # fmt: skip
    assert methods == [b"p", b"c"]


class Pair:
    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second


def folder_of(payloads: Payloads) -> Path:
    store = payloads.store()
    assert isinstance(store, FileStore)
    return store.folder


def test_a_large_array_is_not_copied_on_its_way(folder: Path) -> None:
    payloads, size = at(folder, 2**20), 200_000_000
    array = np.ones(size // 8)
    with grown_by_at_most(20):
        payload = payloads.dumps(array, "t", ARGUMENTS)
    with grown_by_at_most(size // 1_000_000 + 20):
        back = payloads.loads(payload)
    assert back[-1] == 1.0
    many = [array[at : at + 100_000] for at in range(0, array.size, 100_000)]  # each under the limit
    with grown_by_at_most(50):
        payloads.dumps(many, "t", ARGUMENTS)


@contextmanager
def grown_by_at_most(megabytes: int) -> Iterator[None]:
    """Fail if this process takes so much more memory meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is used now
    before = _peak()
    yield
    assert _peak() - before < megabytes


def _peak() -> int:
    """Return the most memory that this process has had, MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1000


def test_what_is_given_as_bytes_goes_the_same_way(payloads: Payloads) -> None:
    assert payloads.led(b"m\x01", "t", RESULT) == b"m\x01"
    whole = b"p" + pickle.dumps(list(range(1000)), protocol=5)
    payload = payloads.led(whole, "t", RESULT)
    assert reference.size_of(payload) > len(whole)
    assert payloads.loads(payload) == list(range(1000))
    packed = payloads.dumps([["x" * 40] * 5] * 10, "t", RESULT)
    assert payloads.loads(packed) == [["x" * 40] * 5] * 10


def test_without_a_store_a_record_has_to_hold_it(tmp_path: Path) -> None:
    payloads = at(tmp_path / "nowhere")
    assert payloads.loads(payloads.dumps(bytes(MAX_PAYLOAD // 2), "t", ARGUMENTS)) == bytes(MAX_PAYLOAD // 2)
    thirds = [np.zeros(MAX_PAYLOAD // 3, np.uint8) for _ in range(4)]
    for value in (bytes(MAX_PAYLOAD + 1), np.zeros(MAX_PAYLOAD), thirds):
        with pytest.raises(PayloadTooLarge, match=r"bytes serialized.*no store is in reach.*UPON_STORE") as caught:
            payloads.dumps(value, "t", ARGUMENTS)
        assert str(tmp_path / "nowhere") in str(caught.value)
    FileStore.make(tmp_path / "nowhere")  # it comes
    assert reference.is_reference(payloads.dumps(bytes(MAX_PAYLOAD + 1), "t", ARGUMENTS))


def test_what_cannot_be_pickled_leaves_nothing(payloads: Payloads) -> None:
    with pytest.raises(TypeError, match="generator"):
        payloads.dumps([np.zeros(LIMIT), "x" * 100_000, (n for n in range(3))], "t", ARGUMENTS)
    assert os.listdir(folder_of(payloads)) == ["store.json"]


def test_a_store_elsewhere_is_told_by_its_id(folder: Path, tmp_path: Path) -> None:
    payload = at(folder).dumps(bytes(LIMIT), "t", ARGUMENTS)
    key = reference.decode(payload).key
    with pytest.raises(StoreError, match=rf"{key} .*{folder}, which is not in reach: there is no store"):
        at(tmp_path / "nowhere").loads(payload)
    other = FileStore.make(tmp_path / "other").folder
    with pytest.raises(
        StoreError, match=rf"{key} .*{folder}, and here the store is another one, at .*{other}: set UPON_STORE"
    ):
        at(other).loads(payload)


def test_what_is_gone_is_named(payloads: Payloads) -> None:
    payload = payloads.dumps(bytes(LIMIT), "t", ARGUMENTS)
    payloads.free(payload, "another task")
    assert payloads.loads(payload) == bytes(LIMIT)
    payloads.free(payload, "t#3")  # a further generation of the same task
    with pytest.raises(StoreError, match=rf"{reference.decode(payload).key} is not in the store .* freed"):
        payloads.loads(payload)
    payloads.free(payload, "t")


def _flip(data: bytearray, at: int) -> bytes:
    data[at] ^= 1
    return bytes(data)


DAMAGES: list[Callable[[bytearray], bytes]] = [
    lambda data: bytes(data[:-1]),
    lambda data: bytes(data) + b"\0",
    lambda data: b"",
    lambda data: bytes(len(data)),
    lambda data: bytes([255]) * len(data),
    *(lambda data, at=at: _flip(data, at) for at in (0, 50, 5000, -1, -3, -5)),  # type: ignore[misc]
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_before_anything_is_unpickled(payloads: Payloads, damage: Callable[[bytearray], bytes]) -> None:
    payload = payloads.dumps({"a": np.arange(1000), "b": Bomb("x" * 100)}, "t", ARGUMENTS)
    Bomb.made = False
    key = reference.decode(payload).key
    path = folder_of(payloads) / key
    path.write_bytes(damage(bytearray(path.read_bytes())))
    with pytest.raises(StoreError, match=f"{key} in the store at .* is damaged"):
        payloads.loads(payload)
    assert not Bomb.made


class Bomb:
    made = False

    def __init__(self, text: str) -> None:
        Bomb.made, self.text = True, text

    def __reduce__(self) -> Any:
        return Bomb, (self.text,)
