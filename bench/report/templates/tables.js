"use strict";
// Tables: sort by a click on a heading; search; show the first rows only.

function cellValue(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function compareValues(x, y) {
  // A cell without a value comes last in ascending order, not between numbers.
  if (x === "" || y === "") return (x === "") - (y === "");
  const [p, q] = [Number(x), Number(y)];
  return Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q;
}

function sortRows(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => compareValues(cellValue(a, column), cellValue(b, column)));
  if (!ascending) rows.reverse();
  body.append(...rows);
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Numbers start with the largest, names with the first.
      const first = head.classList.contains("text") ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortRows(table, column, order === "ascending");
      table.dispatchEvent(new Event("sorted"));
    });
  });
}

function makeSearchable(controls) {
  const table = document.getElementById(controls.dataset.for);
  const [search, all, status] = ["input", "button", "[role=status]"].map(s => controls.querySelector(s));
  const first = Number(table.dataset.first);
  const total = table.tBodies[0].rows.length;
  const update = () => {
    const word = search.value.trim().toLowerCase();
    const expanded = word !== "" || all.getAttribute("aria-expanded") === "true";
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const matches = row.dataset.search.toLowerCase().includes(word);
      row.hidden = !matches || (!expanded && shown >= first);
      shown += !row.hidden;
    }
    status.textContent = `${shown} of ${total} ${table.dataset.noun} shown`;
  };
  const toggle = () => {
    const open = all.getAttribute("aria-expanded") === "true";
    all.setAttribute("aria-expanded", String(!open));
    all.textContent = open ? `Show all ${total} ${table.dataset.noun}` : `Show the first ${first} only`;
    update();
  };
  search.addEventListener("input", update);
  all.addEventListener("click", toggle);
  table.addEventListener("sorted", update);
  all.hidden = total <= first;
  controls.hidden = false;
  update();
}
