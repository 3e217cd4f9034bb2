"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const remembered = () => {
    try { return localStorage.getItem("homing-theme"); } catch { return null; }
  };
  const show = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    button.dataset.now = theme;
    button.textContent = "Theme: " + theme;
  };
  show(themes.includes(remembered()) ? remembered() : "auto");
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.now) + 1) % themes.length];
    show(next);
    try { localStorage.setItem("homing-theme", next); } catch { /* a page from disk may not store */ }
  });

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    return value === undefined ? cell.textContent.trim() : value === "" ? -Infinity : Number(value);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  for (const header of document.querySelectorAll("th[aria-sort]")) {
    header.firstElementChild.addEventListener("click", () => {
      const table = header.closest("table");
      const column = header.cellIndex;
      const rows = [...table.tBodies[0].rows];
      const numeric = rows.length > 0 && typeof valueOf(rows[0], column) === "number";
      const now = header.getAttribute("aria-sort");
      const next = now === "none" ? (numeric ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      rows.sort((a, b) => sign * compare(valueOf(a, column), valueOf(b, column)));
      table.tBodies[0].append(...rows);
    });
  }

  for (const input of document.querySelectorAll("input[data-filter]")) {
    const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
    const count = input.parentElement.querySelector("[role=status]");
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = wanted ? shown + " of " + rows.length : "";
    });
  }

  const picker = document.getElementById("gallery-class");
  if (picker) {
    picker.addEventListener("change", () => {
      const wanted = picker.selectedIndex === 0 ? null : picker.value;
      for (const gallery of document.querySelectorAll(".gallery")) {
        let shown = 0;
        let found = null;
        for (const tile of gallery.querySelectorAll("li")) {
          const fits = wanted === null ? "overall" in tile.dataset : "inClass" in tile.dataset && tile.dataset.label === wanted;
          tile.hidden = !fits;
          shown += fits ? 1 : 0;
          if (fits && wanted !== null) found = tile.dataset.inClass;
        }
        const count = gallery.querySelector(".count");
        count.dataset.all ??= count.textContent;
        count.textContent = wanted === null ? count.dataset.all : found ?? "0";
        gallery.querySelector(".empty").hidden = shown > 0;
      }
    });
  }

  const large = document.getElementById("large");
  large?.addEventListener("click", () => large.close());
  for (const frame of document.querySelectorAll("button.frame")) {
    frame.addEventListener("click", () => {
      const small = frame.querySelector("img");
      const picture = large.querySelector("img") ?? large.querySelector("figure").insertBefore(new Image(), large.querySelector("figcaption"));
      picture.src = small.src;
      picture.alt = small.alt;
      const words = [...frame.parentElement.querySelectorAll(".label > *")].map((word) => word.textContent.trim());
      large.querySelector("figcaption").textContent = [...words, frame.parentElement.title].join(" · ");
      if (!large.open) large.showModal();
    });
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const item of closed) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of closed) item.open = false;
  });
})();
