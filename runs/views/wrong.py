"""A page's answer to an address that cannot be: 400, in words."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def wrong(request: HttpRequest, why: str, *, back: str, to: str) -> HttpResponse:
    """back: the address that can be asked instead, and what it is (`to`)."""
    ctx = {"wrong": why, "back": back, "to": to}
    return render(request, "runs/wrong.html", ctx, status=400)
