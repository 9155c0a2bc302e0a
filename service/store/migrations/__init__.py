"""The forms that the task store has had, one after the other (alembic). A store of any of them is brought up to date.

A change of `tables` needs a revision in `versions`; a test compares what the revisions make with what `tables` says.
Rows stay: the store may hold what Kafka's retention has dropped already. Works on SQLite and PostgreSQL.
"""
