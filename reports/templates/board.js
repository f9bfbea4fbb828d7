(() => {
  const table = document.querySelector("#board");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const key = (row, i) => row.cells[i].dataset.sort;

  heads.forEach((head, i) => {
    head.querySelector("button").addEventListener("click", () => {
      const number = head.classList.contains("n");
      const down = head.getAttribute("aria-sort") === (number ? "descending" : "ascending") ? number : !number;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const order = number
        ? (a, b) => Number(key(a, i)) - Number(key(b, i))
        : (a, b) => key(a, i).localeCompare(key(b, i), undefined, { numeric: true });
      rows.sort((a, b) => (down ? order(a, b) : order(b, a)));
      body.append(...rows);
    });
  });
  const filter = document.querySelector("#filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
})();
