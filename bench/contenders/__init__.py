"""Who is measured: the platform, and what others would write in its place."""
