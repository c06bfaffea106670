"""The control plane: Runs, who drives them, and what is known of their record.

Nothing of result size lives here; Sandboxes, events and log lines are ClickHouse's.
Instants are µs on the Run's clock.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from runs.plan import is_simulated, read_plan


class State(models.TextChoices):
    DRAFT = "draft"
    QUEUED = "queued"
    PROVISIONING = "provisioning"
    ARMING = "arming"
    BURSTING = "bursting"
    HOLDING = "holding"
    TEARING_DOWN = "tearing_down"
    COLLECTING = "collecting"
    SEALED = "sealed"


LIVE_STATES = (
    State.PROVISIONING,
    State.ARMING,
    State.BURSTING,
    State.HOLDING,
    State.TEARING_DOWN,
    State.COLLECTING,
)


class EndReason(models.TextChoices):
    COMPLETED = "completed"
    ABORTED = "aborted"
    FAILED = "failed"


class Run(models.Model):
    code = models.CharField(max_length=40, unique=True)
    provider = models.CharField(max_length=40)
    state = models.CharField(max_length=20, choices=State, default=State.DRAFT)
    plan = models.JSONField()
    # The operator's account at the Provider; sent to its agents and used by the reaper.
    credential = models.ForeignKey(
        "Credential", null=True, blank=True, on_delete=models.SET_NULL
    )
    # Runs that share a lane (an account, a stand-in) run one after another.
    lane = models.CharField(max_length=80, default="")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL
    )
    created_at = models.DateTimeField(default=timezone.now)
    launched_at = models.DateTimeField(null=True, blank=True)

    # The Run's clock (measurement.md §3): wall and monotonic base on one boot.
    clock_id = models.CharField(max_length=40, default="", blank=True)
    clock_base_wall_us = models.BigIntegerField(default=0)
    clock_base_mono_ns = models.BigIntegerField(default=0)
    clock_boot_id = models.CharField(max_length=64, default="", blank=True)

    state_at_us = models.BigIntegerField(default=0)
    listening_since_us = models.BigIntegerField(default=0)
    t0_us = models.BigIntegerField(null=True, blank=True)
    t_hold_us = models.BigIntegerField(null=True, blank=True)
    t_end_us = models.BigIntegerField(null=True, blank=True)
    t_destroy_us = models.BigIntegerField(null=True, blank=True)

    leave = models.CharField(max_length=300, default="", blank=True)
    end_reason = models.CharField(
        max_length=20, choices=EndReason, default="", blank=True
    )
    end_detail = models.CharField(max_length=500, default="", blank=True)
    world = models.JSONField(default=dict, blank=True)  # address, pid … of a sim world
    # The Run's clock until when a worker has the Run to itself, for each kind of work.
    tick_until_us = models.BigIntegerField(default=0)
    ingest_until_us = models.BigIntegerField(default=0)
    seal_until_us = models.BigIntegerField(default=0)
    reap_until_us = models.BigIntegerField(default=0)
    provision_until_us = models.BigIntegerField(default=0)

    fleet = models.JSONField(default=dict, blank=True)  # provision.Provisioned, so far
    ranked = models.BooleanField(default=False)
    reaped = models.JSONField(null=True, blank=True)  # reaper.Reaped, once it was
    summary = models.JSONField(null=True, blank=True)
    # ClickHouse has lost what it knew of the Run (a new schema); summary still stands.
    stale = models.BooleanField(default=False)
    live = models.JSONField(null=True, blank=True)  # summary so far, while unsealed
    sealed_at_us = models.BigIntegerField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    published_by = models.CharField(max_length=150, default="", blank=True)
    # Hosts, egress addresses, logs and raw segments are published, too.
    logs_published = models.BooleanField(default=False)

    class Meta:
        ordering = ("-id",)
        indexes = (models.Index(fields=("state",)),)

    def __str__(self) -> str:
        return self.code

    @property
    def simulated(self) -> bool:
        """Not the vendor itself; said wherever the Run is shown."""
        return is_simulated(read_plan(self.plan, self.code))

    @property
    def doubt(self) -> str:
        """SUSPECT or INVALID, the word that goes wherever its number does; else ""."""
        level = ((self.summary or {}).get("verdict") or {}).get("level", "VALID")
        return "" if self.state != State.SEALED or level == "VALID" else str(level)


class Credential(models.Model):
    """An operator's account at a Provider; only credentials.py opens `sealed`."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    provider = models.CharField(max_length=40)
    label = models.CharField(max_length=100)
    endpoint = models.CharField(max_length=300, default="", blank=True)
    sealed = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("provider", "label", "id")

    def __str__(self) -> str:
        return f"{self.provider}: {self.label}"


