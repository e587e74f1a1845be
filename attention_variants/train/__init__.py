"""The loop and what it needs: settings, devices, optimiser, checkpoints, records. Knows the Task contract, and no task by name."""
