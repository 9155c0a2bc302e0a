"""The service prunes the rules' history as far as no event in Kafka needs it."""

from __future__ import annotations

from pathlib import Path

from tests.integration.streams_worker import functions_and_rules, publish, register
from tests.services import eventually, service
from upon.topics import Topics

RULE = "rules:\n  - {name: r, upon: {type: [t]}, run: {function: f, args: [%d]}}\n"
EVENT = b'{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}'


async def test_changes_before_the_oldest_event_go_and_the_last_twenty_stay(
    kafka: str, topics: Topics, tmp_path: Path
) -> None:
    def put_in_force(first: int, last: int) -> None:
        for number in range(first, last + 1):
            register(kafka, topics, functions_and_rules(RULE % number, "f", revision=number))

    put_in_force(1, 3)
    await publish(kafka, topics.events, EVENT)
    put_in_force(4, 25)
    async with service(kafka, topics, tmp_path, UPON_KEEP_KAFKA="1ms") as running:

        async def pruned() -> list[int] | None:
            found = [one["rule"]["revision"] for one in await running.ask("GET", "/v1/rules/r/history")]
            return None if 1 in found else found

        left = await eventually(pruned, "what no event can meet is gone")
        assert set(range(3, 26)) <= set(left), "the event meets 3, and 6 to 25 are the last twenty"
        refused = await running.refused("POST", "/v1/rules/r/rollback?revision=1", status=404)
        assert "rule 'r' has no revision 1; there are: [" in refused.message
        await running.ask("POST", "/v1/rules/r/rollback?revision=3")
