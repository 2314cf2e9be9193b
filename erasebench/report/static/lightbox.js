"use strict";
// A picture that is pressed is shown large beside those of the other erasers. Arrows walk through the rows, Escape closes.

(() => {
  const { all, make, command, copyButton, revealed, revealWords } = window.erasebench;
  const SMALL = 64; // pixels of a side up to which an image is a drawing whose pixels may be seen

  const dialog = make("dialog", { className: "lightbox" });
  const heading = make("h2", { id: "enlarged" });
  const place = make("p", { className: "soft" });
  const what = make("p", { className: "what" });
  const pictures = make("div", { className: "large" });
  const reveal = make("button", { type: "button" });
  reveal.dataset.reveal = "";
  const link = copyButton("Copy link", "");
  const step = (text, by) => {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => go(at + by));
    return button;
  };
  const [back, on] = [step("← Previous", -1), step("Next →", 1)];
  const close = make("button", { type: "button", className: "close", textContent: "Close", autofocus: true });
  close.addEventListener("click", () => dialog.close());
  dialog.setAttribute("aria-labelledby", "enlarged");
  dialog.append(
    make("div", { className: "bar" }, back, on, place, reveal, link, close), heading, what, pictures,
  );

  let source = null;
  let at = 0;
  let shown = null;

  // source: count, at, row(i) with the words and pictures of a row (or a promise of it), and closed().
  function lightbox(of) {
    source = of;
    if (!dialog.isConnected) document.body.append(dialog);
    if (!dialog.open) dialog.showModal();
    return go(of.at);
  }

  async function go(to) {
    if (to < 0 || to >= source.count) return;
    at = to;
    const row = await source.row(to);
    if (at !== to) return; // somebody walks faster than rows arrive
    shown = row;
    draw();
  }

  function draw() {
    heading.textContent = shown.title;
    what.textContent = shown.what;
    place.textContent = `${at + 1} of ${source.count}`;
    back.disabled = at === 0;
    on.disabled = at === source.count - 1;
    dialog.classList.toggle("sensitive", Boolean(shown.sensitive));
    reveal.hidden = !shown.sensitive;
    revealWords(reveal);
    link.hidden = !shown.link;
    link.dataset.copy = shown.link || "";
    pictures.replaceChildren(...shown.pictures.map(figure));
    if (!dialog.contains(document.activeElement)) close.focus(); // the button that was pressed has no further row
  }

  function figure({ name, key, src, full, alt, answer, sign, words }) {
    const hidden = shown.sensitive && !revealed();
    let picture = make("span", { className: "picture gone", textContent: "no image" });
    if (src) {
      // What must not be seen unasked is not loaded whole, either.
      const image = make("img", { src: full && !hidden ? full : src, alt: hidden ? `${alt}, blurred` : alt });
      image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= SMALL));
      picture = make("span", { className: "picture" }, image);
    }
    const said = make("p", { className: "answer" });
    if (words) said.append(make("span", { className: `mark-${sign}`, textContent: words }), " ");
    said.append(answer || "");
    return make("figure", {}, make("figcaption", { className: "eraser", textContent: name }), picture, said,
      key ? copyButton("Copy command", command(key)) : "");
  }

  document.addEventListener("reveal", () => { if (dialog.open) draw(); });
  dialog.addEventListener("close", () => source.closed?.());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
  document.addEventListener("keydown", (event) => {
    if (!dialog.open) return;
    const by = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: source.count - 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    go(by);
  });

  // Pictures that stand in a page are pressed, too; without this script they are pictures.
  const rows = all("[data-enlarge]");
  rows.forEach((row, i) => all("span.picture img", row).forEach((image) => {
    const button = make("button", { type: "button", className: "picture" });
    image.parentElement.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => lightbox({ count: rows.length, at: i, row: (n) => standing(rows[n]) }));
  }));

  function standing(row) {
    return {
      title: row.dataset.title, what: row.dataset.what, sensitive: Boolean(row.closest(".sensitive")),
      pictures: all("img", row).map((image) => {
        const answer = image.closest(".cell").querySelector(".answer:not(.soft)");
        const src = image.getAttribute("src");
        const mark = answer?.querySelector("span");
        return {
          src, name: image.dataset.name, alt: image.alt.replace(/, blurred$/, ""), key: src.match(/([0-9a-f]+)\.\w+$/)?.[1],
          ...(row.matches(".cell") ? {} : { words: mark?.textContent, sign: mark?.className.slice(-1), answer: lastText(answer) }),
        };
      }),
    };
  }

  const lastText = (element) => (element?.lastChild?.nodeType === Node.TEXT_NODE ? element.lastChild.textContent.trim() : "");

  window.erasebench.lightbox = lightbox;
})();
