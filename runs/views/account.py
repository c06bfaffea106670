"""Signing in (by a one-time link or a password), the account, API tokens."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from runs.models import ApiToken
from runs.operators import create_token, user_of_link

_BACKEND = "django.contrib.auth.backends.ModelBackend"


@require_http_methods(["GET", "POST"])
def sign_in_link(request: HttpRequest, uid: str, token: str) -> HttpResponse:
    """GET asks for one click, so that a link preview does not use the link up."""
    user = user_of_link(uid, token)
    if user is None:
        return render(request, "account/sign_in_link.html", {"user": None}, status=410)
    if request.method == "POST":
        login(request, user, backend=_BACKEND)
        return redirect(_after_sign_in(request))
    return render(request, "account/sign_in_link.html", {"operator": user})


def _after_sign_in(request: HttpRequest) -> str:
    """`next`, if it is a page of this site; else the list of Runs."""
    wanted = request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
        return wanted
    return reverse("runs")


@login_required
@require_http_methods(["GET", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    assert request.user.is_authenticated
    form = SetPasswordForm(request.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        update_session_auth_hash(request, form.user)
        messages.success(request, "Your password is set.")
        return redirect("account")
    tokens = ApiToken.objects.filter(user=request.user, revoked_at__isnull=True)
    ctx = {"form": form, "tokens": tokens, "fresh": request.session.pop("token", "")}
    return render(request, "account/account.html", ctx)


@login_required
@require_POST
def add_token(request: HttpRequest) -> HttpResponse:
    assert request.user.is_authenticated
    name = request.POST.get("name", "").strip()[:100] or "unnamed"
    request.session["token"] = create_token(request.user, name)
    return redirect("account")


@login_required
@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    assert request.user.is_authenticated
    ApiToken.objects.filter(pk=pk, user=request.user).update(revoked_at=timezone.now())
    messages.success(request, "The token is revoked.")
    return redirect("account")
