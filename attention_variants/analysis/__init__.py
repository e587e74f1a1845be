"""Looks at what was trained: finished workdirs in, numbers and pictures out. Training knows nothing of it."""