class PreflightTurn(models.Model):
    """Whose preflight is under way, and until when it may be: one an operator."""

    operator = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.operator_id}"


class Host(models.Model):
    """One machine (or process) of a Run's Fleet; carries one or more Attempts."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="hosts")
    index = models.PositiveIntegerField()
    reference = models.JSONField(default=dict)  # the driver's: pid, instance id …
    launched_at_us = models.BigIntegerField(null=True)
    registered_at_us = models.BigIntegerField(null=True)
    ended_at_us = models.BigIntegerField(null=True)
    # The machine that claimed it, by the driver's name of it; empty: it is free.
    machine = models.CharField(max_length=100, default="", blank=True)
    claimed_at_us = models.BigIntegerField(null=True)
    facts = models.JSONField(default=dict)  # hostname, pid, version, cpu_count, egress

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("run", "index"), name="host_once"),
        )

    def __str__(self) -> str:
        return f"{self.run_id}/{self.index}"


class Attempt(models.Model):
    """One life of a Shard's agent, as its last heartbeat told it."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="attempts")
    shard = models.PositiveIntegerField()
    number = models.PositiveIntegerField(default=0)
    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="attempts")
    phase = models.CharField(max_length=20, default="")
    heard_at_us = models.BigIntegerField(null=True)
    connections = models.PositiveIntegerField(default=0)
    clock_samples = models.PositiveIntegerField(default=0)
    heard_t0 = models.BooleanField(default=False)
    heard_t_end = models.BooleanField(default=False)
    sent = models.PositiveIntegerField(default=0)
    created = models.PositiveIntegerField(default=0)
    ready = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    dead = models.PositiveIntegerField(default=0)
    alive = models.PositiveIntegerField(default=0)
    destroyed = models.PositiveIntegerField(default=0)
    orphaned = models.PositiveIntegerField(default=0)
    final_ok = models.PositiveIntegerField(default=0)
    causes = models.TextField(default="", blank=True)  # JSON, wire.CauseCount
    in_flight = models.PositiveIntegerField(default=0)
    queued_events = models.PositiveIntegerField(default=0)
    loop_lag_us = models.PositiveBigIntegerField(default=0)  # of its process, lately
    cpu_pct = models.FloatField(default=0)  # of its process's loop, lately
    events_dropped = models.PositiveIntegerField(default=0)
    finished = models.CharField(max_length=20, default="", blank=True)
    fenced_at_us = models.BigIntegerField(null=True)
    lost_at_us = models.BigIntegerField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("run", "shard", "number"), name="attempt_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.run_id}/{self.shard}/{self.number}"


class Segment(models.Model):
    """The ledger: one stored object of a Run, and whether it is in ClickHouse."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="segments")
    shard = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    kind = models.CharField(max_length=10)
    seq = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    bytes = models.PositiveIntegerField()
    events = models.PositiveIntegerField()
    reported_at_us = models.BigIntegerField()
    ingested = models.BooleanField(default=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("run", "shard", "attempt", "kind", "seq"), name="segment_once"
            ),
        )
        indexes = (models.Index(fields=("run", "ingested")),)

    def __str__(self) -> str:
        return f"{self.run_id}/{self.shard}/{self.attempt}/{self.kind}/{self.seq}"


class JournalEntry(models.Model):
    """The site's own facts, on their way to immutable journal segments."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="journal")
    seq = models.PositiveIntegerField()
    body = models.TextField()
    stored = models.BooleanField(default=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("run", "seq"), name="journal_once"),
        )

    def __str__(self) -> str:
        return f"{self.run_id}/{self.seq}"


class Transition(models.Model):
    """One change of a Run's state; append-only."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="transitions")
    from_state = models.CharField(max_length=20)
    to_state = models.CharField(max_length=20)
    why = models.CharField(max_length=500)
    at_us = models.BigIntegerField()

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.run_id}: {self.from_state} → {self.to_state}"


class ApiToken(models.Model):
    """An operator's API token; only its SHA-256 is kept."""

    name = models.CharField(max_length=100)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class Preset(models.Model):
    """An operator's form of a Run, as it stood; nothing secret is in it."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    name = models.CharField(max_length=60)
    fields = models.JSONField()
    saved_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("owner", "name"), name="preset_once"),
        )

    def __str__(self) -> str:
        return self.name
