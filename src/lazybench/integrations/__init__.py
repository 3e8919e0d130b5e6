"""lazybench inside other harnesses."""
