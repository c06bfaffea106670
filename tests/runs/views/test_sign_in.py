from __future__ import annotations

import pytest
from django.test import Client

from runs.operators import operator, sign_in_path

pytestmark = pytest.mark.django_db


def test_a_link_signs_in_once_and_leads_where_it_says(client: Client) -> None:
    path = f"{sign_in_path(operator('alpha'))}?next=/account"
    assert client.post(path)["Location"] == "/account"
    assert client.get("/account").status_code == 200
    assert Client().post(path).status_code == 410


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "x:y"]
)
def test_a_link_leads_nowhere_else(client: Client, elsewhere: str) -> None:
    path = f"{sign_in_path(operator('alpha'))}?next={elsewhere}"
    assert client.post(path)["Location"] == "/runs"


def test_opening_the_link_does_not_use_it_up(client: Client) -> None:
    path = sign_in_path(operator("alpha"))
    assert client.get(path).status_code == 200
    assert client.post(path)["Location"] == "/runs"
