"""The pages on which a person corrects a dead letter: type, be told what is wrong, confirm, send."""

from collections.abc import Sequence
from typing import Any

import structlog
from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.text import Truncator
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from booking_platform.contract.editing import Change
from booking_platform.contract.fingerprints import fingerprint
from booking_platform.messaging import broker, edits
from booking_platform.messaging.dead_letters import NotReplayable, consumers_of
from booking_platform.messaging.edits import Edit, InvalidEdit
from booking_platform.messaging.models import DeadLetter
from booking_platform.operations.decisions import Decision
from booking_platform.operations.records import LISTED, AnyModelAdmin, exact, visible
from booking_platform.operations.rights import lacking
from booking_platform.redaction import redacted_text

log = structlog.get_logger(__name__)

EDIT = Decision(
    action="edit",
    permission="messaging.edit_deadletter",
    listed="Edit and replay: one at a time",
    title="Edit and replay {}",
    done="replayed, edited",
    undone="not edited",
    explanation="What you make of it goes to the queue that the original came from, and to no other, under "
    "an event id of its own. The original is kept.",
)
SEND_AGAIN = Decision(
    action="send_again",
    permission="messaging.edit_deadletter",
    listed="Send what was edited once more",
    title="Send what was made of {} again",
    done="sent again, as it was edited",
    undone="not sent again",
    explanation="It was edited, and the process that sent it did not end in order. The same goes to its queue "
    "again, under the same event id: if it was applied already, this has no effect.",
)
UNCHANGED = (
    "Nothing is changed but the event id. If the original is published or replayed as well, it is not "
    "recognised as the same event."
)
CHARS = 300  # of a value that is shown beside another


class EditForm(forms.Form):
    """The text of an event, why it is changed, and whether the person knows what may come of it."""

    text = forms.CharField(
        label="Event",
        strip=False,
        widget=UnfoldAdminTextareaWidget(
            attrs={"rows": 22, "class": "event", "spellcheck": "false", "autocomplete": "off"}
        ),
        help_text="JSON. Its event id is replaced by a new one, whatever stands here.",
    )
    why = forms.CharField(
        label="Reason",
        max_length=1000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Kept in the history, for whoever asks later.",
    )
    sure = forms.BooleanField(
        label="I know that, and this is to be applied all the same",
        required=False,
        widget=UnfoldBooleanWidget,
    )


