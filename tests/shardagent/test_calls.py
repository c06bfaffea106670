"""Nonces and challenges."""

from __future__ import annotations

from shardagent.calls import SECRET_BYTES, SECRETS_AT_ONCE, fresh_secret


def test_secrets_are_whole_and_never_the_same_beyond_one_draw_of_them() -> None:
    made = [fresh_secret() for _ in range(2 * SECRETS_AT_ONCE + 1)]
    assert len(set(made)) == len(made)
    assert {len(bytes.fromhex(one)) for one in made} == {SECRET_BYTES}
