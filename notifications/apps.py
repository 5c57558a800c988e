from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        # They join the system checks and the cleanup, in every process.
        from notifications import checks, retention  # noqa: F401
