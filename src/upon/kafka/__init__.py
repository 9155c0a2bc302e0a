"""Kafka access: every client setting, topic administration, following a compacted topic.

    settings   what each client is told, in one place, with the reason
    clients    producers and consumers made from them
    admin      creating topics
    answers    whether a broker is ready, asked without a client library
    batches    how records wait, and share one when they must (pure); forms: what shares
    outbox     the one way into Kafka of parts with an event loop
    reader     the one way to read whole topics; follow: from the beginning and on
    ends       where partitions end; places: single records by their place
    progress   how far a log is read, for those who wait for it
    positions  where to read on when a log has changed (pure); offsets: what may be committed (pure)

Not here: the embedded broker (`upon.embedded`), and what the records mean (`upon.messages`, `upon.events`).
"""
