"""Which other systems are on a Kafka: from the members of a group."""

from __future__ import annotations

from upon.embedded.rivals import Other, others

ME = Other("here", "7:1.00")


def _found(*clients: str, alive: bool = True) -> list[Other]:
    return others(clients, ME, lambda _: alive)


def test_our_own_stream_worker_and_one_started_by_hand_are_no_other_system() -> None:
    assert _found("upon-streams@here/7:1.00", "upon-streams", "somebody-else") == []


def test_another_systems_stream_worker_names_it() -> None:
    assert _found("upon-streams@here/8:1.00", "upon-streams@here/8:1.00") == [Other("here", "8:1.00")]
    assert _found("upon-streams@there/7:1.00", alive=False) == [Other("there", "7:1.00")]


def test_a_member_whose_process_is_gone_does_not_count_on_this_host() -> None:
    assert _found("upon-streams@here/8:1.00", alive=False) == []
