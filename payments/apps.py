from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"

    def ready(self) -> None:
        # They join the audits, the checks, the dashboard and the story.
        from payments import audits, checks, parts, story  # noqa: F401
