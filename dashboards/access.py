"""Who may ask the dashboard for what: checks in front of optuna-dashboard, which has none."""

from __future__ import annotations

import hmac
import html
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from distreal_dse.errors import InputError

READING = ("GET", "HEAD", "OPTIONS")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Access:
    """What is asked of a request before optuna-dashboard sees it.

    A web page elsewhere can make its visitor's browser send requests to this machine. It can't
    choose ``Origin``, and it can choose ``Host`` only by names of its own (DNS rebinding).

    Parameters
    ----------
    names
        Host names, in lower case, that the dashboard answers to beside those of this machine alone.
    any_address
        Whether it answers to any address in digits, too: rebinding needs a name.
    token
        What a request has to know; None asks for nothing.
    cookie
        Name of the cookie that holds the token; the cookies of a host are shared by all its ports.
    read_only
        Whether requests that change something are refused.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = None
    cookie: str = "distreal_dse_token"
    read_only: bool = False

    def refusal(self, request: WSGIEnvironment) -> tuple[str, str] | None:
        """Return status and reason where a request is refused."""
        host = request.get("HTTP_HOST", "")
        name = _host_and_port(f"//{host}")[0]
        if not self._is_ours(name):
            return (
                "403 Forbidden",
                f"host {host!r}: expected a name of this dashboard, found another; "
                "start it with --allow-host NAME if it is one",
            )
        if self.token is not None and not self._knows_token(request):
            return (
                "401 Unauthorized",
                "expected the token of this dashboard, found none or another; open the link that "
                "it printed when it started, or send it as 'Authorization: Bearer TOKEN'",
            )
        if request["REQUEST_METHOD"] in READING:
            return None
        if self.read_only:
            return (
                "403 Forbidden",
                "this dashboard was started with --read-only: it changes nothing",
            )
        if not _from_our_pages(request, host):
            return (
                "403 Forbidden",
                "expected a change from a page of this dashboard, found one from another site; if "
                "a proxy is in between, let it pass the browser's Host on",
            )
        return None

    def brings_token(self, request: WSGIEnvironment) -> bool:
        """Whether a request is for the link with the token."""
        return request["REQUEST_METHOD"] == "GET" and any(
            name == "token" and self._is_token(value) for name, value in _query(request)
        )

    def _is_ours(self, name: str) -> bool:
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self.any_address

    def _knows_token(self, request: WSGIEnvironment) -> bool:
        scheme, _, given = request.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        cookies = (part.partition("=") for part in request.get("HTTP_COOKIE", "").split(";"))
        if any(name.strip() == self.cookie and self._is_token(own) for name, _, own in cookies):
            return True
        return self.brings_token(request)

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(
            given.strip().encode(), self.token.encode()
        )


def guarded(application: WSGIApplication, access: Access) -> WSGIApplication:
    """Put the checks in front of an application."""

    def answer(request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if (refusal := access.refusal(request)) is not None:
            status, reason = refusal
            start(status, [("Content-Type", "text/plain; charset=utf-8"), *_SAFE])
            return [f"{reason}\n".encode()]
        if access.brings_token(request):
            # A page that goes on by itself, rather than a redirect: that would count as coming from
            # wherever the link was clicked, and take no SameSite=Strict cookie along.
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Strict; Path=/"
            kind = ("Content-Type", "text/html; charset=utf-8")
            start("200 OK", [kind, ("Set-Cookie", cookie), ("Cache-Control", "no-store"), *_SAFE])
            target = html.escape(_without_token(request))
            return [f'<meta http-equiv="refresh" content="0; url={target}">\n'.encode()]

        def start_framed(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start(status, [*headers, *_SAFE], *more)

        return application(request, start_framed)

    return answer


# No page elsewhere shows ours in a frame, under something else to click on.
_SAFE = (
    ("X-Frame-Options", "SAMEORIGIN"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
)


def host_name(text: str) -> str:
    """Read the value of ``--allow-host``.

    Raises
    ------
    InputError
        If it is no plain host name or address.
    """
    name = text.strip().lower()
    found = _host_and_port(f"//[{name}]" if name.count(":") > 1 else f"//{name}")
    if not name or found != (name, None):
        raise InputError(
            f"--allow-host '{text}': expected the name of a host as in dash.example.org, without "
            "scheme, port and path"
        )
    return name


def _host_and_port(url: str, scheme: str = "") -> tuple[str, int | None]:
    """Host, in lower case, and port of a URL; empty where it can't be read.

    Without a port, that of its own scheme, else of ``scheme``.
    """
    try:
        parts = urlsplit(url, scheme)
        return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", None


def _from_our_pages(request: WSGIEnvironment, host: str) -> bool:
    """Whether no browser says that a page of another site sends this.

    Browsers send ``Origin`` with every change; programs send none of these headers.
    """
    if request.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return False
    source = request.get("HTTP_ORIGIN") or request.get("HTTP_REFERER")
    if source is None:
        return True
    # A proxy may speak https with the browser and http with us: the scheme is the browser's.
    return _host_and_port(source) == _host_and_port(f"//{host}", source.partition(":")[0])


def _query(request: WSGIEnvironment) -> list[tuple[str, str]]:
    return parse_qsl(request.get("QUERY_STRING", ""), keep_blank_values=True)


def _without_token(request: WSGIEnvironment) -> str:
    """Path and query of a request, on this server whatever it is."""
    path = request.get("PATH_INFO", "").encode("latin-1")
    query = urlencode([(name, value) for name, value in _query(request) if name != "token"])
    return "/" + quote(path).lstrip("/") + (f"?{query}" if query else "")
