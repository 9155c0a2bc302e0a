"""All that an embedded Kafka needs, once for each user: `python -m upon.embedded.broker.install`.

Afterwards a start needs no network and is quick. `upon up` does without: it fetches the jars when they are missing.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from upon.embedded.broker import archive, jars
from upon.embedded.broker.broker import Broker
from upon.embedded.broker.java import Java, find_java
from upon.errors import KafkaError
from upon.topics import TopicSpec


def install() -> Java:
    """Find Java, fetch Kafka's jars, make the class archive; what is there already is left as it is.

    Returns:
        the Java that Kafka will run with.

    Raises:
        JavaNotFound, KafkaInstallError, KafkaStartError: each says what to do.
    """
    java, class_path = find_java(), jars.class_path()
    if archive.find(java, class_path):
        return java
    with tempfile.TemporaryDirectory(prefix="upon-install-") as scratch:
        class_list = Path(scratch) / "classes"
        broker = Broker(Path(scratch) / "kafka", record=class_list)
        try:
            broker.start()
            broker.wait_ready(60)
            asyncio.run(_exercise(broker.address))
        finally:
            broker.stop()
        archive.make(java, class_path, class_list, broker.jvm_flags())
    return java


async def _exercise(kafka: str) -> None:
    """Have the broker load what a first topic, record and group need."""
    from upon.kafka.admin import ensure_topics
    from upon.kafka.clients import async_consumer, async_producer

    await ensure_topics(kafka, [TopicSpec("t"), TopicSpec("compacted", config={"cleanup.policy": "compact"})])
    async with async_producer(kafka, "install") as producer:
        await producer.send_and_wait("t", b"value", b"key")
    async with async_consumer(kafka, "install", ["t"], "install") as consumer:
        await consumer.getone()
        await consumer.commit()


def main() -> int:
    """Install, and say what is there; return the exit code."""
    try:
        java = install()
    except KafkaError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Apache Kafka {jars.KAFKA} is ready to start with Java {java.release} ({java.origin}: {java.path})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
