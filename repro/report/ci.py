"""What a gate found in the formats of CI: JUnit XML, annotations of GitHub, a summary in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from ..gate import Baseline, Change
from ..schema import VERDICTS

SHOWN = 10  # annotations of one kind that GitHub shows of a step
LIMIT = 1 << 20  # bytes of a step's summary that GitHub takes
_TEXT = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_NAMES = {**_TEXT, **str.maketrans({":": "%3A", ",": "%2C"})}
_CELLS = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;", "`": "\\`"})


def junit(measured: Sequence[Baseline], changes: Sequence[Change]) -> str:
    """A suite for each table, a case for each claim that is or was measured; what moved is a failure."""
    found, root = {(c.table, c.name): c for c in changes}, xml.Element("testsuites")
    for table, cells in ((m["table"], m["cells"]) for m in measured):
        names = dict.fromkeys([*cells, *(name for of, name in found if of == table)])
        failures = str(sum((table, name) in found for name in names))
        suite = xml.SubElement(root, "testsuite", name=table, tests=str(len(names)), failures=failures)
        for name in names:
            case = xml.SubElement(suite, "testcase", classname=table, name=name)
            if change := found.get((table, name)):
                failure = xml.SubElement(case, "failure", message=change.text)
                failure.text = f"{change.file}:{change.line}: {change.why}"
    return xml.tostring(root, encoding="unicode", xml_declaration=True)


def github(changes: Sequence[Change]) -> list[str]:
    """Commands that mark the lines of the tables, ten at most, and one that counts the rest."""
    lines = []
    for c in changes[:SHOWN]:
        at = {"file": c.file, "line": str(c.line), "title": f"{c.table} | {c.name}"}
        where = ",".join(f"{k}={v.translate(_NAMES)}" for k, v in at.items())
        lines.append(f"::error {where}::{f'{c.text}; {c.why}'.translate(_TEXT)}")
    more = f"::notice title=repro check::and {len(changes) - SHOWN} more, all in the log and the summary"
    return [*lines, more] if len(changes) > SHOWN else lines


def markdown(measured: Sequence[Baseline], changes: Sequence[Change], heading: str) -> str:
    """A job summary: what moved on top, then the verdicts of every table; cut at GitHub's limit."""
    rows: list[Sequence[str]] = [("claim", "change", "why"), ("---",) * 3]
    rows += [(f"{c.table} | {c.name}", c.text, c.why) for c in changes]
    rows += [[], ("table", *VERDICTS), ("---",) * (len(VERDICTS) + 1)]
    for m in measured:
        counts = Counter(entry["verdict"] for entry in m["cells"].values())
        rows.append((m["table"], *(str(counts[v] or "") for v in VERDICTS)))
    lines = [f"| {' | '.join(cell.translate(_CELLS) for cell in row)} |" if row else "" for row in rows]
    text = "\n".join([f"## {heading}", "", *lines, ""]).encode()
    more = "\n\nThe rest is cut at GitHub's limit of 1 MiB."
    return text.decode() if len(text) < LIMIT else text[: LIMIT - 100].decode(errors="ignore") + more
