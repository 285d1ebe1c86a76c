"""Several processes on one Redis: what they let in together, and what they count together."""
