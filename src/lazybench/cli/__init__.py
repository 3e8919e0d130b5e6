"""The command line: what is typed becomes a checked configuration, and a run, a sweep, a search or a page."""
