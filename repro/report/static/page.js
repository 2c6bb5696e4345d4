// The page is whole without this: it filters the front page, and moves between cells by arrow keys.
"use strict";

const filter = document.getElementById("filter");
if (filter) {
  filter.closest("[hidden]").hidden = false;
  const papers = [...document.querySelectorAll("details.paper")];
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let found = 0;
    for (const paper of papers) {
      const title = paper.querySelector("summary").textContent.toLowerCase().includes(wanted);
      let shown = 0;
      for (const row of paper.querySelectorAll("tbody tr")) {
        row.hidden = !(title || row.textContent.toLowerCase().includes(wanted));
        shown += !row.hidden;
      }
      paper.hidden = !shown;
      paper.open = Boolean(wanted && shown);
      found += shown;
    }
    document.getElementById("found").textContent = wanted ? `${found} tables` : "";
  });
}

const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
document.addEventListener("keydown", (event) => {
  const step = steps[event.key];
  const cell = event.target.matches("table.paper button[title]") && event.target.closest("td");
  if (!step || !cell) return;
  const rows = [...cell.closest("tbody").rows];
  let y = rows.indexOf(cell.parentElement) + step[0];
  let x = cell.cellIndex + step[1];
  for (; rows[y]?.cells[x]; y += step[0], x += step[1]) {
    const next = rows[y].cells[x].querySelector("button");
    if (next) {
      event.preventDefault();
      next.focus();
      return;
    }
  }
});

// A link to a paper opens it.
const unfold = () => {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
};
addEventListener("hashchange", unfold);
unfold();
