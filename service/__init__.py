"""The service: REST and WebSocket in front of Kafka, and the task store.

app             start and stop; how the pieces are put together       context   the pieces, for the requests
rest/           routes, the one table of them, and what they answer   doors     connections, before they are let in
store/          the task store: tables, upserts, what is asked        connection   one client on the WebSocket

registrar       the one writer of the registry
rule_changes, function_changes, rule_history, unused_code             what it decides, pure
submission      invocations into Kafka                                again     tasks and dead letters tried again
push            results to the clients that wait for them             watch     events and changes, for people
projector       Kafka → task store                                    lag       how far each part is behind
retention       how long what is stored is kept                       past_events, newest   events that were
guard           a task that fails begins again
"""

if __name__ != "upon.service":
    raise ImportError("import this package as upon.service, not service")
