"""The task store: a projection of Kafka in SQLite or PostgreSQL, its tables and their forms, what is asked of it."""
