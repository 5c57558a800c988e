"""What a person may decide about which dead letters: asked before anything is confirmed."""

from typing import Any

from django.db import models
from django.http import HttpRequest

from booking_platform.messaging import edits
from booking_platform.messaging.dead_letters import consumers_of
from booking_platform.messaging.models import DeadLetter
from booking_platform.operations import rights
from booking_platform.operations.decisions import MOST_AT_ONCE, Decision, DecisionsAdmin
from booking_platform.operations.letter_edits import SEND_AGAIN
from booking_platform.operations.selecting import going_to


class LetterRightsAdmin(DecisionsAdmin):
    """Dead letters, of which some queues' need a right of their own."""

    def permissions(self, record: Any, how: Decision) -> list[str]:
        consumers = consumers_of(record)
        if how is SEND_AGAIN:  # an unroutable event may have another type by now
            consumers += consumers_of(record, edits.type_of(record))
        return rights.needed(how.permission, consumers)

    def chosen(self, request: HttpRequest, listed: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Return what the person selected and may decide about, oldest first."""
        return super().chosen(request, listed).exclude(going_to(rights.barred(request.user)))

    def refuse(self, request: HttpRequest, listed: models.QuerySet[Any], how: Decision) -> bool:
        """Report what the person selected and may not decide about; return whether nothing else is left."""
        barred = rights.barred(request.user)
        if not barred:
            return False
        letters = super().chosen(request, listed).filter(going_to(barred))
        if request.POST.get("select_across") == "1":
            letters = letters.filter(state=DeadLetter.State.PARKED)
            problems = self._in_sum(request, letters, how)
        else:
            problems = [
                self._problem(letter, how, rights.lacking(request.user, consumers_of(letter)))
                for letter in letters[:MOST_AT_ONCE]
            ]
        self._tell(request, [], problems, how)
        return bool(problems) and not self.chosen(request, listed).exists()

    def _in_sum(
        self, request: HttpRequest, letters: models.QuerySet[Any], how: Decision
    ) -> list[str]:
        one = letters.first()
        if one is None:
            return []
        why = rights.lacking(request.user, consumers_of(one))
        return [f"{letters.count():,} of them are {how.undone}: {why}"]
