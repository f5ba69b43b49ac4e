// Switches, sorts, filters and copies what is in the page. It computes no number.
"use strict";

function switchTo(section, choice) {
  for (const one of section.querySelectorAll("[data-against]")) {
    one.hidden = one.dataset.against !== choice;
  }
}

// What a cell is sorted by: its number, or that of the part which is shown; its text where there is none.
function valueOf(row, column) {
  const cell = row.cells[column];
  const shown = cell.querySelector("[data-against]:not([hidden])") || cell;
  if ("value" in shown.dataset) return Number(shown.dataset.value);
  return column === 0 ? cell.textContent : NaN;
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
  return a - b;
}

// Each body on its own; a line that names a group stays first, and rows without a value come last.
function sort(table, column, descending) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const known = rows.filter((row) => !Number.isNaN(valueOf(row, column)));
    const unknown = rows.filter((row) => Number.isNaN(valueOf(row, column)));
    known.sort((a, b) => (descending ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column)));
    body.append(...known, ...unknown);
  }
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent || "row";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      // Highest first, then lowest; names from A.
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : column > 0;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, column, descending);
    });
  });
}

function filter(table, words) {
  const wanted = words.toLowerCase().split(/\s+/);
  for (const row of table.querySelectorAll("tbody tr:not(.group)")) {
    const name = row.cells[0].textContent.toLowerCase();
    row.hidden = !wanted.every((word) => name.includes(word));
  }
}

// The file that a link before the button holds, or the command before it.
function textFor(button) {
  const what = button.previousElementSibling;
  return what.matches("a") ? decodeURIComponent(what.href.slice(what.href.indexOf(",") + 1)) : what.textContent;
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(textFor(button));
    button.textContent = "copied";
  } catch {
    button.textContent = "not allowed";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

for (const section of document.querySelectorAll("section")) {
  const table = section.querySelector("table.scores");
  if (table) makeSortable(table);
  for (const tools of section.querySelectorAll(".tools")) tools.hidden = false;
  for (const choice of section.querySelectorAll("[data-switch]")) {
    choice.addEventListener("change", () => switchTo(section, choice.value));
  }
  for (const input of section.querySelectorAll("[data-filter]")) {
    input.addEventListener("input", () => filter(table, input.value.trim()));
  }
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
