"""The documentation builds as a site, without a broken link, and describes all that is public."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from _reference import FIRST, ROOMS, command_line, documented  # noqa: E402

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def built(docs: Path, into: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going",
         docs, into, "-d", into / "doctrees"],
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_site_builds_without_a_warning_and_has_every_public_name(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    ended = built(ROOT / "docs", tmp_path)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "reference" / "generated" / "python.html").read_text()
    for module in FIRST:
        for name in documented(module):
            assert f'id="{module}.{name}"' in page, f"{module}.{name}"
    assert 'href="reference/generated/cli.html"' in (tmp_path / "index.html").read_text()
    # Sphinx has pages of its own, such as search.html, that would take the place of one of ours.
    for source in (ROOT / "docs").glob("*.md"):
        title = source.read_text().partition("\n")[0].removeprefix("# ")
        page = (tmp_path / source.with_suffix(".html").name).read_text()
        assert f"<h1>{html.escape(title, quote=False)}" in page, source.name


def test_a_broken_link_or_heading_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text('extensions = ["myst_parser"]\nmyst_heading_anchors = 4\n')
    (docs / "index.md").write_text("# A\n\n## There\n\n[a](#there)\n")
    assert built(docs, tmp_path / "right").returncode == 0
    (docs / "index.md").write_text("# A\n\n## There\n\n[a](#not-there)\n\n[b](nowhere.md)\n")
    ended = built(docs, tmp_path / "wrong")
    assert ended.returncode == 1
    assert "not-there" in ended.stderr and "nowhere.md" in ended.stderr


@pytest.mark.parametrize("module", [*FIRST, *ROOMS])
def test_every_public_function_and_class_has_a_docstring(module: str) -> None:
    found = import_module(module)
    bare = [name for name in documented(module) if not (getattr(found, name).__doc__ or "").strip()]
    assert not bare


def test_the_reference_has_every_command() -> None:
    from distreal_dse.cli._app import app

    text = command_line()
    names = [one.name for one in app.registered_commands]
    groups = [(one.name, one.typer_instance) for one in app.registered_groups]
    assert {"optimize", "lookup", "report"} <= set(names) and len(groups) == 2
    for name in names:
        assert f"`distreal-dse {name}`" in text
    for group, typer in groups:
        for one in typer.registered_commands if typer else ():
            own = one.name or one.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
            assert f"`distreal-dse {group} {own}`" in text
    assert "--trials" in text and "--budget" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_of_the_root_links_to_what_is_there(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        path, _, heading = target.partition("#")
        if "://" in path:
            continue
        found = page.parent / path if path else page
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in titles]
            assert heading in slugs, target
