"use strict";
// The filters of a leaderboard. Without this script every table is shown, with its main columns.

(() => {
  const form = document.getElementById("filters");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const boards = all(".board");

  function show() {
    const chosen = Object.fromEntries(new FormData(form));
    let tables = 0;
    boards.forEach((board) => {
      const fits = ["kind", "protocol", "model"].every((name) => !chosen[name] || board.dataset[name] === chosen[name]);
      const rows = all("tr[data-eraser]", board);
      rows.forEach((row) => (row.hidden = Boolean(chosen.eraser && row.dataset.eraser && row.dataset.eraser !== chosen.eraser)));
      const has = !chosen.eraser || !rows.length || rows.some((row) => row.dataset.eraser === chosen.eraser);
      board.hidden = !(fits && has);
      tables += board.hidden ? 0 : 1;
    });
    all(".more").forEach((cell) => (cell.hidden = chosen.columns !== "all"));
    document.getElementById("shown").textContent = `${tables} of ${boards.length} tables`;
    const parts = Object.entries(chosen).filter(([, value]) => value);
    history.replaceState(null, "", parts.length ? `#${new URLSearchParams(parts)}` : location.pathname);
  }

  const asked = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of asked) {
    const field = form.elements.namedItem(name);
    if (field && all("option", field).some((option) => option.value === value)) field.value = value;
  }
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  if (!document.getElementById(location.hash.slice(1)) || !location.hash.slice(1)) show();
})();
