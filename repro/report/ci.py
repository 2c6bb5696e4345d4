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


def junit(measured: Sequence[Baseline], changes: Sequence[Change]) -> str:
    """A suite for each table, a case for each claim; what the gate found is a failure."""
    found, root = {(c.table, c.name): c for c in changes}, xml.Element("testsuites")
    for table in (m["table"] for m in measured):
        cells = next(m["cells"] for m in measured if m["table"] == table)
        suite = xml.SubElement(root, "testsuite", name=table)
        for name in dict.fromkeys([*cells, *(name for of, name in found if of == table)]):
            case = xml.SubElement(suite, "testcase", classname=table, name=name)
            if change := found.get((table, name)):
                failure = xml.SubElement(case, "failure", message=change.text)
                failure.text = "; ".join((f"{change.file}:{change.line}", *change.causes))
            elif cells[name]["verdict"] == "missing":
                xml.SubElement(case, "skipped", message="missing, as blessed")
        for key, path in (("tests", "testcase"), ("failures", ".//failure"), ("skipped", ".//skipped")):
            suite.set(key, str(len(suite.findall(path))))
    return xml.tostring(root, encoding="unicode", xml_declaration=True)


def github(changes: Sequence[Change]) -> list[str]:
    """Commands that mark the lines of the tables, the worst first and ten at most, and one that counts the rest."""

    lines = []
    for c in changes[:SHOWN]:
        at = {"file": c.file, "line": str(c.line), "title": f"{c.table} | {c.name}"}
        where = ",".join(f"{k}={v.translate(_NAMES)}" for k, v in at.items())
        lines.append(f"::error {where}::{'; '.join((c.text, *c.causes)).translate(_TEXT)}")
    more = f"::notice title=repro check::and {len(changes) - SHOWN} more, all in the log and the summary"
    return [*lines, more] if len(changes) > SHOWN else lines


def markdown(measured: Sequence[Baseline], changes: Sequence[Change], heading: str) -> str:
    """A job summary: what moved on top, then the verdicts of every table; cut below GitHub's limit."""
    codes = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;", "`": "\\`"})
    rows: list[tuple[str, ...]] = [("claim", "change", "why", "since"), ("---",) * 4] if changes else []
    rows += [(f"{c.table} | {c.name}", c.text, "; ".join(c.causes), c.since) for c in changes]
    rows += [("",), ("table", *VERDICTS), ("---",) * (len(VERDICTS) + 1)]
    for m in measured:
        counts = Counter(entry["verdict"] for entry in m["cells"].values())
        rows.append((m["table"], *(str(counts[v] or "") for v in VERDICTS)))
    text, size = f"## {heading}\n\n", 0
    for i, row in enumerate(rows):
        line = f"| {' | '.join(cell.translate(codes) for cell in row)} |\n" if len(row) > 1 else "\n"
        size += len(line.encode())
        if size > LIMIT - 2000:
            return text + f"\nand {len(rows) - i} lines more, cut at GitHub's limit of 1 MiB\n"
        text += line
    return text
