"""What a record says of the code and the machine that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from repro import provenance


def test_the_revision_is_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package installed below a repository of the user's does not take that repository's revision for its own."""
    given = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], [*given, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    (tmp_path / "lib" / "repro").mkdir(parents=True)
    monkeypatch.setattr(provenance, "_HERE", tmp_path / "lib" / "repro")
    assert provenance.revision.__wrapped__() == ""
    monkeypatch.setattr(provenance, "_HERE", tmp_path / "lib")
    assert len(provenance.revision.__wrapped__()) >= 12


def test_a_comment_is_not_part_of_a_nets_source_and_its_imports_are(tmp_path: Path) -> None:
    """Comments and docstrings leave the digest alone; code does not, nor does code of a module beside it."""

    def digest(net: str, base: str = "SIZE = 1\n") -> str:
        (tmp_path / "net.py").write_text(net)
        (tmp_path / "base.py").write_text(base)
        return provenance.source_digest.__wrapped__(tmp_path / "net.py")

    first = digest('"""A net."""\nfrom .base import SIZE\n')
    assert digest("# said otherwise\nfrom .base import SIZE\n") == first
    assert digest("from .base import SIZE\n", "SIZE = 2\n") != first
    assert digest("from .base import SIZE as S\n") != first
