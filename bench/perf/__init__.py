"""Speed and memory, measured; see the make targets."""
