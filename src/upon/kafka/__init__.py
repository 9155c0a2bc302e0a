"""Kafka access: every client setting, topic administration, following a compacted topic.

    settings   what each client is told, in one place, with the reason
    clients    producers and consumers made from them
    admin      creating topics
    answers    whether a broker is ready, asked without a client library
    follow     read a topic from its beginning and go on

Not here: the embedded broker (`upon.embedded`), and what the records mean (`upon.messages`, `upon.events`).
"""
