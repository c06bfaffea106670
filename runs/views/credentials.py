"""An operator's accounts at Providers: list, add, delete; never what is in them."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from runs import credentials as accounts
from runs.errors import PlanError
from runs.forms import CredentialForm, addable
from runs.models import Credential


@sensitive_post_parameters()
@login_required
@require_http_methods(["GET", "POST"])
def credentials(request: HttpRequest) -> HttpResponse:
    """The list, and the form for the Provider that the query string names."""
    assert request.user.is_authenticated
    slug = request.POST.get("provider") or request.GET.get("provider", "")
    slug = slug if slug in dict(addable()) else ""
    form = CredentialForm(request.POST or None, provider=slug) if slug else None
    if request.method == "POST" and form is not None and form.is_valid():
        try:
            label, endpoint = form.cleaned_data["label"], form.cleaned_data["endpoint"]
            accounts.add(request.user, slug, label, form.values, endpoint)
        except PlanError as error:
            for name, text in error.messages.items():
                form.add_error(name if name in form.fields else None, text)
        else:
            messages.success(request, f"Stored, encrypted: {slug} “{label}”.")
            return redirect("credentials")
    ctx = {
        "form": form,
        "provider": slug,
        "addable": addable(),
        "mine": Credential.objects.filter(owner=request.user),
    }
    failed = form is not None and bool(form.errors)
    return render(
        request, "account/credentials.html", ctx, status=422 if failed else 200
    )


@login_required
@require_POST
def delete_credential(request: HttpRequest, pk: int) -> HttpResponse:
    """Gone for good, unless a Run that is not sealed yet still needs it."""
    credential = get_object_or_404(Credential, pk=pk, owner=request.user)
    if accounts.in_use(credential):
        messages.error(
            request, f"A Run still uses “{credential.label}”; abort it first."
        )
    else:
        credential.delete()
        messages.success(request, f"“{credential.label}” is deleted.")
    return redirect("credentials")
