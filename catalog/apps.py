from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "catalog"

    def ready(self) -> None:
        # They join the audits, the cleanup, the dashboard and the story.
        from catalog import audits, parts, retention, story  # noqa: F401
