"""The paper's algorithm: schedule, importance, caches, engine, trace. Needs torch and transformers only."""
