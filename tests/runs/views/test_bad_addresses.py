from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from runs.models import Run

MakeRun = Callable[..., Run]

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("sandboxes?outcome=glorious", "outcome is one of"),
        ("shards/0?level=loud", "Level is one of"),
        ("shards/0?page=first", "Page is a whole number"),
        ("log?q=x&level=loud", "Level is one of"),
    ],
)
def test_a_page_says_what_cannot_be_and_where_to_go_on(
    operator: Client, make_run: MakeRun, address: str, why: str
) -> None:
    make_run()
    answer = operator.get(f"/runs/alpha-1/{address}")
    said = answer.content.decode()
    assert answer.status_code == 400
    assert "This address asks for something that cannot be" in said
    assert why.lower() in said.lower()
    assert f'href="/runs/alpha-1/{address.partition("?")[0]}"' in said
