"""The site of plain HTML: what a browser would read of it, and what a browser with axe says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import TINY

SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(2)> & $x_1$"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def axe() -> Path | None:
    """Where axe-core lies: REPRO_AXE, or the package axe-core-python."""
    spec = importlib.util.find_spec("axe_core_python")
    places = [os.environ.get("REPRO_AXE"), spec and spec.origin and Path(spec.origin).with_name("axe.min.js")]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


class Page(HTMLParser):
    """A page as a browser takes it in: elements with their attributes, and the text that stands in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, data_root, repro) -> tuple[Path, Path]:
    """A table with HTML in all its words, and a store in which it was run."""
    root = tmp_path_factory.mktemp("report")
    folder = root / "evil"
    shutil.copytree(TINY, folder)
    paper, table = folder / "paper.yaml", folder / "table1.yaml"
    paper.write_text(re.sub(r"title: .*", f"title: '{SCRIPT} of a paper'", paper.read_text()))
    text = table.read_text().replace(
        "title: Two small nets", f"title: '{SCRIPT} of a table'\nnote: '{SCRIPT} of a note'"
    )
    text = text.replace("top-1: top1_error", f"top-1: {{quantity: top1_error, label: '{IMAGE} of a column'}}")
    text = text.replace("  B:", f"  '{IMAGE} of a row':").replace("less: [B,", f"less: ['{IMAGE} of a row',")
    text = text.replace("nobody can measure this", f"'{SCRIPT} of a reason'")
    text = text.replace("text: B beats A", f"text: '{SCRIPT} of a relation'")
    table.write_text(text)
    (root / "store" / "data").mkdir(parents=True)
    os.symlink(data_root / "digits", root / "store" / "data" / "digits")
    repro("run", table, "--store", root / "store", "--no-mlflow")
    for record in root.glob("store/records/*/*/*.json"):
        known = json.loads(record.read_text())
        known["environment"]["processor"] = f"{SCRIPT} of a record"
        record.write_text(json.dumps(known))
    return table, root / "store"


@pytest.fixture(scope="module")
def site(ran, repro, tmp_path_factory) -> Path:
    """The site of all tables, that one among them."""
    out = tmp_path_factory.mktemp("site") / "out"
    done = repro(
        "report",
        ran[0],
        *(p.name for p in sorted((TINY.parents[2] / "tables").glob("*/"))),
        "--store",
        ran[1],
        "-o",
        out,
    )
    assert done.stdout == f"{out / 'index.html'}\n"
    return out


def test_every_table_has_a_page_and_all_are_small(site):
    """202 tables and ours, their claims counted on the front page; under 10 MB together."""
    pages = list(site.glob("*/*.html"))
    claims = json.loads((TINY.parents[1] / "claims_per_table.json").read_text())
    claims = claims.values() if isinstance(claims, dict) else claims

    assert len(pages) == len(claims) + 1
    total = sum(claims) + 8
    assert f"{total:,} printed numbers in {len(pages)} tables" in Page(site / "index.html").words
    assert sum(path.stat().st_size for path in site.rglob("*")) < 10e6


def test_the_pages_ask_nothing_of_the_network(site):
    """Every link leads to a file that is there; nothing is fetched from elsewhere, by page or style; no script."""
    for path in site.rglob("*.html"):
        page = Page(path)
        for tag, attributes in page.elements:
            for name in {"src", "href", "xlink:href", "action", "srcset", "poster", "data"} & set(attributes):
                address = attributes[name].partition("#")[0]
                if not (tag == "img" and address.startswith("data:image/")) and address:
                    assert (path.parent / unquote(address)).is_file(), f"{path}: {tag} {name}={address}"
        assert not [u for u in re.findall(r"url\((.*?)\)", page.text) if not u.startswith("#")]
        assert "default-src 'none'" in next(m["content"] for m in page.all("meta") if "http-equiv" in m)
        assert not page.all("script")
    assert not re.search(r"https?:|//\w+\.|@import|url\(", (site / "page.css").read_text())


def test_html_in_tables_and_records_is_text(site):
    """Titles, labels, notes, reasons, relations and records with tags in them: no element, the words as they are."""
    for path in (site / "evil" / "table1.html", site / "index.html"):
        page = Page(path)
        assert not page.all("script")
        assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
        assert all(i["src"].startswith("data:image/") for i in page.all("img"))
        wanted = ["table", "reason", "record", "paper"] + ["note", "relation"] * (path.name != "index.html")
        assert [w for w in wanted if f"{SCRIPT} of a {w}" not in page.words] == []
    page = Page(site / "evil" / "table1.html")
    figures = re.findall(r"<svg.*?</svg>", page.text, flags=re.S)
    assert f"{IMAGE} of a column" in page.words
    assert any("&lt;img src=x onerror=alert(2)&gt; &amp; $x_1$ of a row" in figure for figure in figures)


