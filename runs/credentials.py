"""Operators' accounts at Providers: stored encrypted, never shown again.

The values are sealed with Fernet under a key derived from CREDENTIALS_KEY, or from
SECRET_KEY where that is not set. Several keys, separated by commas: the first seals,
each opens, so that a key can be replaced.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.contrib.auth.models import User

from runs.errors import CredentialError, PlanError
from runs.models import Credential, Run
from runs.plan import SIMCLOUD
from shardagent import providers
from shardagent.providers.base import ENDPOINT
from shardagent.wire import Plan

VALUE_LENGTH_MAX = 8_000
_PURPOSE = b"holdfast.credentials.1"


def seal(values: Mapping[str, str]) -> str:
    """The values as text that only this installation can open."""
    return _fernet().encrypt(json.dumps(dict(values)).encode()).decode()


def unseal(sealed: str) -> dict[str, str]:
    """CredentialError where the key is another one by now."""
    try:
        opened = json.loads(_fernet().decrypt(sealed.encode()))
    except (InvalidToken, ValueError):
        raise CredentialError(
            "the credential cannot be opened with this installation's key; "
            "delete it and enter it again"
        ) from None
    return {str(name): str(value) for name, value in opened.items()}


def add(
    user: User, provider: str, label: str, values: Mapping[str, str], endpoint: str = ""
) -> Credential:
    """Store an account. PlanError names each value that is missing or too long."""
    if provider not in providers.known():
        raise PlanError({"provider": f"{provider!r} is not known here"})
    entries = providers.about(provider).entries
    errors = {}
    for entry in entries:
        value = values.get(entry.name, "").strip()
        if entry.required and not value:
            errors[entry.name] = f"{entry.label} is needed"
        elif len(value) > VALUE_LENGTH_MAX:
            errors[entry.name] = f"{entry.label} is longer than {VALUE_LENGTH_MAX}"
    if not entries:
        errors["provider"] = f"{provider} needs no credential"
    if errors:
        raise PlanError(errors)
    kept = {e.name: values.get(e.name, "").strip() for e in entries}
    return Credential.objects.create(
        owner=user,
        provider=provider,
        label=label.strip() or provider,
        endpoint=endpoint.strip(),
        sealed=seal({name: value for name, value in kept.items() if value}),
    )


def choose(user: User | None, plan: Plan, wanted: object = None) -> Credential | None:
    """The account for this Plan: the one asked for, or the operator's only one.

    None where none is needed. PlanError where it is not theirs or not clear which.
    """
    if not needs_one(plan):
        return None
    mine = Credential.objects.filter(provider=plan.provider)
    if user is not None:
        mine = mine.filter(owner=user)
    if wanted not in (None, ""):
        found = (
            mine.filter(pk=int(str(wanted))).first()
            if str(wanted).isdecimal()
            else None
        )
        if found is None:
            text = f"you have no credential {wanted!r} for {plan.provider}"
            raise PlanError({"credential": text})
        return found
    rows = list(mine[:2])
    if len(rows) == 1:
        return rows[0]
    title = providers.about(plan.provider).title
    text = "choose one of yours" if rows else "add one on the page Credentials"
    raise PlanError({"credential": f"{title} needs an account; {text}"})


def needs_one(plan: Plan) -> bool:
    """Whether this Plan cannot be carried out without an account."""
    if plan.endpoint == SIMCLOUD:
        return False
    return any(entry.required for entry in providers.about(plan.provider).entries)


def config_of(credential: Credential | None, plan: Plan) -> dict[str, str]:
    """What the adapter is given; secret, and never part of the record."""
    config = {} if credential is None else unseal(credential.sealed)
    endpoint = plan.endpoint or (credential.endpoint if credential else "")
    return {**config, **({ENDPOINT: endpoint} if endpoint else {})}


def in_use(credential: Credential) -> bool:
    """Whether a Run that is not sealed yet still needs it."""
    return Run.objects.filter(credential=credential).exclude(state="sealed").exists()


def _fernet() -> MultiFernet:
    given = settings.CREDENTIALS_KEY or settings.SECRET_KEY
    keys = [key.strip() for key in given.split(",") if key.strip()]
    return MultiFernet([Fernet(_derived(key)) for key in keys])


def _derived(key: str) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return base64.urlsafe_b64encode(kdf.derive(key.encode()))
