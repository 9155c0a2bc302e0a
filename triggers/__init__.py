"""Event sources: what turns the world into CloudEvents in Kafka.

source         the contract that every source keeps, built in or a stranger's
registry       finding sources by kind, through the entry-point group `upon.sources`
sources_file   the YAML file that names the sources to run
checkpoint     what a source remembers over a restart
publisher      events → Kafka, in order, acknowledged
runner         the part `sources`: all of them, each in its thread, restarted when it fails
filesystem     files that are complete          readiness, scanning, writers, mounts: its parts
globus         Globus transfers that ended
"""

if __name__ != "upon.triggers":
    raise ImportError("import this package as upon.triggers, not triggers")
