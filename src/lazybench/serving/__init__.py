"""The same policies inside vLLM: model classes of its own that prune, and their place in the harness."""
