"""Operators: their accounts, one-time sign-in links and API tokens."""

from __future__ import annotations

import secrets
from hashlib import sha256

from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from runs.models import ApiToken

TOKEN_BYTES = 32


def operator(name: str) -> User:
    """The account called `name`, made without a password where it is missing."""
    user, made = User.objects.get_or_create(
        username=name, defaults={"is_staff": True, "is_superuser": True}
    )
    if made:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


def sign_in_path(user: User) -> str:
    """A link that signs `user` in once, within PASSWORD_RESET_TIMEOUT."""
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    token = default_token_generator.make_token(user)
    return reverse("sign-in-link", args=[uid, token])


def user_of_link(uid: str, token: str) -> User | None:
    try:
        user = User.objects.get(pk=int(urlsafe_base64_decode(uid)))
    except (ValueError, OverflowError, User.DoesNotExist):
        return None
    if not user.is_active or not default_token_generator.check_token(user, token):
        return None
    return user


def create_token(user: User, name: str) -> str:
    """A new API token; shown once, only its digest is kept."""
    token = f"hf_{secrets.token_urlsafe(TOKEN_BYTES)}"
    ApiToken.objects.create(name=name, user=user, digest=_digest(token))
    return token


def user_of_token(token: str) -> User | None:
    found = ApiToken.objects.filter(
        digest=_digest(token), revoked_at__isnull=True, user__is_active=True
    ).select_related("user")
    row = found.first()
    return row.user if row else None


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
