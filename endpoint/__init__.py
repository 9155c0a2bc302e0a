"""What executes at a site: managers, one per node, and their worker processes."""

if __name__ != "upon.endpoint":
    raise ImportError("import this package as upon.endpoint, not endpoint")
