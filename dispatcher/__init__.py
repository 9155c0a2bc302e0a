"""The dispatcher of a site: from the site's topic to its managers, and the results back."""

if __name__ != "upon.dispatcher":
    raise ImportError("import this package as upon.dispatcher, not dispatcher")
