from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "catalog"

    def ready(self) -> None:
        from catalog import audits, retention, story  # noqa: F401  (they join audits, cleanup and story)
