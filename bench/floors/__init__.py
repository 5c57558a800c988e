"""What a part of the work costs by itself: no consumer can be faster with the same part."""
