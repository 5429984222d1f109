"use strict";
// Tables: sort by a column's heading; show the methods and cases that the filters ask for.

function sortKey(cell) {
  if (!cell) return "";
  if (cell.dataset.order !== undefined) return Number(cell.dataset.order);
  const text = cell.textContent.trim();
  return text === "–" ? "" : text;
}

// Cells with a number come first, then texts, then empty ones, in either direction.
function compare(first, second, descending) {
  const kind = key => (typeof key === "number" ? 0 : key === "" ? 2 : 1);
  if (kind(first) !== kind(second)) return kind(first) - kind(second);
  const order = typeof first === "number" ? first - second : first.localeCompare(second, undefined, { numeric: true });
  return descending ? -order : order;
}

function sortBy(head) {
  const body = head.closest("table").tBodies[0], at = head.cellIndex;
  const keys = new Map([...body.rows].map(row => [row, sortKey(row.cells[at])]));
  const numbers = [...keys.values()].some(key => typeof key === "number");
  const before = head.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : numbers;
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...[...body.rows].sort((a, b) => compare(keys.get(a), keys.get(b), descending)));
}

for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  button.addEventListener("click", () => sortBy(head));
  head.replaceChildren(button);
}

const filters = document.getElementById("filters");
const boxes = [...filters.querySelectorAll("input[name=method]")];

// A variant's name goes on from another's with - or +, as in the README's table.
function isVariant(name) {
  return boxes.some(box => name.startsWith(box.value + "-") || name.startsWith(box.value + "+"));
}

function isWanted(element) {
  for (const select of filters.querySelectorAll("select")) {
    if (select.value && element.getAttribute("data-" + select.name) !== select.value) return false;
  }
  return !filters.elements.failed.checked || Boolean(element.dataset.failed);
}

function filter() {
  const wanted = new Set(boxes.filter(box => box.checked).map(box => box.value));
  const known = new Set(boxes.map(box => box.value));
  for (const element of document.querySelectorAll("main [data-method]")) {
    if (element.closest(".strip")) continue;
    element.hidden = known.has(element.dataset.method) && !wanted.has(element.dataset.method);
  }
  const rows = [...document.querySelectorAll("tr[data-case]")];
  for (const element of [...rows, ...document.querySelectorAll(".case")]) element.hidden = !isWanted(element);
  const cases = `${rows.filter(row => !row.hidden).length} of ${rows.length} cases`;
  document.getElementById("shown").textContent = `${cases}, ${wanted.size} of ${boxes.length} methods and bounds`;
}

filters.hidden = false;
filters.addEventListener("change", filter);
filters.addEventListener("submit", event => event.preventDefault());
for (const button of filters.querySelectorAll("[data-choose]")) {
  button.addEventListener("click", () => {
    const choice = button.dataset.choose;
    for (const box of boxes) box.checked = choice === "all" || (choice === "whole" && !isVariant(box.value));
    filter();
  });
}
filter();

// Folded tables and texts are printed; the gallery's other cases are too many.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("main details:not(.case):not(#filters details)")) details.open = true;
});
