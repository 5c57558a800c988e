"""Django's database backend for PostgreSQL, with sessions that are bounded whoever stands between."""
