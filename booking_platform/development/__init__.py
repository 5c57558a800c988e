"""What developers run: the demo, and the set-up of `make run`. It may import every app."""
