"""The fine-tuned contender: its network, decoded pixels on disk, and resumable training."""
