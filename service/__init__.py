"""The service: REST and WebSocket in front of Kafka, and the task store.

app             start and stop; how the pieces are put together       context   the pieces, for the requests
routes          the one table of routes; routes_<noun> the handlers   routing   what a route is; bodies
openapi         /openapi.json, from that table                        auth, problems   token; errors as JSON
connection      one client on the WebSocket

ends            where partitions end
registrar       the one writer of the registry                        submission   invocations into Kafka
push            results to the clients that wait for them             watch     events and changes, for people
projector       Kafka → task store; projection the pure half of it    lag       how far each part is behind
store           the database and the upserts; tables, queries         views     rows and records → upon.api
guard           a task that fails begins again
"""

if __name__ != "upon.service":
    raise ImportError("import this package as upon.service, not service")
