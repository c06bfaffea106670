"""Django's admin: Runs to look at. Publishing obeys the same rule as everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from runs import publication
from runs.errors import StateError
from runs.models import Run

SHOWN = (
    "code",
    "provider",
    "state",
    "verdict",
    "ranked",
    "created_by",
    "created_at",
    "launched_at",
    "end_reason",
    "end_detail",
    "published_at",
    "published_by",
    "plan",
)

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[Run]
else:
    _Admin = admin.ModelAdmin  # cannot be subscripted while it runs


@admin.register(Run)
class RunAdmin(_Admin):
    """Nothing can be added, changed or deleted here: a Run is a record."""

    list_display = (
        "code",
        "provider",
        "state",
        "verdict",
        "ranked",
        "published_at",
        "created_at",
    )
    list_filter = ("state", "provider", "ranked")
    search_fields = ("code",)
    fields = SHOWN
    readonly_fields = SHOWN
    actions = ("publish", "unpublish")

    @admin.display(description="verdict")
    def verdict(self, run: Run) -> str:
        found = (run.summary or {}).get("verdict") or {}
        return str(found.get("level", "–"))

    @admin.action(description="Publish as results")
    def publish(self, request: HttpRequest, runs: QuerySet[Run]) -> None:
        self._each(request, runs, publication.publish)

    @admin.action(description="Withdraw from the results")
    def unpublish(self, request: HttpRequest, runs: QuerySet[Run]) -> None:
        self._each(request, runs, publication.unpublish)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: Run | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: Run | None = None
    ) -> bool:
        return False

    def _each(
        self,
        request: HttpRequest,
        runs: QuerySet[Run],
        act: Callable[[Run, str], None],
    ) -> None:
        for run in runs:
            try:
                act(run, request.user.get_username())
            except StateError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{run.code}: done", messages.SUCCESS)
