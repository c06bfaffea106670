"""Every message between agent and site, the Plan, and the kinds of raw events.

One definition, used by both sides. Unknown fields are ignored, so that an agent and a
site one version apart understand each other. Times are integers in µs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shardagent.errors import MESSAGE_LENGTH_MAX

PROTOCOL = 1
BEATS_MAX = 2_000  # Shards that one heartbeat request may speak for
SHARDS_PER_HOST_MAX = 5_000  # that one process may carry
SEGMENTS_PER_BEAT_MAX = 64
CAUSES_MAX = 99  # kinds of an end × causes × origins; all there can be
CAUSE_MESSAGE_MAX = 120  # told of the example's message; the record has it whole
URLS_AHEAD = 32  # presigned URLs an attempt holds per kind of segment
URLS_PER_REQUEST_MAX = 2_000
Gauge = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# --- the Plan (raw-format.md, run.json) -------------------------------------------


class Shape(StrEnum):
    BURST = "burst"
    STAGGERED = "staggered"
    SEQUENTIAL = "sequential"
    STAIRCASE = "staircase"


class Load(Wire):
    """When each create is intended, counted from T0."""

    shape: Shape = Shape.BURST
    stagger_us: int = Field(0, ge=0, le=60_000_000)
    steps: int = Field(1, ge=1, le=100)
    step_s: float = Field(0, ge=0, le=3_600)


class Spec(Wire):
    """The sandbox that is asked for."""

    cpu: float = Field(1, gt=0, le=256)
    memory_mb: int = Field(512, ge=16, le=1_048_576)
    image: str | None = Field(None, max_length=300)
    region: str | None = Field(None, max_length=100)
    isolation: str | None = Field(None, max_length=300)


class FleetSpec(Wire):
    """Which machines carry the Shards. The account they are of is the site's own."""

    driver: str = Field("local", max_length=40)
    shards_per_host: int = Field(1, ge=1, le=SHARDS_PER_HOST_MAX)
    # More machines than hosts: a spare takes over where one is lost before RELEASE.
    over_provision_pct: float = Field(0, ge=0, le=100)
    provision_timeout_s: float = Field(300, gt=0, le=7_200)
    regions: list[str] = Field([], max_length=20)  # empty: all that are set up
    machine_types: list[str] = Field([], max_length=20)  # in order of preference
    spot: bool = False
    one_per_node: bool = True  # kubernetes: an egress address of its own


class Plan(Wire):
    """Every parameter of a Run, frozen at launch. Defaults are the product's."""

    format: int = 1
    code: str = Field("", max_length=40)
    provider: str = Field(max_length=40)
    created_at_us: int = 0
    sandbox_count: int = Field(ge=1, le=2_000_000)
    shard_count: int = Field(0, ge=0, le=20_000)
    sandboxes_per_shard: int = Field(100, ge=1, le=10_000)
    target: int = Field(0, ge=0, le=2_000_000)
    load: Load = Load()
    hold_s: float = Field(60, ge=0, le=86_400)
    probe_interval_s: float = Field(5, ge=0.2, le=600)
    create_timeout_s: float = Field(120, gt=0, le=3_600)
    ready_timeout_s: float = Field(90, gt=0, le=3_600)
    probe_timeout_s: float = Field(10, gt=0, le=600)
    destroy_timeout_s: float = Field(60, gt=0, le=3_600)
    probe_failures_max: int = Field(3, ge=1, le=100)
    ready_command: list[str] = Field(["node", "-v"], min_length=1, max_length=64)
    ready_expect: str = Field("^v", max_length=500)
    probe_command: list[str] = Field(["true"], min_length=1, max_length=64)
    witness: bool = False
    final_spread_s: float = Field(5, ge=0, le=600)
    ranked: bool = False
    heartbeat_interval_s: float = Field(2, ge=0.2, le=120)
    flush_interval_s: float = Field(2, ge=0.2, le=300)
    quorum: float = Field(0.98, gt=0, le=1)
    arm_timeout_s: float = Field(120, gt=0, le=7_200)
    late_join_s: float = Field(1, ge=0, le=60)
    spec: Spec = Spec()
    fleet: FleetSpec = FleetSpec()
    thresholds: dict[str, float] = {}
    seed: int = Field(0, ge=0, le=2**53)
    announced: bool = False
    rehearsal: bool = False  # all but the sandboxes: nothing is created
    image_state: Literal["default", "seen", "fresh"] = "default"
    fill_memory_pct: int = Field(0, ge=0, le=100)
    transport: Literal["thin", "sdk"] = "thin"
    # Where the Provider is, if not its own cloud: a URL, or "simcloud" (a stand-in).
    endpoint: str | None = Field(None, max_length=300)
    # What the Provider granted this account, and since when (YYYY-MM-DD).
    quota_granted: int | None = Field(None, ge=1)
    quota_granted_on: str | None = Field(None, pattern=r"^\d{4}-\d\d-\d\d$")
    # Creates a second that the Provider publishes as its limit per egress address.
    egress_limit_per_s: float | None = Field(None, gt=0)
    # The same of all calls: creates, commands, probes and destroys.
    egress_calls_per_s: float | None = Field(None, gt=0)
    max_duration_s: float | None = Field(None, gt=0, le=172_800)
    max_cost: float | None = Field(None, gt=0, le=1_000_000)
    note: str = Field("", max_length=500)
    world: dict[str, Any] = {}  # parameters of the simulated world; sim only
    software: dict[str, str | None] = {}

    def sandboxes_of(self, shard: int) -> range:
        """Global 0-based indices of the Sandboxes that Shard `shard` holds."""
        first = shard * self.sandboxes_per_shard
        return range(first, min(first + self.sandboxes_per_shard, self.sandbox_count))


