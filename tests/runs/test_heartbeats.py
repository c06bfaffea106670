from __future__ import annotations

import pytest
from pydantic import ValidationError

from runs import hosts, lifecycle, told
from runs.errors import StateError
from runs.heartbeats import _Waiting, record
from runs.models import Attempt, Host, Run
from shardagent.wire import (
    Beat,
    CauseCount,
    Counts,
    Finish,
    HeartbeatRequest,
    Lease,
    ShardPhase,
)
from tests.runs.factories import (
    make_arming_run,
    make_beat,
    make_report,
    make_request,
)

pytestmark = pytest.mark.django_db


def hear(run: Run, host: int, *beats: Beat, at_us: int = 5) -> object:
    clock = lifecycle.clock_of(run)
    at_ns = clock.base_mono_ns + (at_us - clock.base_wall_us) * 1_000
    (heard,) = record([_Waiting(at_ns, make_request(run, host, *beats))])
    return heard


def test_who_may_not_speak_is_told_and_the_others_of_the_batch_are_heard() -> None:
    run = make_arming_run()
    Host.objects.filter(run=run, index=1).update(facts={"process": "first"})
    stranger = make_request(run, 1, make_beat(1)).model_copy(update={"process": "two"})
    absent = make_request(run, 99, make_beat(0))
    own = make_request(run, 0, make_beat(0))
    answers = record([_Waiting(0, one) for one in (stranger, absent, own)])
    assert [isinstance(one, StateError) for one in answers] == [True, True, False]
    assert Attempt.objects.get(run=run, shard=1).heard_at_us is None
    assert Attempt.objects.get(run=run, shard=0).heard_at_us is not None


@pytest.mark.parametrize("process", ["1234567890123456", "12e4567890123456", "true"])
def test_a_process_whose_name_reads_as_a_number_is_heard(process: str) -> None:
    run = make_arming_run()
    Host.objects.filter(run=run, index=1).update(facts={"process": process})
    asked = make_request(run, 1, make_beat(1)).model_copy(update={"process": process})
    (answer,) = record([_Waiting(0, asked)])
    assert not isinstance(answer, StateError)
    other = asked.model_copy(update={"process": "another"})
    (answer,) = record([_Waiting(0, other)])
    assert isinstance(answer, StateError)


def test_a_beat_is_kept_and_answered_with_the_instants() -> None:
    run = make_arming_run()
    lifecycle.release(run, 77, "all are armed")
    beat = make_beat(1, counts=Counts(sent=10, ready=9), connections=4)
    heard = hear(run, 1, beat)
    assert heard.instants.t0_us == 77  # type: ignore[attr-defined]
    attempt = Attempt.objects.get(run=run, shard=1)
    assert (attempt.heard_at_us, attempt.ready, attempt.connections) == (5, 9, 4)
    assert attempt.phase == ShardPhase.ARMED


def test_causes_stay_until_they_are_told_anew() -> None:
    run = make_arming_run()
    refused = CauseCount(
        kind="create_failed", cause="quota", origin="provider", count=2, sandbox=3
    )
    hear(run, 0, make_beat(0, causes=[refused], in_flight=7))
    hear(run, 0, make_beat(0, counts=Counts(final_ok=1)))
    hear(run, 0, make_beat(0))  # of a process that began anew and does not know
    (told_of,) = told.causes(run)
    assert told_of == {
        "outcome": "failed",
        "cause": "quota",
        "origin": "provider",
        "count": 2,
        "sandbox": 3,
        "shard": 0,
        "message": "",
    }
    attempt = Attempt.objects.get(run=run, shard=0)
    assert (attempt.final_ok, attempt.in_flight) == (1, 0)
    hear(run, 0, make_beat(0, causes=[refused.model_copy(update={"count": 5})]))
    assert told.causes(run)[0]["count"] == 5


def test_no_cpu_share_that_is_no_number() -> None:
    body = b'{"run": "a", "host": 0, "t1_us": 1, "beats": [], "cpu_pct": NaN}'
    with pytest.raises(ValidationError):
        HeartbeatRequest.model_validate_json(body)


@pytest.mark.parametrize("name", ["sent", "final_ok"])
@pytest.mark.parametrize("value", [-1, 2**31, 1.5])
def test_a_gauge_that_no_database_holds_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Counts.model_validate({name: value})


def test_one_request_speaks_for_many_shards() -> None:
    run = make_arming_run(fleet={"driver": "local", "shards_per_host": 3})
    hear(run, 0, *(make_beat(shard, finished=Finish.DONE) for shard in range(3)))
    assert run.attempts.filter(finished="done").count() == 3


def test_a_host_cannot_speak_for_the_shard_of_another() -> None:
    run = make_arming_run()
    hear(run, 0, make_beat(2, segments=[make_report()]))
    assert Attempt.objects.get(run=run, shard=2).heard_at_us is None
    assert run.segments.count() == 0


def test_segments_are_reported_once_however_often_they_are_told() -> None:
    run = make_arming_run()
    for _ in range(3):
        hear(run, 0, make_beat(0, segments=[make_report(0), make_report(1)]))
    assert list(run.segments.values_list("seq", flat=True)) == [0, 1]


def test_a_fenced_attempt_is_told_and_its_segments_are_still_facts() -> None:
    run = make_arming_run()
    lost = Attempt.objects.get(run=run, shard=0)
    hosts.replace(run, [lost])
    heard = hear(run, 0, make_beat(0, segments=[make_report()]))
    assert heard.fenced == [Lease(shard=0, attempt=0)]  # type: ignore[attr-defined]
    lost.refresh_from_db()
    assert lost.heard_at_us is None
    assert run.segments.count() == 1
    fresh = Attempt.objects.get(run=run, shard=0, number=1)
    assert fresh.host.index == 3


def test_replacing_twice_makes_one_new_attempt() -> None:
    run = make_arming_run()
    lost = list(Attempt.objects.filter(run=run, shard=0))
    hosts.replace(run, lost)
    hosts.replace(run, lost)
    assert list(
        run.attempts.filter(shard=0).order_by("number").values_list("number", flat=True)
    ) == [0, 1]
