from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "booking_platform.operations"

    def ready(self) -> None:
        # They join the cleanup, the audits, the dashboard and the story, in every process.
        from booking_platform.operations import (  # noqa: F401
            auditing,
            kernel_audits,
            kernel_parts,
            kernel_story,
            logins,
            parked,
            tallies,
        )
