"""Everything on one machine: a private Apache Kafka, and the supervisor that starts all parts.

    supervisor, parts   start all parts in order, start again what ends; the pure decisions
    child, logfile      one part's process, and its log
    groups, upkeep      the process groups there are, told to a keeper; state file, disk, left-overs
    state, health       what runs in a home, as written and as seen
    addresses, ports    where the parts meet; ports that stay free while a server is down
    leftover, rivals    processes that outlived their supervisor; other systems on the same Kafka
    notify, systemd     telling systemd; a unit for it
    broker/             the embedded Kafka

Not here: clusters of brokers, TLS, authentication: for these run a Kafka of your own and give `--kafka`.
"""
