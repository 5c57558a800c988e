"""The HTTP API for web shops: which tours there are, and what is free. Imported only where it is on."""
