from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "booking_platform.operations"

    def ready(self) -> None:
        # They join the cleanup and the audits, in every process.
        from booking_platform.operations import auditing, kernel_audits, logins  # noqa: F401
