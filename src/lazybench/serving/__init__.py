"""The same policies inside vLLM: an out-of-tree model class, its set-up and its stand in the harness (docs/serving.md)."""
