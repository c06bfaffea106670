"""What anybody sees first: the front page, the leaderboard, the methodology."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.conf import settings
from django.contrib.syndication.views import Feed
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.feedgenerator import Atom1Feed
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET
from markdown_it import MarkdownIt

from runs.api.shapes import run_json
from runs.headline import beneath, headline, qualified, qualifiers
from runs.leaderboard import STAND_IN, class_plans, history, shown_boards
from runs.models import Run, State
from runs.templatetags.runs_format import duration, thousands
from runs.views.runs import visible_to

SHOWN_ON_FRONT = 5
FEED_ITEMS = 30


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    latest = []
    for run in visible_to(request).exclude(state=State.DRAFT)[:SHOWN_ON_FRONT]:
        shown = run_json(run)
        row = {"run": run, "json": shown, "headline": headline(shown)}
        latest.append(row | {"qualifiers": qualifiers(shown)})
    return render(request, "runs/home.html", {"latest": latest, "rows": latest})


@require_GET
def leaderboard(request: HttpRequest) -> HttpResponse:
    """Ranks by class; `class` and `provider` in the address narrow it."""
    found = _boards(request)
    chosen, wanted = request.GET.get("class", ""), request.GET.get("provider", "")
    ctx = {
        "classes": [(board["class"], _class_said(board)) for board in found],
        "providers": sorted({p["provider"] for b in found for p in b["places"]}),
        "chosen": chosen,
        "wanted": wanted,
        "boards": [
            {**board, "places": [p for p in board["places"] if _is(p, wanted)]}
            for board in found
            if chosen in ("", board["class"])
        ],
        "hidden": sum(board.get("hidden", 0) for board in found),
    }
    ctx["boards"] = [board for board in ctx["boards"] if board["places"]]
    return render(request, "runs/leaderboard.html", ctx)


@require_GET
def leaderboard_card(request: HttpRequest) -> HttpResponse:
    """One class as a picture, to be put on other pages; published Runs only."""
    boards = _boards(request, public=True)
    chosen = request.GET.get("class", "")
    found = [b for b in boards if b["places"] and chosen in ("", b["class"])]
    ctx = {"board": found[0] if found else None}
    answer = render(
        request, "runs/leaderboard_card.svg", ctx, content_type="image/svg+xml"
    )
    answer["Cache-Control"] = "public, max-age=300"
    return answer


@require_GET
def provider(request: HttpRequest, slug: str) -> HttpResponse:
    """A Provider over time: every ranked launch, whatever became of it."""
    public = not request.user.is_authenticated
    stand_in = request.GET.get("simulated") == "1"
    rows = history(slug, public=public, stand_in=stand_in)
    if not rows:
        raise Http404(f"no ranked Run at {slug} is shown here")
    plans = class_plans()
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["launch"].class_id, []).append(row)
    groups = [
        {"said": _plan_said(plans.get(name, {})), "rows": found, **_drawing(found)}
        for name, found in by_class.items()
    ]
    name = f"{slug}{STAND_IN}" if stand_in else slug
    ctx = {"provider": name, "groups": groups, "count": len(rows)}
    return render(request, "runs/provider.html", ctx)


class PublishedRuns(Feed):  # type: ignore[type-arg]  # not generic at run time
    """Newly published Runs, as an Atom feed."""

    feed_type = Atom1Feed
    author_name = "Holdfast"  # Atom asks for one
    title = "Holdfast: newly published Runs"
    subtitle = (
        "How many sandboxes were proven alive together, and whether to believe it."
    )

    def link(self) -> str:
        return reverse("runs")

    def items(self) -> Any:
        published = Run.objects.filter(state=State.SEALED, published_at__isnull=False)
        return published.order_by("-published_at")[:FEED_ITEMS]

    def item_title(self, item: Run) -> str:
        return f"{item.provider}: {qualified(run_json(item))}"

    def item_description(self, item: Run) -> str:
        return beneath(run_json(item))

    def item_link(self, item: Run) -> str:
        return reverse("run", args=[item.code])

    def item_guid(self, item: Run) -> str:
        return f"{settings.SITE_URL}/runs/{item.code}"

    def item_pubdate(self, item: Run) -> Any:
        return item.published_at

    def item_updateddate(self, item: Run) -> Any:
        return item.published_at


def _boards(request: HttpRequest, *, public: bool = False) -> list[dict[str, Any]]:
    """Every class with its places; what strangers may not see is counted only."""
    public = public or not request.user.is_authenticated
    found = shown_boards(timezone.now(), public=public)
    for board in found:  # `items` is a method of a dict in a template
        board["said"] = _class_said(board)
        shares = [
            share
            for place in board["items"]
            for share in (*(place["share_held_ci95"] or ()), *(place["spread"] or ()))
        ]
        least = min([*shares, 0.99]) if shares else 0.0
        for place in board["items"]:
            place["drawn"] = _drawn(place, max(0.0, least - 0.1 * (1 - least)))
            slug, stand_in, _ = place["provider"].partition(STAND_IN)
            address = reverse("provider", args=[slug])
            place["address"] = f"{address}?simulated=1" if stand_in else address
            place["counted"] = [run for run in place["runs"] if run["used"]]
            place["not_counted"] = [run for run in place["runs"] if not run["used"]]
        board["places"] = board.pop("items")
    return found


def _drawn(place: dict[str, Any], least: float) -> dict[str, Any] | None:
    """Interval, median and every Run that counts, in per cent of the drawing."""
    if place["share_held"] is None:
        return None

    def at(share: float) -> str:
        return f"{100 * (share - least) / max(1e-9, 1 - least):.2f}%"

    low, high = place["share_held_ci95"] or (place["share_held"],) * 2
    return {
        "low": at(low),
        "high": at(high),
        "middle": at(place["share_held"]),
        "runs": [at(r["share_held"]) for r in place["runs"] if r["used"]],
        "from": least,
    }


def _drawing(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Launches over time: left in per cent, top from 100 % down to the least held.

    An INVALID one is not drawn: our own rig cannot be ruled out.
    """
    shown = [
        row
        for row in rows
        if row["share"] is not None and row["launch"].verdict != "INVALID"
    ]
    if not shown:
        return {"dots": []}
    first, last = shown[0]["at"], shown[-1]["at"]
    span = max(1, (last - first).total_seconds())
    lowest = min(row["share"] for row in shown)
    least = max(0.0, lowest - 0.25 * (1 - lowest)) if lowest < 1 else 0.9
    dots = [
        {
            "x": f"{4 + 92 * (row['at'] - first).total_seconds() / span:.2f}%",
            "y": f"{8 + 84 * (1 - row['share']) / (1 - least):.2f}%",
            "row": row,
        }
        for row in shown
    ]
    return {"dots": dots, "least": least, "first": first, "last": last}


def _class_said(board: dict[str, Any]) -> str:
    said = _plan_said(board)
    observed = board["observed"]
    if observed["cpus"] is not None and observed["memory_bytes"] is not None:
        said += f", seen as {observed['cpus']:g} CPU and "
        said += f"{thousands(observed['memory_bytes'] / 2**20)} MiB"
    return said


def _plan_said(plan: dict[str, Any]) -> str:
    if not plan.get("target"):
        return "a class of which no Plan is known"
    spec = plan.get("spec") or {}
    return (
        f"{thousands(plan['target'])} sandboxes, {plan['load']['shape']}, "
        f"{duration(plan['hold_s'])} hold, {spec.get('cpu', 1):g} CPU, "
        f"{thousands(spec.get('memory_mb', 512))} MB"
    )


def _is(place: dict[str, Any], wanted: str) -> bool:
    return wanted in ("", place["provider"])


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
