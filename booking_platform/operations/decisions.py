"""What people decide about records: asked for a reason, carried out one by one, kept in the history."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import model_ngettext
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldBooleanWidget

from booking_platform.operations.records import LISTED, AnyModelAdmin, RecordsOfFact, exact, visible
from booking_platform.operations.rights import holders

MOST_AT_ONCE = 500  # records a request: it has to end, and a form may have 1,000 fields


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a person may decide about records: an action of the list, and a button of the page."""

    action: str
    permission: str  # of Django, with the label of its app
    listed: str  # in the list's menu of actions
    title: str  # of its confirmation, around the number of records
    done: str
    undone: str
    explanation: str
    why_required: bool = True
    asks: bool = True  # for a confirmation

    @property
    def label(self) -> str:
        return " ".join(self.title.format("").split())


class ReasonForm(forms.Form):
    """Asks why."""

    why = forms.CharField(
        label="Reason",
        max_length=1000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
        help_text="Kept in the history of each, for whoever asks later.",
    )

    @classmethod
    def about(cls, records: Iterable[Any], request: HttpRequest) -> Self:  # noqa: ARG003  (for subclasses)
        """Return the form as it was confirmed, or a new one that asks about the records."""
        return cls(request.POST if "confirmed" in request.POST else None)

    def has_shown(self, record: Any) -> bool:
        """Return whether the record is still as the form has shown it."""
        return True


class Interrupted(Exception):
    """Nothing more can be carried out now; the message says why, for the person who asked."""


