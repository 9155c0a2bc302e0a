"""The store of large payloads: what does not travel in records lies here, and a reference travels in its place.

    value ──dumps──▶ payload, or content in the store and a reference to it ──▶ Kafka ──▶ loads ──▶ value

Only the two ends read and write it: clients (`upon.sdk`) and workers (`upon.endpoint`). The service makes it, lists it
and frees what nobody needs (`upon.service.freeing`); it never reads content. Whatever is between carries a reference as
it carries any payload.
"""