# --- raw events (raw-format.md, Events) -------------------------------------------


class Kind(StrEnum):
    AGENT_STARTED = "agent_started"
    CLOCK = "clock"
    ARMED = "armed"
    RELEASED = "released"
    HEALTH = "health"
    SETTLED = "settled"
    HOLDING = "holding"
    TEARDOWN = "teardown"
    AGENT_FINISHED = "agent_finished"
    CREATE_SENT = "create_sent"
    CREATED = "created"
    CREATE_FAILED = "create_failed"
    READY_PROBE_FAILED = "ready_probe_failed"
    READY = "ready"
    WITNESS_STARTED = "witness_started"
    READINESS_FAILED = "readiness_failed"
    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"
    DEAD = "dead"
    DESTROY_SENT = "destroy_sent"
    DESTROYED = "destroyed"
    DESTROY_FAILED = "destroy_failed"
    ORPHANED = "orphaned"
    OBSERVED = "observed"  # beside the contract: what the sandbox says it is


class Finish(StrEnum):
    """Why an agent left (agent_finished.reason)."""

    DONE = "done"
    ABORTED = "aborted"
    FENCED = "fenced"
    ERROR = "error"


# --- /agent/v1 --------------------------------------------------------------------
# Authorization: Bearer <host token>. 401: token wrong; 409: this host is fenced or
# the Run takes no more (leave for good); 422: not of this protocol;
# 503: not now (register: another process speaks for this host), ask again;
# 425: no host is free (claim), ask again.


class ShardPhase(StrEnum):
    """How far a Shard says it is; the order is the order of its life."""

    STARTING = "starting"
    ARMED = "armed"
    BURSTING = "bursting"
    SETTLED = "settled"
    HOLDING = "holding"
    TEARING_DOWN = "tearing_down"
    FINISHED = "finished"


class Lease(Wire):
    shard: int = Field(ge=0)
    attempt: int = Field(ge=0)


class Machine(Wire):
    """What carries an agent, as it says itself; an empty string where unknown."""

    id: str = Field("", max_length=100)  # the fleet driver's name of it
    node: str = Field("", max_length=253)  # of the hardware, or what is next to it
    type: str = Field("", max_length=100)
    region: str = Field("", max_length=100)
    zone: str = Field("", max_length=100)
    egress: str = Field("", max_length=100)
    kernel: str = Field("", max_length=200)


class ClaimRequest(Wire):
    """POST /agent/v1/claim, with the Run's token: a machine asks for a host to carry.

    The same machine asking again is given the same host. 425: none is free now, ask
    again (a spare waits so); 409: none will be, leave.
    """

    protocol: int = PROTOCOL
    run: str
    machine: str = Field(min_length=1, max_length=100)
    index: int | None = Field(None, ge=0)  # the host it would rather have


class ClaimAnswer(Wire):
    host: int
    token: str  # this host's


class RegisterRequest(Wire):
    """POST /agent/v1/register, once per host process; again after a restart."""

    protocol: int = PROTOCOL
    run: str
    host: int = Field(ge=0)
    hostname: str = Field("", max_length=253)
    pid: int = 0
    process: str = Field("", max_length=64)  # one life of an agent process, random
    version: str = Field("", max_length=40)
    cpu_count: int = 0
    egress: str | None = Field(None, max_length=100)
    machine: Machine = Machine()