class DecisionsAdmin(RecordsOfFact):
    """Records that wait for people's decisions: confirmed, told of, and kept in the history."""

    decisions: ClassVar[Sequence[Decision]] = ()
    oldest_first: ClassVar[tuple[str, ...]] = ("pk",)
    reason_form: ClassVar[type[ReasonForm]] = ReasonForm

    # What each admin says about its records.

    def is_open(self, record: Any, how: Decision) -> bool:
        """Return whether the record's page offers a decision."""
        raise NotImplementedError

    def described(self, record: Any, how: Decision) -> dict[str, object]:
        """Return, by column, which record a confirmation is about, and how it stands."""
        raise NotImplementedError

    def named(self, record: Any) -> str:
        """Return the name of a record in messages."""
        return str(record)

    def history_of(self, record: Any, how: Decision, why: str) -> str:
        """Return what is kept in the history of a record when the decision is carried out."""
        return f"{how.done}: {why}" if why else how.done

    def obstacle(self, record: Any, how: Decision) -> str:
        """Return why a decision can't be taken about the record as it is; empty if it can."""
        return ""

    def obstacle_with_others(self, record: Any, how: Decision) -> str:
        """Return why a decision can't be taken about the record and others at once; empty if it can."""
        return ""

    def carry_out(self, request: HttpRequest, record: Any, how: Decision, why: str) -> str:
        """Carry out a decision about one record; return why that can't be done, or nothing.

        Raises:
            Interrupted: it can't be done for the other records either.
        """
        raise NotImplementedError

    def permissions(self, record: Any, how: Decision) -> list[str]:
        """Return the permissions that a decision about the record needs."""
        return [how.permission]

    # How a decision is made.

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return an action for each decision that the person may make."""
        return {
            how.action: (self._action(how), how.action, how.listed)
            for how in self.decisions
            if request.user.has_perm(how.permission)
        }

    def _action(self, how: Decision) -> Callable[..., HttpResponse | None]:
        return lambda _admin, request, listed: self.decide(request, listed, how)

    def decide(
        self, request: HttpRequest, listed: models.QuerySet[Any], how: Decision
    ) -> HttpResponse | None:
        """Ask for a reason, unless the decision needs none; then carry it out for each record."""
        chosen = self.chosen(request, listed)
        if not how.asks:
            left = chosen.count() - MOST_AT_ONCE  # before they leave what the list is filtered by
            self.carry_out_each(request, list(chosen[:MOST_AT_ONCE]), how, "", left_over=left)
            return None
        records = list(chosen[:MOST_AT_ONCE])
        form = self.reason_form.about(records, request)
        form.fields["why"].required = how.why_required
        if not form.is_valid():
            return self.ask(request, chosen, how, form)
        shown = [record for record in records if form.has_shown(record)]
        changed = [record for record in records if record not in shown]
        self.carry_out_each(request, shown, how, form.cleaned_data["why"], changed=changed)
        return None

    def carry_out_each(
        self,
        request: HttpRequest,
        records: Sequence[Any],
        how: Decision,
        why: str,
        *,
        changed: Sequence[Any] = (),
        left_over: int = 0,
    ) -> None:
        """Carry out a decision about one record after the other, and tell what became of each."""
        done: list[str] = []
        problems = [
            self._problem(each, how, self.obstacle(each, how) or "it changed since it was shown")
            for each in changed
        ]
        alone = len(records) + len(changed) == 1
        for number, record in enumerate(records):
            history = self.history_of(record, how, why)
            try:
                problem = "" if alone else self.obstacle_with_others(record, how)
                problem = problem or self.carry_out(request, record, how, why)
            except Interrupted as interrupted:
                left = len(records) - number
                told = f"{interrupted} Nothing is lost: {left} of those selected stay as they were."
                self.message_user(request, told, messages.ERROR)
                break
            if problem:
                problems.append(self._problem(record, how, problem))
            else:
                done.append(self.named(record))
                self.log_change(request, record, history)
        if left_over > 0:
            oldest = f"Only the {MOST_AT_ONCE} oldest: do it again for the other {left_over}."
            problems.append(oldest)
        self._tell(request, done, problems, how)

    def chosen(self, request: HttpRequest, listed: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Return what the person selected, oldest first.

        It may be more than what the filter of the list still matches: what has changed meanwhile is
        reported, not left out.
        """
        chosen = listed
        if request.POST.get("select_across") != "1":
            pks = request.POST.getlist(ACTION_CHECKBOX_NAME)
            chosen = self.get_queryset(request).filter(pk__in=pks)
        return chosen.order_by(*self.oldest_first)

    def ask(
        self,
        request: HttpRequest,
        chosen: models.QuerySet[Any],
        how: Decision,
        form: forms.Form | None,
        **context: object,
    ) -> HttpResponse:
        """Return a page that shows what is to be confirmed, with the form if there is one."""
        records, total = list(chosen[:MOST_AT_ONCE]), chosen.count()
        number = f"{len(records)} {model_ngettext(self.opts, len(records))}"
        context = {
            **self.admin_site.each_context(request),
            "title": how.title.format(number),
            "opts": self.opts,
            "media": self.media,
            "how": how,
            "form": form,
            "records": records,
            "listed": [self.described(record, how) for record in records[:LISTED]],
            "unlisted": max(0, len(records) - LISTED),
            "total": total,
            "left_over": total - len(records),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            **context,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/operations/confirm.html", context)

    def _problem(self, record: Any, how: Decision, problem: str) -> str:
        return f"{self.named(record)}: {how.undone}: {problem}"

    def _tell(
        self, request: HttpRequest, done: list[str], problems: list[str], how: Decision
    ) -> None:
        """Report to the person what became of each record."""
        if done:
            number = f"{len(done)} {model_ngettext(self.opts, len(done))}"
            names = "; ".join(done[:LISTED]) + (" …" if len(done) > LISTED else "")
            self.message_user(request, visible(f"{number} {how.done}: {names}"), messages.SUCCESS)
        for problem in problems[:LISTED]:
            self.message_user(request, visible(problem), messages.WARNING)
        if len(problems) > LISTED:
            more = f"… and {len(problems) - LISTED} more like these."
            self.message_user(request, more, messages.WARNING)

    # What the pages show of it.

    @admin.display(description=getattr(AnyModelAdmin.action_checkbox, "short_description", None))
    def action_checkbox(self, obj: Any) -> SafeString:
        name = {"class": "action-select", "aria-label": f"Select {exact(obj)}"}
        checkbox = UnfoldBooleanWidget(name, lambda _value: False)
        return SafeString(checkbox.render(ACTION_CHECKBOX_NAME, str(obj.pk)))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        offered: list[Decision] = []
        withheld: dict[str, list[str]] = {}  # by who may
        for how in self.decisions:
            if not self.is_open(context["original"], how):
                continue
            needed = self.permissions(context["original"], how)
            if all(map(request.user.has_perm, needed)):
                offered.append(how)
            else:
                withheld.setdefault(holders(needed), []).append(how.label)
        context |= {
            "decisions": offered,
            "withheld": [(", ".join(labels), who) for who, labels in withheld.items()],
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return super().render_change_form(request, context, *args, **kwargs)
