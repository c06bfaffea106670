"""The "New run" form: a Plan's parameters as fields, checked by plan.py alone."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.auth.models import User

from runs import credentials
from runs.errors import PlanError
from runs.fleets import drivers
from runs.launch import checked_plan
from runs.models import Credential
from runs.plan import QUICK_BEAT_HOSTS_MAX, QUICK_FLUSH_SHARDS_MAX
from shardagent import providers
from shardagent.errors import ConfigError
from shardagent.wire import Plan, Shape

_SHAPE_LABELS = {
    Shape.BURST: "burst: all at T0",
    Shape.STAGGERED: "staggered: one every few ms",
    Shape.SEQUENTIAL: "sequential: one at a time",
    Shape.STAIRCASE: "staircase: steps, each held",
}
NUMBERS = (
    "sandbox_count",
    "sandboxes_per_shard",
    "target",
    "hold_s",
    "probe_interval_s",
    "create_timeout_s",
    "ready_timeout_s",
    "probe_timeout_s",
    "probe_failures_max",
    "final_spread_s",
    "heartbeat_interval_s",
    "flush_interval_s",
    "seed",
    "max_duration_s",
    "max_cost",
    "quota_granted",
    "quota_granted_on",
)
NESTED = {
    "load_shape": ("load", "shape"),
    "load_steps": ("load", "steps"),
    "load_step_s": ("load", "step_s"),
    "spec_cpu": ("spec", "cpu"),
    "spec_memory_mb": ("spec", "memory_mb"),
    "spec_image": ("spec", "image"),
    "spec_region": ("spec", "region"),
    "fleet_driver": ("fleet", "driver"),
    "fleet_shards_per_host": ("fleet", "shards_per_host"),
    "fleet_over_provision_pct": ("fleet", "over_provision_pct"),
    "fleet_spot": ("fleet", "spot"),
}
_FIELD_OF = {
    **{".".join(path): name for name, path in NESTED.items()},
    "load.stagger_us": "stagger_ms",
    "load": "load_shape",
    "fleet": "fleet_shards_per_host",
}


def _number(label: str, help_text: str = "", placeholder: str = "") -> forms.CharField:
    widget = forms.TextInput(
        attrs={
            "inputmode": "decimal",
            "placeholder": placeholder,
            "autocomplete": "off",
        }
    )
    return forms.CharField(
        label=label, help_text=help_text, required=False, max_length=30, widget=widget
    )


def _providers() -> list[tuple[str, str]]:
    return [(slug, f"{slug}: {_title(slug)}") for slug in _in_order()]


def _fleets() -> list[tuple[str, str]]:
    names = {"local": "local: processes here", "ssh": "ssh: hosts of your own"}
    return [(name, names.get(name, name)) for name in drivers()]


def _in_order() -> list[str]:
    """What needs no account first."""
    first = ["sim", "local"]
    return [*first, *(slug for slug in providers.known() if slug not in first)]


def _title(slug: str) -> str:
    try:
        return providers.about(slug).title
    except ConfigError as error:
        return str(error)


def _default(name: str) -> str:
    return f"{Plan.model_fields[name].default:g}"


_BEATS = f"1 up to {QUICK_BEAT_HOSTS_MAX} hosts, then 2"
_FLUSHES = f"1 up to {QUICK_FLUSH_SHARDS_MAX} Shards, then 2"


class NewRunForm(forms.Form):
    """Empty fields take the product's defaults, which stand in them as placeholders."""

    provider = forms.ChoiceField(choices=_providers, required=False)
    credential = forms.CharField(
        label="Credential",
        required=False,
        max_length=20,
        widget=forms.Select,
        help_text="Your account at the Provider; empty: the only one you have",
    )
    endpoint = forms.CharField(
        label="Endpoint",
        required=False,
        max_length=300,
        help_text="Empty: the vendor's own. “simcloud”: a stand-in, no account needed",
    )
    sandbox_count = _number("Sandboxes", "How many to ask for", "1000")
    sandboxes_per_shard = _number(
        "Sandboxes a Shard", "One agent drives one Shard", "100"
    )
    target = _number("Target", "What “held” is measured against", "all of them")
    load_shape = forms.ChoiceField(
        label="Load",
        choices=[(s.value, _SHAPE_LABELS[s]) for s in Shape],
        required=False,
    )
    stagger_ms = _number("Stagger (ms)", "Staggered: between two creates")
    load_steps = _number("Steps", "Staircase: how many")
    load_step_s = _number("Step (s)", "Staircase: from one step to the next")
    hold_s = _number(
        "Hold (s)", "All stay alive together this long", _default("hold_s")
    )
    probe_interval_s = _number(
        "Probe interval (s)", "Each sandbox is asked this often", "5"
    )
    witness = forms.BooleanField(
        label="Witness",
        required=False,
        initial=True,
        help_text="A process in each sandbox proves it was not suspended",
    )
    ranked = forms.BooleanField(
        label="Ranked",
        required=False,
        help_text="Stays on the leaderboard whatever becomes of it",
    )
    create_timeout_s = _number("Create timeout (s)", "", _default("create_timeout_s"))
    ready_timeout_s = _number("Readiness timeout (s)", "", _default("ready_timeout_s"))
    probe_timeout_s = _number("Probe timeout (s)", "", _default("probe_timeout_s"))
    probe_failures_max = _number("Failures until dead", "Consecutive probes", "3")
    final_spread_s = _number(
        "Final spread (s)",
        "Final probes are spread over it",
        _default("final_spread_s"),
    )
    heartbeat_interval_s = _number("Heartbeat interval (s)", "", _BEATS)
    flush_interval_s = _number(
        "Flush interval (s)", "The most a killed host loses", _FLUSHES
    )
    ready_command = forms.CharField(
        label="Readiness command",
        required=False,
        max_length=2_000,
        help_text="As a shell would split it; empty: the Provider's default",
    )
    ready_expect = forms.CharField(
        label="Readiness output",
        required=False,
        max_length=500,
        help_text="A regular expression that its output must match",
    )
    probe_command = forms.CharField(
        label="Probe command", required=False, max_length=2_000
    )
    spec_cpu = _number("CPU", "Cores a sandbox", "1")
    spec_memory_mb = _number("Memory (MB)", "A sandbox", "512")
    spec_image = forms.CharField(
        label="Image",
        required=False,
        max_length=300,
        help_text="Image, template or snapshot, in the vendor's own words",
    )
    spec_region = forms.CharField(label="Region", required=False, max_length=100)
    fleet_driver = forms.ChoiceField(
        label="Fleet",
        choices=_fleets,
        required=False,
        help_text="What carries the Shards; all but local are set up in FLEETS_FILE",
    )
    fleet_shards_per_host = _number(
        "Shards a host", "Empty: 1, but for at most 10 hosts of the local fleet"
    )
    fleet_over_provision_pct = _number(
        "Spare hosts (%)", "A spare takes over where one is lost before T0", "0"
    )
    fleet_spot = forms.BooleanField(
        label="Spot machines", required=False, help_text="EC2 only"
    )
    seed = _number("Seed", "For simulated worlds and probe phases", "random")
    max_duration_s = _number(
        "Give up after (s)", "The Run's budget of time", "no limit"
    )
    max_cost = _number("Budget ($)", "Aborts in good order above it", "no limit")
    quota_granted = _number(
        "Granted quota",
        "Sandboxes that the Provider grants this account",
        "none stated",
    )
    quota_granted_on = _number("Granted on", "The day, YYYY-MM-DD")
    world = forms.CharField(
        label="Simulated world",
        required=False,
        max_length=4_000,
        widget=forms.Textarea(
            attrs={"rows": 3, "placeholder": '{"deaths": 5, "never_ready": 2}'}
        ),
        help_text="Provider sim only: a JSON object; see the methodology page",
    )
    note = forms.CharField(label="Note", required=False, max_length=500)

    plan: Plan | None = None
    account: Credential | None = None

    def __init__(self, *args: Any, user: User | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user
        mine = Credential.objects.filter(owner=user) if user else []
        select = self.fields["credential"].widget
        assert isinstance(select, forms.Select)
        select.choices = [("", "–"), *((str(one.pk), str(one)) for one in mine)]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        try:
            self.plan = checked_plan(self.asked(cleaned))
            wanted = cleaned["credential"]
            self.account = credentials.choose(self._user, self.plan, wanted)
        except PlanError as error:
            for path, message in error.messages.items():
                name = _FIELD_OF.get(path, path.split(".")[0])
                said = message[:1].upper() + message[1:]
                self.add_error(name if name in self.fields else None, said)
        return cleaned

    def asked(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        """The Plan as the API would be sent it: empty fields left out."""
        asked: dict[str, Any] = {
            "provider": cleaned["provider"] or None,
            "witness": cleaned["witness"],
            "ranked": cleaned["ranked"],
        }
        for name in NUMBERS:
            if cleaned[name]:
                asked[name] = cleaned[name]
        for name, (outer, inner) in NESTED.items():
            if cleaned[name]:
                asked.setdefault(outer, {})[inner] = cleaned[name]
        asked |= self._texts(cleaned)
        if cleaned["stagger_ms"]:
            asked.setdefault("load", {})["stagger_us"] = _to_us(cleaned["stagger_ms"])
        return asked

    def _texts(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        texts: dict[str, Any] = {}
        for name in ("ready_command", "probe_command"):
            if cleaned[name]:
                try:
                    texts[name] = shlex.split(cleaned[name])
                except ValueError as error:
                    raise PlanError({name: f"cannot be split: {error}"}) from None
        for name in ("ready_expect", "note", "endpoint"):
            if cleaned[name]:
                texts[name] = cleaned[name]
        if cleaned["world"]:
            try:
                texts["world"] = json.loads(cleaned["world"])
            except ValueError as error:
                raise PlanError({"world": f"is not JSON: {error}"}) from None
        return texts

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The fields in the order in which one thinks of them; the rest is folded."""
        return [
            {
                "name": name,
                "fields": [self[field] for field in fields],
                "open": opened,
                "wrong": any(field in self.errors for field in fields),
            }
            for name, opened, fields in _GROUPS
        ]


# name, open from the start, fields
_GROUPS: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
    (
        "Where",
        True,
        ("provider", "credential", "endpoint", "spec_region", "spec_image"),
    ),
    ("How many", True, ("sandbox_count", "target", "sandboxes_per_shard")),
    (
        "Load shape",
        True,
        ("load_shape", "stagger_ms", "load_steps", "load_step_s"),
    ),
    ("Hold", True, ("hold_s", "probe_interval_s", "witness", "ranked")),
    ("Sandbox", True, ("spec_cpu", "spec_memory_mb")),
    (
        "Budget",
        True,
        ("max_duration_s", "max_cost", "quota_granted", "quota_granted_on"),
    ),
    ("Commands", False, ("ready_command", "ready_expect", "probe_command")),
    (
        "Timeouts",
        False,
        (
            "create_timeout_s",
            "ready_timeout_s",
            "probe_timeout_s",
            "probe_failures_max",
            "final_spread_s",
        ),
    ),
    (
        "Fleet and seed",
        False,
        (
            "fleet_driver",
            "fleet_shards_per_host",
            "fleet_over_provision_pct",
            "fleet_spot",
            "heartbeat_interval_s",
            "flush_interval_s",
            "seed",
            "world",
        ),
    ),
    ("Note", True, ("note",)),
)


def _to_us(milliseconds: str) -> object:
    try:
        return round(float(milliseconds) * 1_000)
    except (ValueError, OverflowError):
        return milliseconds  # plan.py says what is wrong with it


def addable() -> list[tuple[str, str]]:
    """(slug, title) of the Providers that need an account."""
    found = []
    for slug in providers.known():
        with contextlib.suppress(ConfigError):
            about = providers.about(slug)
            if about.entries:
                found.append((slug, about.title))
    return found


class CredentialForm(forms.Form):
    """The entries of one Provider's account; secrets are never filled in again."""

    label = forms.CharField(
        max_length=100, help_text="How you tell it from others of yours"
    )

    def __init__(self, data: Any, *, provider: str) -> None:
        super().__init__(data)
        about = providers.about(provider)
        self._entries = about.entries
        for entry in about.entries:
            kind = forms.PasswordInput if entry.secret else forms.TextInput
            widget = kind(attrs={"autocomplete": "new-password"})
            self.fields[entry.name] = forms.CharField(
                label=entry.label,
                required=entry.required,
                max_length=credentials.VALUE_LENGTH_MAX,
                widget=widget,
            )
        self.fields["endpoint"] = forms.URLField(
            required=not about.endpoint,
            max_length=300,
            assume_scheme="https",
            help_text=f"Empty: {about.endpoint}" if about.endpoint else "Where it is",
        )

    @property
    def values(self) -> dict[str, str]:
        return {e.name: self.cleaned_data.get(e.name, "") for e in self._entries}
