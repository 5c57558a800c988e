from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        # They join the audits, the system checks and the cleanup, in every process.
        from notifications import audits, checks, retention  # noqa: F401