def test_pages_can_be_read_by_all(site):
    """A language, one h1, unique ids, references that lead somewhere, alt texts, scopes, labels."""
    for path in site.rglob("*.html"):
        page = Page(path)
        ids = [a["id"] for _, a in page.elements if "id" in a]
        assert len(ids) == len(set(ids)), path
        for name in ("aria-labelledby", "popovertarget"):
            assert {a[name] for _, a in page.elements if name in a} <= set(ids), path
        assert set(re.findall(r"url\(#(.*?)\)", page.text)) <= set(ids)
        assert page.all("html") == [{"lang": "en"}]
        assert len(page.all("h1")) == len(page.all("main")) == 1
        assert all(th.get("scope") in ("row", "col") for th in page.all("th"))
        assert all(img.get("alt") for img in page.all("img"))
        assert all(svg.get("role") == "img" and svg.get("aria-labelledby") for svg in page.all("svg"))
        assert all(r.get("tabindex") == "0" for _, r in page.elements if r.get("class") == "scroll")


def test_a_cell_says_how_it_was_measured(ran, site):
    """Command, code, data and weights of a trained row stand in the page, as the records have them."""
    page = Page(site / "evil" / "table1.html")
    scores = [json.loads(path.read_text()) for path in ran[1].glob("records/scores/*/*.json")]
    trained = [json.loads(path.read_text()) for path in ran[1].glob("records/train/*/*.json")]

    assert scores
    assert trained
    for record in scores:
        assert record["numbers"]["weights_sha256"] in page.words
        assert f"digits-test {record['spec']['fingerprint']}" in page.words
        assert f"{record['numbers']['top1_error']:.2f}" in page.words
    for record in trained:
        assert record["spec"]["source"] in page.words
        assert f"digits-train {record['spec']['data']['digits-train']}" in page.words
    assert f"repro run {ran[0]} --row 'A two scales'" in page.words
    assert "Table 1 (" in page.words
    assert "bilinear antialias, mean of logits over cells" in page.words


def test_plots_are_drawn_of_what_was_measured(site):
    """One picture of each kind on the page that has the data, with its numbers; none on a page without."""
    page = (site / "evil" / "table1.html").read_text()
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", page)

    assert titles == [
        "Claimed against measured", "Relations", "Error against multiply-adds", "Training curves",
        "Agreement of protocols", "Differences by class",
    ]  # fmt: skip
    curve = re.search(r'Training curves.*?<tr><th scope="row">vgg:A base S=40</th>(.*?)</tr>', page, flags=re.S)
    assert re.findall(r"<td[^>]*>(.*?)</td>", curve[1])[:2] == ["0", "2"]
    assert "data:image/webp;base64," in page
    assert "<svg" not in (site / "vgg" / "table3.html").read_text()
    assert "not run yet" in (site / "vgg" / "table3.html").read_text()


def test_without_records_there_is_nothing_to_report(repro, tmp_path):
    """No store: exit 5, and no folder is made."""
    done = repro("report", "table1", "--store", tmp_path / "none", "-o", tmp_path / "out", code=5)

    assert "begin with `repro run`" in done.stderr
    assert not (tmp_path / "out").exists()


PROBE = """<script src="axe.min.js"></script><script>
addEventListener("load", async () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  document.querySelector("[popover]")?.showPopover();
  const found = await axe.run({preload: false});
  parent.postMessage({width: innerWidth, scroll: document.documentElement.scrollWidth, passes: found.passes.length,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    violations: found.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 200)).join(" | "))}, "*");
});
</script>"""
FRAME = """<meta name="color-scheme" content="light dark"><body>{frames}<script>
addEventListener("message", m => document.body.append("AXE" + encodeURIComponent(JSON.stringify(m.data)) + "AXE"));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(axe() is None, reason="axe-core is not here: pip install axe-core-python, or REPRO_AXE=axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site, tmp_path, scheme):
    """In headless Chromium, all details and a cell's popover open, in light and dark, 1400 and 390 pixels wide."""
    names, frames = ("index.html", "evil/table1.html"), ""
    for name in names:
        page = re.sub(r"<meta http-equiv[^>]*>", lambda _: PROBE, (site / name).read_text(), count=1)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(page)
        shutil.copy(axe(), (tmp_path / name).with_name("axe.min.js"))
        frames += "".join(
            f'<iframe src="{name}" width="{w}" height="900" style="border: 0"></iframe>' for w in (1400, 390)
        )
    shutil.copy(site / "page.css", tmp_path)
    (tmp_path / "frame.html").write_text(FRAME.replace("{frames}", frames))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,900", "--dump-dom",
        "--virtual-time-budget=60000", f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
        f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    told = [json.loads(unquote(found)) for found in re.findall(r"AXE(%7B.*?)AXE", done.stdout)]

    assert sorted(t["width"] for t in told) == [390, 390, 1400, 1400], done.stderr
    for t in told:
        assert t["violations"] == []
        assert t["passes"] > 10
        assert t["dark"] == (scheme == "dark")
        assert t["scroll"] <= t["width"]
