"""The pages of bulk jobs: how they are made of a list of dead letters, how far they are, how they are stopped."""

from dataclasses import replace
from typing import Any, Self

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.timezone import localtime

from booking_platform.messaging import clock, heartbeats, topology
from booking_platform.messaging.models import DeadLetter
from booking_platform.operations import bulk, rights, tasks
from booking_platform.operations.bulk_outcomes import outcomes_of
from booking_platform.operations.dashboard import number
from booking_platform.operations.decisions import Decision, DecisionsAdmin, ReasonForm
from booking_platform.operations.leased import DueFilter, has_worker, next_attempt
from booking_platform.operations.letter_filters import NotRepeatable, selection_of
from booking_platform.operations.letter_rights import LetterRightsAdmin
from booking_platform.operations.models import BulkJob
from booking_platform.operations.records import exact, foreign, link, moment, visible
from booking_platform.operations.selecting import Selection

AT_ONCE = 20  # letters that a request deals with itself; more take a worker
MOST_CHOSEN = 500  # whose ids a form can hold

STOP = Decision(
    action="stop",
    permission="messaging.view_deadletter",
    listed="Stop: leave the rest as it is",
    title="Stop {}",
    done="stopped",
    undone="not stopped",
    explanation="What is done stays done; the rest stays as it is.",
    why_required=False,
    asks=False,
)


class JobForm(ReasonForm):
    """Asks why, and keeps which letters were there when it asked."""

    newest = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    select_across = forms.CharField(widget=forms.HiddenInput, required=False)

    @classmethod
    def asking(cls, request: HttpRequest) -> Self:
        confirmed = request.POST if "confirmed" in request.POST else None
        across = request.POST.get("select_across", "0")
        return cls(confirmed, initial={"newest": bulk.newest_letter(), "select_across": across})


class JobsAdmin(LetterRightsAdmin):
    """Dead letters, of which many are decided about in the background."""

    def decide_about_many(
        self, request: HttpRequest, listed: models.QuerySet[Any], how: Decision
    ) -> HttpResponse | None:
        """Ask for a reason, then make a job: of all that the list shows, or of those that are chosen."""
        chosen = self.chosen(request, listed)
        try:
            selection = self._selection(request, chosen)
        except NotRepeatable as problem:
            told = f"All of a list can't be {how.done} where {problem}. Choose them, or filter otherwise."
            self.message_user(request, told, messages.ERROR)
            return None
        form = JobForm.asking(request)
        form.fields["why"].required = how.why_required
        if not form.is_valid():
            return self._ask_about_job(request, selection, how, form)
        job = bulk.make(
            selection,
            BulkJob.Kind(how.action),
            user=request.user,
            why=form.cleaned_data["why"],
            newest=min(form.cleaned_data["newest"], bulk.newest_letter()),
        )
        self.log_addition(
            request,
            job,
            f"{how.listed}, {job.total} {number(job.total, 'letter', 'letters')}; {selection.in_words()}",
        )
        tasks.begin(job)
        return HttpResponseRedirect(reverse("admin:operations_bulkjob_change", args=[job.pk]))

    def is_for_many(self, request: HttpRequest) -> bool:
        """Return whether more is chosen than a request deals with."""
        across = request.POST.get("select_across") == "1"
        return across or len(request.POST.getlist("_selected_action")) > AT_ONCE

    def _selection(self, request: HttpRequest, chosen: models.QuerySet[Any]) -> Selection:
        if request.POST.get("select_across") == "1":
            return replace(selection_of(request.GET), without=rights.barred(request.user))
        return Selection(pks=tuple(chosen.values_list("pk", flat=True)[:MOST_CHOSEN]))

    def _ask_about_job(
        self, request: HttpRequest, selection: Selection, how: Decision, form: JobForm
    ) -> HttpResponse:
        letters = selection.letters().order_by(*self.oldest_first)
        total = letters.count()
        note = (
            f"{selection.in_words()}. The oldest are shown. It is done in the background, one after the other: "
            "you see how far it is, and can stop it. What is parked after this is not in it."
        )
        return self.ask(
            request,
            letters,
            how,
            form,
            title=how.title.format(f"{total:,} dead letter{'' if total == 1 else 's'}"),
            unlisted=max(0, total - len(letters[:20])),
            left_over=0,
            note=visible(note),
            records=letters[:1] if form["select_across"].value() == "1" else letters[:MOST_CHOSEN],
        )


