"""RULER's thirteen tasks, generated to any length in the model's own tokens."""