class EditsAdmin(AnyModelAdmin):
    """The page on which a dead letter is edited."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.edit_view)
        return [
            path("<path:object_id>/edit/", view, name="messaging_deadletter_edit"),
            *super().get_urls(),
        ]

    def begin_edit(
        self, request: HttpRequest, chosen: models.QuerySet[DeadLetter]
    ) -> HttpResponse | None:
        """Lead to the page of the one letter that is chosen."""
        pks = list(chosen.values_list("pk", flat=True)[:2])
        if len(pks) != 1:
            problem = "Dead letters are edited one at a time: select one."
            self.message_user(request, problem, messages.WARNING)
            return None
        return HttpResponseRedirect(reverse("admin:messaging_deadletter_edit", args=pks))

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if not (self.has_view_permission(request) and request.user.has_perm(EDIT.permission)):
            raise PermissionDenied
        found = self.get_object(request, unquote(object_id))
        if found is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]
        letter = DeadLetter.objects.get(pk=found.pk)
        return (
            self._check(request, letter) if request.method == "POST" else self._ask(request, letter)
        )

    def _ask(self, request: HttpRequest, letter: DeadLetter) -> HttpResponse:
        try:
            form = EditForm(initial={"text": edits.draft(letter)})
            problem = lacking(request.user, consumers_of(letter))
        except NotReplayable as error:
            problem = str(error)
        if problem:
            self.message_user(request, visible(f"It can't be edited: {problem}"), messages.ERROR)
            return HttpResponseRedirect(_page(letter))
        return self._page(request, letter, form)

    def _check(self, request: HttpRequest, letter: DeadLetter) -> HttpResponse:
        """Check what was typed; if it was confirmed, send it. Whatever goes wrong, what was typed stays."""
        form = EditForm(request.POST)
        if not form.is_valid() or "again" in request.POST:
            return self._page(request, letter, form)
        try:
            edit = edits.examine(letter, form.cleaned_data["text"])
            if needed := lacking(request.user, (*consumers_of(letter), *edit.consumers)):
                raise NotReplayable(needed)
            doubts = [*edits.doubts(letter), *([] if edit.changed else [UNCHANGED])]
            told = _seen(doubts)
            sure = form.cleaned_data["sure"] and request.POST.get("doubts") == told
            if "send" not in request.POST or (doubts and not sure):
                typed = request.POST.copy()
                typed.pop("sure", None)  # it was said of what was shown then
                form = EditForm(typed)
                return self._page(request, letter, form, edit=edit, doubts=doubts)
            self._carry_out(request, letter, edit, form.cleaned_data["why"])
        except InvalidEdit as error:
            return self._page(request, letter, form, problems=error.problems)
        except NotReplayable as error:
            return self._page(request, letter, form, problems=[str(error)])
        except broker.UNREACHABLE as error:
            log.warning("The broker took no edited event", error=str(error))
            problem = f"The broker did not take it ({type(error).__name__}: {error}). Send it again later."
            return self._page(request, letter, form, problems=[problem])
        return HttpResponseRedirect(_page(letter))

    def _carry_out(self, request: HttpRequest, letter: DeadLetter, edit: Edit, why: str) -> None:
        by = request.user.get_username()
        closed = edits.send_edited(letter, edit, by=by, why=why)
        self.log_change(request, letter, history_of(edit, why))
        told = f"{exact(letter)}: replayed, edited, as {exact(edit.event_id)}."
        if closed:
            self.message_user(request, told, messages.SUCCESS)
            return
        told += " It stays open: the original came again meanwhile. Look at it once more."
        self.message_user(request, told, messages.WARNING)

    def _page(
        self,
        request: HttpRequest,
        letter: DeadLetter,
        form: EditForm,
        *,
        problems: Sequence[str] = (),
        edit: Edit | None = None,
        doubts: Sequence[str] = (),
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Edit and replay",
            "opts": self.opts,
            "original": letter,
            "how": EDIT,
            "form": form,
            "problems": [visible(problem) for problem in problems],
            "edit": edit,
            "changed": shown_changes(edit.changed) if edit else (),
            "doubts": [visible(doubt) for doubt in doubts],
            "told": _seen(doubts),
            "unsure": bool(doubts) and "send" in request.POST,
            "letter": {
                "Event id": exact(letter.event_id) or "unreadable",
                "Queue": visible(letter.queue) or "-",
                "Reason": letter.why.meaning,
                "Detail": visible(letter.detail),
            },
            "came_as": exact(letter.event_id) or "unreadable",
            "back": _page(letter),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/operations/edit_letter.html", context)


def shown_changes(changed: Sequence[Change]) -> list[tuple[str, str, str]]:
    """Return changes as a page shows them: field, before, after."""

    def cut(text: str) -> str:
        return Truncator(visible(text)).chars(CHARS) if text else "not there"

    shown = [
        (exact(each.path) or "the whole message", cut(each.before), cut(each.after))
        for each in changed[:LISTED]
    ]
    if len(changed) > LISTED:
        shown.append((f"… and {len(changed) - LISTED} more", "", ""))
    return shown


def history_of(edit: Edit, why: str) -> str:
    """Return what the history keeps of an edit: the names of the fields, and none of their values."""
    names = [redacted_text(exact(each.path))[:100] or "all" for each in edit.changed[:LISTED]]
    if len(edit.changed) > LISTED:
        names.append(f"{len(edit.changed) - LISTED} more")
    what = ", ".join(names) or "nothing but its event id"
    return f"replayed, edited, as {exact(edit.event_id)}; changed: {what}. {why}"


def _seen(doubts: Sequence[str]) -> str:
    """Return what stands for doubts in a form: whoever is sure has been told of these, and of no others."""
    return fingerprint(doubts)


def _page(letter: DeadLetter) -> str:
    return reverse("admin:messaging_deadletter_change", args=[letter.pk])