@admin.register(BulkJob)
class BulkJobAdmin(DecisionsAdmin):
    made = moment("made_at", "made")
    because = foreign("why", "why")

    change_form_template = "admin/operations/bulk_job.html"
    list_display = ("job", "which", "how_far", "stands", "made_by", "made")
    list_filter = ("kind", DueFilter)
    fields = ("job", "which", "because", "made_by", "made")
    decisions = (STOP,)

    # Whoever may see dead letters may see what is done about them.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("messaging.view_deadletter")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    @admin.display(description="job", ordering="id")
    def job(self, job: BulkJob) -> str:
        return f"{job.pk}: {job}"

    @admin.display(description="which letters")
    def which(self, job: BulkJob) -> str:
        return visible(Selection.stored(job.selection).in_words())

    @admin.display(description="done")
    def how_far(self, job: BulkJob) -> str:
        stay = number(job.failed, "stays open", "stay open")
        failed = f", {job.failed:,} {stay}" if job.failed else ""
        return f"{job.done:,} of {job.total:,}{failed}"

    @admin.display(description="state")
    def stands(self, job: BulkJob) -> str:
        return standing(job)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        job: BulkJob = context["original"]
        letters = DeadLetter.objects.defer("body", "edited_body").in_bulk(
            [failure["letter"] for failure in job.failures]
        )
        context |= {
            "running": not job.finished,
            "standing": standing(job),
            "how_far": self.how_far(job),
            "percent": job.percent,
            "failures": [_failure(failure, letters) for failure in job.failures],
            "more_failures": job.failed - len(job.failures),
            "outcomes": outcomes_of(job) if _tells_outcomes(job, request) else None,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def named(self, record: Any) -> str:
        return f"job {record.pk}"

    def is_open(self, record: Any, how: Decision) -> bool:
        return not record.finished and not record.stopped

    def described(self, record: Any, how: Decision) -> dict[str, object]:
        return {"Job": self.job(record), "Letters": self.which(record), "State": standing(record)}

    def carry_out(self, request: HttpRequest, record: Any, how: Decision, why: str) -> str:
        its_own = record.user_id == request.user.pk
        if not its_own and not request.user.has_perm(bulk.RIGHTS[BulkJob.Kind(record.kind)]):
            return f"it is not yours, and you may not {record.kind} dead letters"
        return "" if record.stop(by=request.user.get_username()) else "it has ended already"


def _tells_outcomes(job: BulkJob, request: HttpRequest) -> bool:
    """Return whether a page says what became of the events of a job."""
    may = request.user.has_perm("messaging.view_processedevent")
    return may and job.kind == BulkJob.Kind.REPLAY and job.done > 0


def _failure(failure: dict[str, Any], letters: dict[int, DeadLetter]) -> tuple[object, str]:
    letter = letters.get(failure["letter"])
    name = failure["event"] or "unreadable event"
    return (link(letter, name) if letter else name), failure["why"]


def standing(job: BulkJob) -> str:
    """Return in a sentence how a job stands, and whom it waits for."""
    if job.finished:
        ended = f"{localtime(job.finished_at):%Y-%m-%d %H:%M:%S %Z}"
        if job.stopped_because:
            return f"ended {ended}: {visible(job.stopped_because)}"
        return (
            f"stopped by {exact(job.stopped_by)}, {ended}" if job.stopped_by else f"ended {ended}"
        )
    if job.stopped_by:
        return f"is being stopped by {exact(job.stopped_by)}"
    if has_worker(job):
        return "under way"
    seen = heartbeats.last_seen().get(topology.MAINTENANCE)
    if seen is None or seen < clock.now() - heartbeats.longest_silence():
        last = (
            f"the last was seen {localtime(seen):%Y-%m-%d %H:%M:%S %Z}"
            if seen
            else "none was ever seen"
        )
        return f"waits for a worker that serves {topology.MAINTENANCE!r}: {last}"
    problem = f"{visible(job.last_error)}; " if job.last_error else ""
    return f"{problem}{next_attempt(job, clock.now())}"
