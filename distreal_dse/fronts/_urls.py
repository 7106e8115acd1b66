"""URLs of databases as people may see them: without what only the database should know."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

from sqlalchemy import URL

HIDDEN = "***"

# Of parameters in the query, in lower case: libpq has password, sslpassword and, for OAuth, a
# client secret; drivers have more. A path such as sslkey's or passfile's is none.
_SECRET = re.compile(r"password|passwd|passphrase|pwd|secret|token|credential|api_?key")
_SCHEME = re.compile(r"[A-Za-z][\w+]*(?=[:/])")
_FILE = re.compile(r"[\w./~-]+\.(db|sqlite3?)")


def shown_url(url: URL) -> str:
    """The URL with asterisks in place of its secrets."""
    query = {key: HIDDEN if _is_secret(key) else value for key, value in url.query.items()}
    text = url.set(query=query).render_as_string(hide_password=True)
    return text.replace(quote_plus(HIDDEN), HIDDEN)


def secrets_of(url: URL) -> list[str]:
    """The secrets in the URL: the password, and such parameters of the query."""
    found = [] if url.password is None else [str(url.password)]
    for key, value in url.query.items():
        if _is_secret(key):
            found += [value] if isinstance(value, str) else value
    return [secret for secret in found if secret]


def without_secrets(text: str, url: URL) -> str:
    """The text, such as a driver's error, with asterisks where it says a secret of the URL."""
    for secret in secrets_of(url):
        for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
            # As a word of its own: a password may be a part of any other.
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
    return text


def described_text(text: str) -> str:
    """What a text that is no URL of ours begins with; all else in it may be a password."""
    if _FILE.fullmatch(text):
        return repr(text)
    scheme = _SCHEME.match(text)
    return repr(f"{scheme[0]}…") if scheme else "a text without a scheme"


def _is_secret(key: str) -> bool:
    return bool(_SECRET.search(key.lower()))
