from django.apps import AppConfig


class CatalogConfig(AppConfig):
    name = "catalog"

    def ready(self) -> None:
        from catalog import audits, retention  # noqa: F401  (they join the audits and the cleanup)
