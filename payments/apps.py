from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"

    def ready(self) -> None:
        from payments import audits, checks, story  # noqa: F401  (they join the audits, the checks, the story)
