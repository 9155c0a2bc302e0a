"""What runs in a user's own process: a client of the service and a `concurrent.futures` executor.

    client.py      Client: events, functions, rules, tasks, sites, by hand
    asynchronous.py  AsyncClient: both, in an event loop
    executor.py    Executor                              submitter.py  submit, map and options
    mapping.py     chunks of a map, results in order      known_site.py what the site is like
    future.py      the future of a task                  functions.py  function → code, which modules travel
    tasks.py      tasks, those of a group too            rules.py, deadletters.py  further parts of Client
    watching.py    events and tasks as they change, tasks to wait for
    connection.py  the WebSocket, with reconnect             ledger.py    what is sent, acknowledged, unfinished (pure)
    dialing.py     opening it, again and again           delivery.py  results to futures, in a thread of their own
    rest.py        one HTTP request                          target.py    where the service is, and the token
    outcome.py     Result → value or exception           loading.py   `file.py:name` → function
    background.py  the thread that does all I/O

It stands on the vocabulary alone and never imports a part of the system.
"""
