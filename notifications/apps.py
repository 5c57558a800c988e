from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notifications"

    def ready(self) -> None:
        # They join the audits, the system checks, the cleanup, the dashboard and the story, in every process.
        from notifications import audits, checks, parts, retention, story  # noqa: F401
