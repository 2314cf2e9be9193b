"use strict";
// Tables are sorted, images browsed and commands copied. Texts of a run are only ever set as text, never as HTML.

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

  all("table[data-sortable]").forEach(sortable);

  all("[data-copy]").forEach((button) => {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  });

  // Unsafe images stay blurred until this is pressed; every load of a page starts blurred.
  all("[data-reveal]").forEach((button) => {
    button.addEventListener("click", () => {
      const shown = document.documentElement.classList.toggle("revealed");
      button.setAttribute("aria-pressed", String(shown));
      button.textContent = shown ? "Blur unsafe images" : "Show unsafe images";
      if (browser) browser.show();
    });
  });

  // On paper everything is open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])", document.querySelector("main")).filter((each) => !each.closest(".cell"));
    opened.forEach((each) => (each.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((each) => (each.open = false)));

  // Image browser. Data files are scripts that call the functions of window.erasebench.
  let browser = null;
  const arrived = new Map();
  let prompts = null;
  window.erasebench = {
    index: (data) => (browser = start(data)),
    rows: ([page, rows]) => arrived.set(page, rows),
    prompts: (data) => (prompts = data),
  };

  const asked = new Map();
  function load(file) {
    if (!asked.has(file)) {
      asked.set(file, new Promise((done) => {
        const script = make("script", { src: `data/${file}.js`, onload: done });
        script.onerror = () => {
          asked.delete(file);
          document.getElementById("status").textContent = `data/${file}.js is missing from this folder`;
        };
        document.head.append(script);
      }));
    }
    return asked.get(file);
  }

  const MARKS = { f: "✗", l: "✗", g: "✓", k: "✓" };

  function start(index) {
    const form = document.getElementById("filters");
    const place = document.getElementById("rows");
    const status = document.getElementById("status");
    const pagers = ["pager", "pager2"].map((name) => document.getElementById(name));
    const count = index.role.length;
    const width = index.erasers.length;
    const planned = index.planned.map((_, row) => row).sort((a, b) => index.planned[a] - index.planned[b]);
    let page = 0;
    let turn = 0;

    const option = (value, text = value) => make("option", { value, textContent: text });
    const values = () => Object.fromEntries(new FormData(form));

    function fillTasks() {
      const { kind, task } = values();
      const names = index.tasks.filter((each) => !kind || each.kind === kind).map((each) => each.task);
      form.task.replaceChildren(option("", "any task"), ...[...new Set(names)].map((name) => option(name)));
      form.task.value = names.includes(task) ? task : "";
      const labels = new Set();
      for (let row = 0; row < count; row++) {
        if (!kind || index.tasks[index.task[row]].kind === kind) labels.add(index.labels[index.label[row]]);
      }
      const label = form.label.value;
      labels.delete("");
      form.label.replaceChildren(option("", "any"), ...[...labels].sort().map((name) => option(name)));
      form.label.value = labels.has(label) ? label : "";
    }

    function matching() {
      const { kind, task, label, role, outcome, eraser, order } = values();
      const words = form.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const fits = words.length
        ? prompts.prompts.map((prompt) => words.every((word) => prompt.toLowerCase().includes(word)))
        : null;
      const columns = index.erasers.map((name, i) => [name, i])
        .filter(([name]) => (eraser ? name === eraser : outcome === "" || name !== index.unedited))
        .map(([, i]) => i);
      const rows = order === "plan" ? planned : [...Array(count).keys()];
      return rows.filter((row) => {
        const of = index.tasks[index.task[row]];
        if ((kind && of.kind !== kind) || (task && of.task !== task)) return false;
        if (label && index.labels[index.label[row]] !== label) return false;
        if (role && index.role[row] !== role) return false;
        if (fits && !fits[prompts.row[row]]) return false;
        return !outcome || columns.some((i) => outcome.includes(index.signs[row * width + i]));
      });
    }

    async function show() {
      const mine = ++turn;
      if (form.text.value.trim() && !prompts) await load("prompts");
      const rows = matching();
      const pages = Math.max(1, Math.ceil(rows.length / index.page));
      page = Math.min(Math.max(0, page), pages - 1);
      const shown = rows.slice(page * index.page, (page + 1) * index.page);
      await Promise.all([...new Set(shown.map((row) => Math.floor(row / index.page)))].map((n) => load(`rows-${n}`)));
      if (mine !== turn) return; // another filter was chosen while files were loading
      place.replaceChildren(...shown.map(rowElement));
      status.textContent = rows.length === count
        ? `${count.toLocaleString("en")} rows`
        : `${rows.length.toLocaleString("en")} of ${count.toLocaleString("en")} rows`;
      pagers.forEach((pager) => {
        pager.hidden = pages < 2;
        pager.querySelector("[data-pages]").textContent = `of ${pages.toLocaleString("en")}`;
        pager.querySelector("[data-step='-1']").disabled = page === 0;
        pager.querySelector("[data-step='1']").disabled = page === pages - 1;
      });
      pagers[1].querySelector("[data-pages]").textContent = `page ${page + 1} of ${pages}`;
      pagers[0].querySelector("input").value = page + 1;
      pagers[0].querySelector("input").max = pages;
      remember();
    }

    function rowElement(row) {
      const [prompt, id, seed, cells] = arrived.get(Math.floor(row / index.page))[row % index.page];
      const of = index.tasks[index.task[row]];
      const role = index.role[row];
      const label = index.labels[index.label[row]];
      const what = make("p", { className: "what" },
        make("span", { className: `tag ${role}`, textContent: index.roles[role] }), label ? ` ${label}` : "",
        make("br"), `${of.kind}, ${of.task} erased`, make("br"), `prompt ${id}, seed ${seed}`);
      const words = make("div", {}, make("h2", { textContent: `“${prompt}”` }), what);
      const pictures = make("div", { className: "cells" });
      cells.forEach(([key, answer, there], i) => {
        if (key) pictures.append(cellElement(index.erasers[i], index.signs[row * width + i], key, answer, there, prompt, of));
      });
      return make("article", { className: of.sensitive ? "row sensitive" : "row" }, words, pictures);
    }

    function cellElement(eraser, sign, key, answer, there, prompt, of) {
      const name = eraser === index.unedited ? "unedited" : eraser;
      const [word, meaning] = index.outcomes[sign];
      const mark = MARKS[sign] ? `${MARKS[sign]} ${word}` : word;
      const path = `${key.slice(0, 2)}/${key}`;
      const hidden = of.sensitive && !document.documentElement.classList.contains("revealed");
      let picture;
      if (there) {
        const image = make("img", {
          src: `thumbs/${path}.${index.suffix}`, loading: "lazy", decoding: "async", width: 128, height: 128,
          alt: `${name}: ${prompt}${answer ? ` (${index.classifier} sees ${answer})` : ""}${hidden ? ", blurred" : ""}`,
        });
        picture = index.full && !hidden
          ? make("a", { className: "picture", href: `full/${path}.png`, title: "the whole image" }, image)
          : make("span", { className: "picture" }, image);
      } else {
        picture = make("span", { className: "picture gone", textContent: "no image" });
      }
      const said = make("p", { className: "answer", title: meaning });
      if (mark) said.append(make("span", { className: `mark-${sign}`, textContent: mark }), answer ? make("br") : "");
      said.append(answer);
      const command = `erasebench show ${key}${index.store === "results" ? "" : ` --store ${quoted(index.store)}`}`;
      const details = make("details", {}, make("summary", { textContent: key.slice(0, 8), title: `key ${key}` }),
        make("code", { textContent: command }));
      return make("figure", { className: "cell" }, make("p", { className: "eraser", textContent: name }), picture, said, details);
    }

    const quoted = (text) => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

    function remember() {
      const chosen = Object.entries(values()).filter(([, value]) => value);
      if (page) chosen.push(["page", String(page + 1)]);
      const text = new URLSearchParams(chosen).toString();
      history.replaceState(null, "", text ? `#${text}` : location.pathname.split("/").pop());
    }

    function recall() {
      const said = new URLSearchParams(location.hash.slice(1));
      form.kind.value = said.get("kind") || "";
      fillTasks();
      for (const name of ["task", "label", "role", "outcome", "eraser", "text", "order"]) {
        form[name].value = said.get(name) || "";
      }
      page = (parseInt(said.get("page"), 10) || 1) - 1;
      all("select", form).forEach((select) => { if (select.selectedIndex < 0) select.value = ""; });
      return show();
    }

    form.eraser.append(...index.erasers.map((name) => option(name, name === index.unedited ? "unedited" : name)));
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", (event) => { page = 0; if (event.target === form.kind) fillTasks(); show(); });
    let waiting = 0;
    form.text.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { page = 0; show(); }, 200);
    });
    form.addEventListener("reset", () => setTimeout(() => { page = 0; fillTasks(); show(); }));
    pagers.forEach((pager) => all("button", pager).forEach((button) => {
      button.addEventListener("click", async () => {
        page += Number(button.dataset.step);
        await show();
        document.getElementById("status").scrollIntoView({ block: "start" });
      });
    }));
    pagers[0].querySelector("input").addEventListener("change", (event) => {
      page = (parseInt(event.target.value, 10) || 1) - 1;
      show();
    });
    addEventListener("hashchange", recall);
    recall();
    return { show };
  }
})();
