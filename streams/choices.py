"""Which site the work of a rule with several candidate sites went to: said once, in a log that all workers read.

    worker 1 ──▶ upon.choices:  {id: alcf} ───────────── {id: local} ──▶ both workers: id belongs to alcf
    worker 2 ─────────────────────────────▶ (late, or again after a kill)

A site that is up for one worker, or now, may be down for another, or later. So a choice is a proposal, written to a
topic of one partition and read back; of all proposals for an id the first in the log counts, for everybody: workers at
the same time, one that reads the event again, one that was paused while another took over. It costs one more trip to
Kafka, for rules with several candidates alone. The last `REMEMBERED` ids are remembered, as long as Kafka keeps them.
Not here: which site is proposed (`upon.streams.firing.choose_site`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Mapping

from upon.errors import InputError
from upon.kafka.batches import Entry, Lane, Place
from upon.kafka.forms import WHOLE
from upon.kafka.outbox import Outbox
from upon.kafka.progress import Progress
from upon.logs import get_logger
from upon.messages import SiteChoices, decode, encode

REMEMBERED = 200_000
log = get_logger(__name__)


class Choices:
    """The choices that stand in the log.

    Args:
        topic: its name.
        remembered: ids, at most; the oldest are forgotten.
    """

    def __init__(self, topic: str, remembered: int = REMEMBERED) -> None:
        self._topic, self._remembered = topic, remembered
        self._sites: OrderedDict[bytes, str] = OrderedDict()
        self._names: dict[str, str] = {}  # of sites: one string each, however many choices
        self._taken_in = Progress()

    def take(self, value: bytes | None, offset: int) -> None:
        """Take in a record of the log, in its order."""
        try:
            for id, site in decode(value or b"", SiteChoices).sites.items():
                self._sites.setdefault(_short(id), self._names.setdefault(site, site))
            while len(self._sites) > self._remembered:
                self._sites.popitem(last=False)
        except (InputError, ValueError) as error:
            log.error("a record of choices is left out", action="choose", offset=offset, error=str(error))
        self._taken_in.took(offset)

    def site(self, id: str) -> str | None:
        """Return the site that an invocation belongs to; None: none was chosen yet."""
        return self._sites.get(_short(id))

    async def settle(self, proposed: Mapping[str, str], outbox: Outbox) -> dict[str, str]:
        """Return the site of each invocation, by id: the one that was chosen first, else the one proposed."""
        new = {id: site for id, site in proposed.items() if self.site(id) is None}
        if new and (place := await self._write(new, outbox)) is not None:
            await self._taken_in.reach(place.offset + 1)
        return {id: self.site(id) or site for id, site in proposed.items()}

    async def _write(self, new: dict[str, str], outbox: Outbox) -> Place | None:
        written: asyncio.Future[Place | Exception] = asyncio.get_running_loop().create_future()

        def then(outcome: Place | Exception) -> None:
            if not written.done():
                written.set_result(outcome)

        outbox.post(Lane(self._topic, WHOLE), Entry(encode(SiteChoices(sites=new)), then))
        outcome = await written
        if isinstance(outcome, Place):
            return outcome
        log.error("choices of sites cannot be kept", action="choose", error=str(outcome))
        return None


def _short(id: str) -> bytes:
    """Return the 16 bytes of an id, which a rule's invocations have as UUIDs. Raises ValueError."""
    return uuid.UUID(id).bytes
