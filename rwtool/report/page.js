"use strict";
// Sort a table by a click on the head of a column. Numbers sort by the first one in a cell; what is none comes last.
function keyOf(cell) {
  const text = cell.textContent.trim();
  const number = parseFloat(text.replace(/,/g, ""));
  return { text, number };
}
function compare(a, b, sign) {
  if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
  if (!Number.isNaN(a.number)) return sign * (a.number - b.number);
  if ((a.text === "" || a.text === "-") !== (b.text === "" || b.text === "-")) return a.text === "" || a.text === "-" ? 1 : -1;
  return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.cells[column]) }));
      rows.sort((a, b) => compare(a.key, b.key, sign));
      body.append(...rows.map((item) => item.row));
      for (const item of rows) item.row.classList.remove("opens");
    });
  });
}
