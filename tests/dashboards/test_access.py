"""Who gets what from the dashboard: real requests to the real server."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pytest

from benchmarks.made_up import write_search
from browser import needs_chromium, render
from dashboards.access import host_name
from dashboards.publishing import open_storage
from distreal_dse.errors import InputError

TRIALS = 12
HOST = "dash.example.org"
STUDY = "/api/studies/1"


@pytest.fixture
def searched(url: str) -> str:
    write_search(url, trials=TRIALS)
    return url


def kept(url: str) -> int:
    """Trials in the database."""
    storage = open_storage(url)
    return sum(one.n_trials for one in optuna.get_all_study_summaries(storage))


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: Message


def ask(address: str, method: str = "GET", path: str = STUDY, **headers: str) -> Answer:
    """Send a request with just these headers; by default to the host that the server is at."""
    port = urlsplit(address).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    connection.request(method, path, headers={"Host": f"127.0.0.1:{port}", **named})
    got = connection.getresponse()
    answer = Answer(got.status, got.read().decode(), got.headers)
    connection.close()
    return answer


def refused(answer: Answer, status: int, reason: str) -> None:
    assert (answer.status, answer.text.count("\n")) == (status, 1), answer
    assert reason in answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_another_site_can_not_delete_a_study(searched: str, serve: Callable[..., str]) -> None:
    address = serve(searched)
    port = urlsplit(address).port
    for headers in (
        {"Host": "evil.example.com", "Origin": "http://evil.example.com"},
        {"Host": f"evil.example.com:{port}"},
        {"Host": ""},
        {"Host": f"127.0.0.1:{port}@evil.example.com"},
    ):
        refused(ask(address, "DELETE", **headers), 403, "expected a name of this dashboard")
    for headers in (
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port}.evil.example.com"},
        {"Origin": "http://[evil"},
        {"Origin": f"http://localhost:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Referer": f"http://evil.example.com/http://127.0.0.1:{port}/"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": f"http://127.0.0.1:{port}"},
    ):
        refused(ask(address, "DELETE", **headers), 403, "found one from another site")
    assert kept(searched) == TRIALS


def test_another_site_can_not_read_by_binding_its_name_to_this_machine(
    searched: str, serve: Callable[..., str]
) -> None:
    address = serve(searched)
    for path in (STUDY, "/dashboard", "/static/bundle.js", "/csv/1"):
        answer = ask(address, path=path, Host="evil.example.com")
        refused(answer, 403, "host 'evil.example.com'")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("LOCALHOST:9000", "http://localhost:9000"),  # a tunnel to this machine
        ("[::1]:{port}", "http://[::1]:{port}"),
        ("localhost", "https://localhost"),  # a proxy
        ("127.0.0.1:{port}", None),  # a program
    ],
)
def test_our_own_pages_and_programs_here_may_change_studies(
    searched: str, serve: Callable[..., str], host: str, origin: str | None
) -> None:
    address = serve(searched)
    port = urlsplit(address).port
    headers = {"Host": host.format(port=port)}
    if origin is not None:
        headers |= {"Origin": origin.format(port=port), "Sec_Fetch_Site": "same-origin"}
    assert ask(address, **headers).status == 200
    assert ask(address, "DELETE", **headers).status == 204
    assert kept(searched) == 0


def test_no_page_elsewhere_shows_ours_in_a_frame(searched: str, serve: Callable[..., str]) -> None:
    answer = ask(serve(searched), path="/dashboard")
    assert answer.status == 200 and answer.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_a_dashboard_to_read_changes_nothing(searched: str, serve: Callable[..., str]) -> None:
    address = serve(searched, read_only=True)
    for method, path in (
        ("DELETE", STUDY), ("POST", "/api/studies"), ("PUT", f"{STUDY}/note"),
        ("POST", f"{STUDY}/rename"), ("POST", "/api/trials/1/tell"), ("PATCH", STUDY),
    ):  # fmt: skip
        refused(ask(address, method, path), 403, "--read-only")
    assert ask(address).status == 200 and kept(searched) == TRIALS


def test_beyond_this_machine_a_token_is_needed(searched: str, serve: Callable[..., str]) -> None:
    link = serve(searched, allow_hosts=(HOST,))
    token = re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard\?token=([\w-]{32})", link)[1]  # type: ignore[index]
    needs = "expected the token of this dashboard"
    for method, path, headers in (
        ("GET", STUDY, {}),
        ("GET", "/static/bundle.js", {"Host": HOST}),
        ("DELETE", STUDY, {"Authorization": f"Bearer {token[:-1]}"}),
        ("DELETE", STUDY, {"Authorization": f"Basic {token}"}),
        ("GET", f"{STUDY}?token=", {}),
        ("GET", f"{STUDY}?token=%C3%A4", {}),
        ("DELETE", STUDY, {"Cookie": "distreal_dse_token_1=" + token}),
    ):
        refused(ask(link, method, path, **headers), 401, needs)  # type: ignore[arg-type]
    refused(ask(link, Host="evil.example.com", Authorization=f"Bearer {token}"), 403, "host")
    assert kept(searched) == TRIALS

    opened = ask(link, path=f"/dashboard/studies/1?x=1&token={token}", Host=HOST)
    cookie = opened.headers["Set-Cookie"]
    assert opened.status == 200 and {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert 'url=/dashboard/studies/1?x=1"' in opened.text and token not in opened.text
    known = {"Cookie": f"other={{; {cookie.partition(';')[0]}", "Host": HOST}
    assert ask(link, **known).status == 200
    evil = {"Origin": "http://evil.example.com"}
    refused(ask(link, "DELETE", **known, **evil), 403, "another site")
    own = {"Authorization": f"Bearer {token}", "Origin": f"https://{HOST}"}
    refused(ask(link, "DELETE", **own), 403, "let it pass the browser's Host on")  # as nginx's own
    assert ask(link, Authorization=f"Bearer {token}").status == 200
    assert ask(link, "DELETE", **known, Origin=f"https://{HOST}").status == 204


def test_a_link_with_the_token_leads_to_no_other_server(
    searched: str, serve: Callable[..., str]
) -> None:
    link = serve(searched, allow_hosts=(HOST,))
    query = urlsplit(link).query
    for path in ("//evil.example.com/x", "/\\evil.example.com/x", '/"><script>'):
        answer = ask(link, path=f"{path}?{query}")
        assert re.search(r'url=/(evil|%5Cevil|%22%3E%3Cscript%3E)[^"<>]*">\n$', answer.text), answer


def test_whoever_listens_on_all_addresses_has_a_token_and_no_foreign_names(
    searched: str, serve: Callable[..., str]
) -> None:
    link = serve(searched, host="0.0.0.0")
    assert link.startswith(f"http://{socket.gethostname()}:")
    bearer = {"Authorization": "Bearer " + urlsplit(link).query.removeprefix("token=")}
    assert ask(link).status == 401
    for host in ("127.0.0.1", "192.0.2.7:8080", socket.gethostname()):
        assert ask(link, Host=host, **bearer).status == 200
    assert ask(link, Host="evil.example.com", **bearer).status == 403


def test_tokens_differ_from_start_to_start(searched: str, serve: Callable[..., str]) -> None:
    first, second = (urlsplit(serve(searched, allow_hosts=(HOST,))).query for _ in range(2))
    assert first != second


@pytest.mark.parametrize("text", ["", "http://dash", "dash:80", "dash/x", "a@b", "[::1"])
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--allow-host '.*': expected the name of a host"):
        host_name(text)
    assert host_name("Dash.Example.ORG") == HOST and host_name("2001:db8::1") == "2001:db8::1"


@needs_chromium
def test_a_browser_shows_the_page_behind_the_link(
    searched: str, tmp_path: Path, serve: Callable[..., str]
) -> None:
    link = serve(searched, allow_hosts=(HOST,), read_only=True)
    page, complaints = render(link, tmp_path / "profile")
    assert not complaints and "1. made" in page.texts
