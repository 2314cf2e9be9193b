"use strict";
// The image browser: rows are filtered here, and loaded sixty at a time. A page on a disk may not fetch files, so data files are
// scripts that call the functions of window.erasebench.

(() => {
  const { all, make, command, copyButton, revealed, lightbox } = window.erasebench;
  const arrived = new Map();
  let prompts = null;
  Object.assign(window.erasebench, {
    index: (data) => start(data),
    rows: ([page, rows]) => arrived.set(page, rows),
    prompts: (data) => (prompts = data),
  });

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
    let rows = [];

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
      rows = matching();
      const size = Number(form.size.value);
      const pages = Math.max(1, Math.ceil(rows.length / size));
      page = Math.min(Math.max(0, page), pages - 1);
      const shown = rows.slice(page * size, (page + 1) * size);
      await Promise.all([...new Set(shown.map(fileOf))].map((n) => load(`rows-${n}`)));
      if (mine !== turn) return; // another filter was chosen while files were loading
      place.replaceChildren(...(rows.length ? shown.map(rowElement) : [nothing()]));
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

    function nothing() {
      const clear = make("button", { type: "button", textContent: "Clear the filters" });
      clear.addEventListener("click", () => form.reset());
      return make("p", { className: "note" }, "No prompt is all of that. ", clear);
    }

    const fileOf = (row) => Math.floor(row / index.page);

    // What is known of a row whose file is there, for the page and for the lightbox.
    function known(row) {
      const [prompt, id, seed, cells] = arrived.get(fileOf(row))[row % index.page];
      const { kind, task, sensitive } = index.tasks[index.task[row]];
      const role = index.role[row];
      const pictures = cells.flatMap(([key, answer, there], i) => {
        if (!key) return [];
        const sign = index.signs[row * width + i];
        const [word, meaning] = index.outcomes[sign];
        const name = index.shown[i];
        const path = `${key.slice(0, 2)}/${key}`;
        return [{
          name, key, answer, sign, meaning, words: MARKS[sign] ? `${MARKS[sign]} ${word}` : word,
          src: there ? `thumbs/${path}.${index.suffix}` : "", full: index.full ? `full/${path}.png` : "",
          alt: `${name}: ${prompt}${answer ? ` (${index.classifier} sees ${answer})` : ""}`,
        }];
      });
      const label = index.labels[index.label[row]];
      return { title: `“${prompt}”`, id, seed, kind, task, sensitive, role, label, pictures };
    }

    function rowElement(row) {
      const { title, id, seed, kind, task, sensitive, role, label, pictures } = known(row);
      const what = make("p", { className: "what" },
        make("span", { className: `tag ${role}`, textContent: index.roles[role] }), label ? ` ${label}` : "",
        make("br"), `${kind}, ${task} erased`, make("br"), `prompt ${id}, seed ${seed}`);
      const words = make("div", {}, make("h2", { textContent: title }), what);
      const cells = make("div", { className: "cells" }, ...pictures.map((picture) => cellElement(picture, sensitive, row)));
      return make("article", { className: sensitive ? "row sensitive" : "row" }, words, cells);
    }

    function cellElement({ name, key, answer, sign, meaning, words, src, alt }, sensitive, row) {
      let picture = make("span", { className: "picture gone", textContent: "no image" });
      if (src) {
        const hidden = sensitive && !revealed();
        const image = make("img", {
          src, loading: "lazy", decoding: "async", width: 128, height: 128, alt: hidden ? `${alt}, blurred` : alt,
        });
        picture = make("button", { type: "button", className: "picture" }, image);
        picture.addEventListener("click", () => enlarge(row));
      }
      const said = make("p", { className: "answer", title: meaning });
      if (words) said.append(make("span", { className: `mark-${sign}`, textContent: words }), answer ? make("br") : "");
      said.append(answer);
      const details = make("details", {}, make("summary", { textContent: key.slice(0, 8), title: `key ${key}` }),
        make("code", { textContent: command(key) }), copyButton("Copy", command(key)));
      return make("figure", { className: "cell" }, make("p", { className: "eraser", textContent: name }), picture, said, details);
    }

    // Larger: every row that the filters leave, whatever page it is on.
    function enlarge(row) {
      const walked = rows;
      lightbox({
        count: walked.length,
        at: Math.max(0, walked.indexOf(row)),
        async row(i) {
          await load(`rows-${fileOf(walked[i])}`);
          const { title, id, seed, kind, task, sensitive, role, label, pictures } = known(walked[i]);
          remember(walked[i]);
          return {
            title, sensitive, pictures, link: location.href,
            what: `${index.roles[role]} ${label}`.trim() + ` · ${kind}, ${task} erased · prompt ${id}, seed ${seed}`,
          };
        },
        closed: () => remember(),
      });
    }

    // The filters, the page and the row that is enlarged are in the address; a row is known by its place in the plan.
    function remember(row) {
      const chosen = Object.entries(values()).filter(([name, value]) => value && !(name === "size" && value === String(index.page)));
      if (page) chosen.push(["page", String(page + 1)]);
      if (row !== undefined) chosen.push(["row", String(index.planned[row])]);
      const text = new URLSearchParams(chosen).toString();
      history.replaceState(null, "", text ? `#${text}` : location.pathname.split("/").pop());
    }

    async function recall() {
      const said = new URLSearchParams(location.hash.slice(1));
      form.kind.value = said.get("kind") || "";
      fillTasks();
      for (const name of ["task", "label", "role", "outcome", "eraser", "text", "order"]) {
        form[name].value = said.get(name) || "";
      }
      form.size.value = said.get("size") || String(index.page);
      page = (parseInt(said.get("page"), 10) || 1) - 1;
      all("select", form).forEach((select) => { if (select.selectedIndex < 0) select.selectedIndex = 0; });
      await show();
      const row = index.planned.indexOf(Number(said.get("row") ?? NaN));
      if (rows.includes(row)) enlarge(row);
    }

    form.eraser.append(...index.erasers.map((name, i) => option(name, index.shown[i])));
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
    document.addEventListener("reveal", show);
    recall();
  }
})();
