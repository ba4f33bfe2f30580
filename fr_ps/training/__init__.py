"""The training: entry, loop, optimizer, schedule, checkpoints."""