class RegisterAnswer(Wire):
    plan: Plan
    shards: list[Lease]
    clock_id: str
    heartbeat_interval_s: float
    # Address, key … of the Provider; never part of the record.
    provider_config: dict[str, str]
    seen_from: str = ""  # the address that the site was asked from


class Instants(Wire):
    """The instants the whole fleet shares, on the Run's clock; None until decided."""

    t0_us: int | None = None
    t_hold_us: int | None = None
    t_end_us: int | None = None
    t_destroy_us: int | None = None


class SegmentReport(Wire):
    """One stored object; repeated in each beat until an answer came."""

    kind: Literal["events", "log"]
    seq: Gauge
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=2**53)
    events: Gauge  # lines of a log segment


class Counts(Wire):
    """Sandboxes of one Shard by how far they came; gauges, not the record."""

    sent: Gauge = 0
    created: Gauge = 0
    ready: Gauge = 0
    failed: Gauge = 0  # create_failed and readiness_failed
    dead: Gauge = 0
    alive: Gauge = 0
    destroyed: Gauge = 0
    orphaned: Gauge = 0
    final_ok: Gauge | None = None  # proven alive at the teardown; None: as before

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in self)


class CauseCount(Wire):
    """Sandboxes of one Shard that ended alike, with one of them as the example."""

    kind: Literal["create_failed", "readiness_failed", "dead"]
    cause: str = Field(max_length=40)  # errors.Cause
    origin: str = Field(max_length=40)  # errors.Origin
    count: Gauge
    sandbox: Gauge
    message: str = Field("", max_length=MESSAGE_LENGTH_MAX)


class Beat(Wire):
    """What one Shard's attempt says in a heartbeat."""

    shard: Gauge
    attempt: Gauge
    phase: ShardPhase
    connections: Gauge = 0
    clock_samples: Gauge = 0
    counts: Counts = Counts()
    # None: as told before.
    causes: list[CauseCount] | None = Field(None, max_length=CAUSES_MAX)
    in_flight: Gauge = 0  # calls
    queued_events: Gauge = 0  # not stored yet
    heard: Instants = Instants()
    segments: list[SegmentReport] = Field([], max_length=SEGMENTS_PER_BEAT_MAX)
    events_dropped: Gauge = 0
    finished: Finish | None = None


class HeartbeatRequest(Wire):
    """POST /agent/v1/heartbeat; one request for many Shards of a process."""

    protocol: int = PROTOCOL
    run: str
    host: int = Field(ge=0)
    process: str = Field("", max_length=64)  # as registered; another one's is refused
    t1_us: int
    # Of the process and its loop's thread, the largest lately.
    loop_lag_us: int = Field(0, ge=0, le=2**53)
    cpu_pct: float = Field(0, ge=0, le=10_000, allow_inf_nan=False)
    beats: list[Beat] = Field(max_length=BEATS_MAX)


class HeartbeatAnswer(Wire):
    """All segments of the request are acknowledged by this answer.

    fenced lists the leases that must stop: create nothing, destroy what they hold,
    store what they have, leave. leave, when set, tells the whole Run to stop the same
    way, with the reason: before RELEASE at once (ABANDON or abort), after it the
    instants t_end and t_destroy are set as well and nothing more is created.
    """

    clock_id: str
    t2_us: int
    t3_us: int
    interval_s: float
    instants: Instants
    leave: str | None = None
    fenced: list[Lease] = []


class UrlWish(Wire):
    """`count` URLs for consecutive segments from `first_seq` on."""

    shard: int = Field(ge=0)
    attempt: int = Field(ge=0)
    kind: Literal["events", "log"]
    first_seq: int = Field(ge=0, le=999_999)
    count: int = Field(ge=1, le=URLS_AHEAD)


class UrlsRequest(Wire):
    """POST /agent/v1/urls."""

    protocol: int = PROTOCOL
    run: str
    host: int = Field(ge=0)
    process: str = Field("", max_length=64)
    wishes: list[UrlWish] = Field(max_length=URLS_PER_REQUEST_MAX)


class UploadUrl(Wire):
    shard: int
    attempt: int
    kind: Literal["events", "log"]
    seq: int
    url: str


class UrlsAnswer(Wire):
    """May hold fewer than wished (at most URLS_PER_REQUEST_MAX); ask again."""

    urls: list[UploadUrl]


def segment_key(run: str, shard: int, attempt: int, kind: str, seq: int) -> str:
    """The object key of a segment as agents write it (raw-format.md, Keys)."""
    suffix = "events-{:06d}.ndjson.zst" if kind == "events" else "log-{:06d}.txt.zst"
    return f"runs/{run}/shards/{shard:05d}/{attempt:02d}/{suffix.format(seq)}"
