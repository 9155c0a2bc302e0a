"""The revisions, in order. A revision never changes once it is released, and imports nothing that may change."""
