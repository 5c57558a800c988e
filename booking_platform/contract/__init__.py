"""What crosses the border: the events as types, the envelope around them, and examples."""
