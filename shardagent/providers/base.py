"""What every provider adapter does: four verbs, a listing, and facts about itself.

An adapter makes exactly one attempt per call (no retries: a failure is a fact),
raises only ProviderError (and lets asyncio.CancelledError pass), and calls `sent`
at the instant the request's first byte is handed to the socket. Time-outs are the
caller's: the agent wraps each call in its own deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from shardagent.errors import ProviderError

Sent = Callable[[], None]
ENDPOINT = "endpoint"  # in a configuration: where the Provider is, if not its own


@dataclass(frozen=True, slots=True)
class Entry:
    """One value that an account at the Provider is made of (its API key, a project).

    `name` is its key in the adapter's configuration.
    """

    name: str
    label: str
    secret: bool = True
    required: bool = True


@dataclass(frozen=True, slots=True)
class About:
    """What the site says of a Provider, asks for, and checks a Plan against.

    endpoint: the vendor's own base URL. plan: the Plan's defaults for it. maps: the
    fields of a Plan's spec that a create passes on (the others belong to the image).
    waits_for: what the vendor's create call has waited for when it answers. sdk:
    "module:Class" of the same adapter on the vendor's SDK. thin: there is one that does
    without. stand_in: simcloud speaks its wire format.
    """

    title: str
    endpoint: str = ""
    entries: tuple[Entry, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    maps: frozenset[str] = frozenset()
    waits_for: str = ""
    ttl_s_max: int | None = None
    sdk: str = ""
    thin: bool = True
    stand_in: bool = False

    @property
    def transports(self) -> tuple[str, ...]:
        """The thin adapter's and the SDK's, of those that there are."""
        return ("thin",) * self.thin + ("sdk",) * bool(self.sdk)

    def secrets(self, config: Mapping[str, str]) -> list[str]:
        """The values of a configuration that no log, event or page may show."""
        public = {entry.name for entry in self.entries if not entry.secret}
        public |= {ENDPOINT, "address"}
        return [value for name, value in config.items() if name not in public]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One sandbox to create.

    labels are opaque (`run`, `shard`, `attempt`, `sandbox`), put on the sandbox so
    that a reaper finds it; ttl_s is its time to live at the Provider.
    """

    sandbox: int
    labels: Mapping[str, str]
    ttl_s: int
    spec: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Created:
    """The Provider's answer to a create; connection times in µs, None where unknown."""

    provider_id: str
    reused: bool | None = None
    dns_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None


@dataclass(slots=True)  # not frozen: made for every call, and that costs
class Answer:
    """What a command run in a sandbox gave back; output is at most 64 KiB."""

    exit_code: int
    output: str
    ticks: int | None = None  # of the witness, since its start
    digest: str | None = None  # hex sha256(nonce + challenge), from the witness


@dataclass(frozen=True, slots=True)
class Listed:
    """One sandbox that exists at the Provider, found by label."""

    provider_id: str
    labels: Mapping[str, str]


class Ticking(Protocol):
    """The agent's clock."""

    def now_us(self) -> int:
        """Agent time."""


class Waiting(Protocol):
    """What a quick call is told: when its request left, and how it ended (once).

    `at` is of its own clock, which many share: what one write or one read of a socket
    carried left or came at one instant.
    """

    clock: Ticking

    def sent(self, at: int) -> None:
        """The first byte is handed to the socket."""

    def ended(
        self, value: Created | Answer | None, error: ProviderError | None, at: int
    ) -> None:
        """What the call of the same name answers, or why there is no answer."""


Forget = Callable[[], object]


class QuickProvider(Protocol):
    """Of an adapter whose connection carries many calls: calls without a task.

    A task costs more than such a call itself. Each begins its call and returns what
    forgets it; None where it has to go the usual way.
    """

    def create_quickly(self, wanted: Wanted, waiting: Waiting) -> Forget | None:
        """As `create`."""

    def execute_quickly(
        self,
        provider_id: str,
        command: Sequence[str],
        timeout_s: float,
        waiting: Waiting,
    ) -> Forget | None:
        """As `execute`."""

    def start_witness_quickly(
        self, provider_id: str, nonce: str, waiting: Waiting
    ) -> Forget | None:
        """As `start_witness`."""

    def probe_quickly(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        waiting: Waiting,
    ) -> Forget | None:
        """As `probe`."""

    def destroy_quickly(self, provider_id: str, waiting: Waiting) -> Forget | None:
        """As `destroy`."""


class Provider(Protocol):
    """One vendor's adapter; one instance per Shard."""

    slug: ClassVar[str]
    about: ClassVar[About]
    supports_witness: bool
    connect_us: int | None
    """Of the last warm-up: the median time to open a connection; None: unknown."""

    async def warm(self, connections: int) -> int:
        """Resolve and connect; returns the number of warm connections held."""

    async def create(self, wanted: Wanted, sent: Sent) -> Created:
        """Ask for one sandbox and wait until the Provider says it is there."""

    async def execute(
        self, provider_id: str, command: Sequence[str], sent: Sent, timeout_s: float
    ) -> Answer:
        """Run a command in the sandbox; a non-zero exit is an Answer, not an error."""

    async def start_witness(self, provider_id: str, nonce: str, sent: Sent) -> None:
        """Start the witness (measurement.md §4) with its secret nonce in memory."""

    async def probe(
        self,
        provider_id: str,
        command: Sequence[str],
        challenge: str | None,
        sent: Sent,
        timeout_s: float,
    ) -> Answer:
        """Run the probe command and, given a challenge, ask the witness: one call."""

    async def destroy(self, provider_id: str, sent: Sent) -> None:
        """Destroy and wait for the confirmation; an absent sandbox is destroyed."""

    async def list(self, labels: Mapping[str, str]) -> list[Listed]:
        """Sandboxes alive at the Provider that carry all these labels."""

    async def close(self) -> None:
        """Let go of connections; idempotent."""
