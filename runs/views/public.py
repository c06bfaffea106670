"""What anybody sees first: the front page, the leaderboard, the methodology."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET
from markdown_it import MarkdownIt

from runs.api.shapes import run_json
from runs.headline import headline
from runs.leaderboard import board_json, class_plans, current_boards
from runs.models import State
from runs.views.runs import visible_to

SHOWN_ON_FRONT = 5


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    latest = []
    for run in visible_to(request).exclude(state=State.DRAFT)[:SHOWN_ON_FRONT]:
        shown = run_json(run)
        latest.append({"run": run, "json": shown, "headline": headline(shown)})
    return render(request, "runs/home.html", {"latest": latest, "rows": latest})


@require_GET
def leaderboard(request: HttpRequest) -> HttpResponse:
    plans = class_plans()
    found = [board_json(board, plans) for board in current_boards(timezone.now())]
    for board in found:  # `items` is a method of a dict in a template
        board["places"] = board.pop("items")
    return render(request, "runs/leaderboard.html", {"boards": found})


@require_GET
def methodology(request: HttpRequest) -> HttpResponse:
    return render(request, "runs/methodology.html", {"text": _methodology()})


@lru_cache(maxsize=1)
def _methodology() -> SafeString:
    """docs/methodology.md as HTML; the file is ours, so it is safe."""
    text = (settings.BASE_DIR / "docs" / "methodology.md").read_text()
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(text)
    for place, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        inline = tokens[place + 1]
        title, marker, anchor = inline.content.partition(" {#")
        if marker and inline.children:
            token.attrSet("id", anchor.rstrip("}"))
            inline.children[0].content = title
    html: str = parser.renderer.render(tokens, parser.options, {})
    return SafeString(html)
