from __future__ import annotations

from upon.cli.up import not_remembered


def test_a_start_like_the_last_one_says_nothing() -> None:
    assert not_remembered({}, "k:9092", 4) == [], "the first start"
    assert not_remembered({"broker": "", "workers": "4"}, "", 4) == []
    assert not_remembered({"broker": "k:9092", "workers": "4"}, "k:9092", 4) == []


def test_what_is_not_given_again_is_said_with_how_to_give_it() -> None:
    (kafka, workers) = not_remembered({"broker": "k:9092", "workers": "4"}, "", 2)
    assert "this start uses a Kafka of its own" in kafka
    assert "the last one used the broker at k:9092: `--kafka k:9092`" in kafka
    assert "workers: 2; the last start had 4: `--workers 4`" in workers


def test_a_broker_that_is_new_is_said() -> None:
    (said,) = not_remembered({"broker": ""}, "k:9092", 2)
    assert "uses the broker at k:9092; the last one used a Kafka of its own: leave out --kafka" in said
