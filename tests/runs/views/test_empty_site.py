"""A site on which nothing has happened yet: every page says so, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

STRANGER = (
    ("/", "Nothing has been published here yet", "/sign-in"),
    ("/runs", "Nothing has been published here yet", "/sign-in"),
    ("/compare", "No Run is sealed here yet", ""),
    ("/leaderboard", "No ranked Run in the last 30 days", ""),
)
OPERATOR = (
    ("/", "No Run yet", "/runs/new"),
    ("/runs", "No Run yet", "/runs/new"),
    ("/compare", "No Run is sealed here yet", "/runs/new"),
    ("/leaderboard", "No ranked Run in the last 30 days", ""),
    ("/credentials/", "None yet", ""),
    ("/account", "None yet", ""),
    ("/calibration", "was not calibrated yet", ""),
)


def check(client: Client, path: str, says: str, leads_to: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    main = answer.content.decode().partition("<main")[2].partition("</main>")[0]
    assert says in main
    assert not leads_to or f'href="{leads_to}"' in main


@pytest.mark.parametrize(("path", "says", "leads_to"), STRANGER)
def test_a_stranger_reads_that_nothing_is_here(
    client: Client, db: None, path: str, says: str, leads_to: str
) -> None:
    check(client, path, says, leads_to)


@pytest.mark.parametrize(("path", "says", "leads_to"), OPERATOR)
def test_an_operator_reads_what_to_do(
    operator: Client, settings: Any, tmp_path: Any, path: str, says: str, leads_to: str
) -> None:
    settings.DATA = tmp_path
    check(operator, path, says, leads_to)
