"use strict";
// Tables are sorted and their columns picked, commands copied, unsafe images shown when asked for. This and the files beside it
// are plain scripts of our own: what they do is little, a page stays small and needs no network, and nothing of others must be
// kept up to date. Texts of a run are only ever set as text, never as HTML.

(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Sorting: heads become buttons. The first press puts the best on top; the unedited model stays where it is.
  function sortable(table) {
    const heads = all("thead tr:last-child th", table);
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const words = head.querySelector(".head");
      const button = make("button", { type: "button", className: "sort" });
      words.replaceWith(button);
      button.append(words);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const first = head.dataset.better === "up" ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const now = before === first ? other : first;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", now);
        const sign = now === "ascending" ? 1 : -1;
        const rows = all("tr", body);
        const fixed = rows.filter((row) => "fixed" in row.dataset);
        const free = rows.filter((row) => !("fixed" in row.dataset));
        free.sort((a, b) => sign * compare(a.cells[column], b.cells[column], sign));
        body.append(...fixed, ...free);
      });
    });
  }

  function compare(a, b, sign) {
    if (a.dataset.sort === undefined) return a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
    const [x, y] = [a.dataset.sort, b.dataset.sort];
    if (x === "" || y === "") return x === y ? 0 : sign * (x === "" ? 1 : -1); // cells without a number come last
    return Number(x) - Number(y);
  }

  // Columns: those that answer the question are shown, the others when they are asked for.
  function pickable(table) {
    const heads = all("thead tr:last-child th", table);
    const more = heads.filter((head) => "more" in head.dataset);
    if (!more.length || more.length === heads.length - 1) return;
    const summary = make("summary");
    const list = make("div", { className: "picker" });
    const show = (column, shown) => all("tr", table).forEach((row) => (row.cells[column].hidden = !shown));
    const count = () => {
      const shown = heads.filter((head) => !head.hidden).length - 1;
      summary.textContent = `Columns: ${shown} of ${heads.length - 1}`;
    };
    const boxes = heads.slice(1).map((head, i) => {
      const box = make("input", { type: "checkbox", checked: !("more" in head.dataset) });
      const name = head.querySelector(".head").cloneNode(true);
      all(".hidden", name).forEach((each) => each.remove());
      list.append(make("label", {}, box, ` ${name.textContent}`));
      const set = () => { show(i + 1, box.checked); count(); };
      box.addEventListener("change", set);
      return [box, set];
    });
    const every = make("button", { type: "button", textContent: "All" });
    every.addEventListener("click", () => boxes.forEach(([box, set]) => { box.checked = true; set(); }));
    list.append(every);
    boxes.forEach(([, set]) => set());
    table.closest(".scroll").before(make("details", { className: "columns" }, summary, list));
  }

  // Copying: the text of the button's own data, or of the code beside it.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // an older browser, or one that keeps the clipboard from pages on a disk
      const field = make("textarea", { value: text });
      (document.querySelector("dialog[open]") || document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  }

  function copyButton(words, text) {
    const button = make("button", { type: "button", className: "copy", textContent: words });
    button.dataset.copy = text;
    return button;
  }

  const waiting = new WeakMap();
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await copy(button.dataset.copy || button.parentElement.querySelector("code").textContent);
    clearTimeout(waiting.get(button)?.timer);
    const words = waiting.get(button)?.words || button.textContent;
    button.textContent = "Copied";
    waiting.set(button, { words, timer: setTimeout(() => { button.textContent = words; waiting.delete(button); }, 1500) });
    button.focus();
  });

  // Unsafe images stay blurred until this is pressed; every load of a page starts blurred.
  const revealed = () => document.documentElement.classList.contains("revealed");
  function revealWords(button) {
    button.setAttribute("aria-pressed", String(revealed()));
    button.textContent = revealed() ? "Blur unsafe images" : "Show unsafe images";
  }
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-reveal]")) return;
    document.documentElement.classList.toggle("revealed");
    all("[data-reveal]").forEach(revealWords);
    document.dispatchEvent(new Event("reveal"));
  });

  const command = (key) => `erasebench show ${key}${document.body.dataset.store}`;

  all("table[data-sortable]").forEach(sortable);
  all("table[data-columns]").forEach(pickable);

  // On paper everything is open, and every picture is there.
  let opened = [];
  addEventListener("beforeprint", () => {
    all("img[loading='lazy']").forEach((image) => (image.loading = "eager"));
    opened = all("details:not([open])", document.querySelector("main")).filter((each) => !each.closest(".cell"));
    opened.forEach((each) => (each.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((each) => (each.open = false)));

  window.erasebench = { all, make, command, copyButton, revealed, revealWords };
})();
