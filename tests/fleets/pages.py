"""A site's pages as a signed-in operator sees them, as text on one line."""

from __future__ import annotations

from collections.abc import Callable
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

from tests.embedded import Site


def pages(site: Site) -> Callable[[str], str]:
    opener = build_opener(HTTPCookieProcessor(CookieJar()))
    link = site.manage("sign_in_link", "anna").stdout.strip()
    form = opener.open(link, timeout=30).read().decode()
    token = form.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
    opener.open(link, urlencode({"csrfmiddlewaretoken": token}).encode(), timeout=30)

    def fetch(path: str) -> str:
        with opener.open(f"{site.url}{path}", timeout=60) as answer:
            return " ".join(answer.read().decode().split())

    return fetch
