"use strict";
(() => {
  const $ = (selector) => document.querySelector(selector);

  // Theme: follows the system until the button is used.
  const root = document.documentElement;
  const button = $(".theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const label = () => {
    const other = current() === "dark" ? "light" : "dark";
    button.textContent = other === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", `Switch to the ${other} theme`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    label();
  });
  dark.addEventListener("change", label);
  label();

  // The table of inputs: sorted, filtered and paged here; its rows are data in the page.
  const source = $("#rows");
  if (!source) return;
  const rows = JSON.parse(source.textContent);
  const heads = [...document.querySelectorAll("#table thead th")];
  const names = heads.map((th) => th.textContent.trim());
  const numeric = heads.map((th) => th.classList.contains("n"));
  const [RADIUS, VERDICT] = ["Certified radius", "Verdict"].map((n) => names.indexOf(n));
  const DIGITS = { [RADIUS]: 4, [names.indexOf("Attack distance")]: 4, [names.indexOf("One-sided radius")]: 4, [names.indexOf("pA at least")]: 5 };
  const CHIP = { proof: "good", "claim of the log": "none", counterexample: "bad", inconclusive: "none" };
  const SIZE = 50;
  const PRINTED = 500; // rows on paper; certificates.csv has them all
  let column = 0;
  let direction = 1;
  let page = 0;
  let shown = rows;

  const compare = (a, b) => {
    const [x, y] = [a[column], b[column]];
    if (x === y) return a[0] - b[0];
    if (x === null) return 1; // nothing to compare: always last
    if (y === null) return -1;
    return direction * (numeric[column] ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
  };

  const cell = (value, at) => {
    const td = document.createElement("td");
    if (numeric[at]) td.className = "n";
    if (at === VERDICT) {
      const chip = document.createElement("span");
      chip.className = `chip ${CHIP[value] || "none"}`;
      chip.textContent = value;
      td.append(chip);
    } else {
      td.textContent = value === null ? "–" : at in DIGITS ? value.toFixed(DIGITS[at]) : value;
    }
    return td;
  };

  let printing = false;
  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / SIZE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const body = $("#table tbody");
    body.replaceChildren(
      ...(printing ? shown.slice(0, PRINTED) : shown.slice(page * SIZE, (page + 1) * SIZE)).map((row) => {
        const tr = document.createElement("tr");
        tr.append(...row.map(cell));
        return tr;
      }),
    );
    $("#shown").textContent = `${shown.length} of ${rows.length} inputs`;
    $("#page").textContent = `page ${page + 1} of ${pages}`;
    const printed = Math.min(shown.length, PRINTED);
    $("#printed").textContent = printed < rows.length ? `Printed: ${printed} of ${rows.length} inputs.` : "";
    $("#before").disabled = page === 0;
    $("#after").disabled = page === pages - 1;
  };

  const update = () => {
    const words = $("#find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = $("#verdict").value;
    const least = $("#least").value === "" ? null : Number($("#least").value);
    shown = rows.filter((row) => {
      if (verdict && row[VERDICT] !== verdict) return false;
      if (least !== null && !(row[RADIUS] !== null && row[RADIUS] >= least)) return false;
      const text = row.join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    shown.sort(compare);
    page = 0;
    draw();
  };

  for (const th of heads) {
    th.firstElementChild.addEventListener("click", (event) => {
      const chosen = Number(event.currentTarget.dataset.column);
      direction = chosen === column ? -direction : 1;
      column = chosen;
      heads.forEach((head, i) => {
        const order = i !== column ? "none" : direction > 0 ? "ascending" : "descending";
        head.setAttribute("aria-sort", order);
      });
      update();
    });
  }
  // A name that begins like a formula would be one in a spreadsheet.
  const plain = (value) => (typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : value);
  const field = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const quoted = (value) => (value === null ? "" : field(plain(value)));
  $("#save").addEventListener("click", () => {
    const text = [names, ...shown].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "inputs.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  $("form.tools").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["#find", "#verdict", "#least"]) $(id).addEventListener("input", update);
  $("#before").addEventListener("click", () => { page -= 1; draw(); });
  $("#after").addEventListener("click", () => { page += 1; draw(); });
  for (const [event, value] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => { printing = value; draw(); });
  }
  for (const part of document.querySelectorAll(".tools, #table")) part.hidden = false;
  heads[0].setAttribute("aria-sort", "ascending");
  update();
})();
