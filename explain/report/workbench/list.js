// The list of players, as a waterfall where the scores add up.

class List {
  constructor(bench, panel, answer) {
    Object.assign(this, { bench, panel, answer, all: false });
    this.body = panel.querySelector(".credit tbody");
    this.search = make("input", { type: "search", placeholder: "search", "aria-label": `Search ${answer.kind} of ${answer.name}`, oninput: () => this.show() });
    this.order = make("select", { "aria-label": `Order of ${answer.kind} of ${answer.name}`, onchange: () => this.show() },
      ...["strongest first", "highest first", "lowest first", "by name", "as played"].map((name) => make("option", {}, name)));
    if (answer.kind === "steps") this.order.value = "as played";
    this.more = make("button", { type: "button", onclick: () => { this.all = !this.all; this.show(); } });
    const table = panel.querySelector(".credit");
    table.before(make("div", { class: "tools" }, this.search, this.order, this.more));
    const scroll = make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Credit of ${answer.kind} by ${answer.name}` });
    table.replaceWith(scroll);
    scroll.append(table);
    const code = make("pre", { class: "code" }, answer.code);
    const copy = make("button", { type: "button", class: "copy", onclick: () => copied(answer.code, copy) }, "Copy as Python");
    panel.append(make("details", {}, make("summary", {}, "As Python"), copy, code));
    this.body.addEventListener("pointerover", (event) => this.over(event.target));
    this.body.addEventListener("pointerleave", () => bench.point(-1));
    this.body.addEventListener("focusin", (event) => this.over(event.target));
    this.body.addEventListener("keydown", (event) => this.step(event));
  }

  over(target) {
    const row = target.closest("tr[data-i]");
    if (row) this.bench.point(Number(row.dataset.i));
  }

  step(event) {
    const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = way && event.target.closest("tr")[way];
    if (!next || !next.dataset.i) return;
    event.preventDefault();
    next.tabIndex = 0;
    next.focus();
    event.target.tabIndex = -1;
  }

  mark(player) {
    for (const row of this.body.rows) row.classList.toggle("here", player >= 0 && row.dataset.i === String(player));
  }

  chosen() {
    const { scores, names, places } = this.answer, wanted = this.search.value.trim().toLowerCase();
    const by = {
      "strongest first": (a, b) => a - b, "highest first": (a, b) => scores[b] - scores[a],
      "lowest first": (a, b) => scores[a] - scores[b], "as played": (a, b) => places[a] - places[b],
      "by name": (a, b) => names[a].localeCompare(names[b], undefined, { numeric: true }),
    }[this.order.value];
    const strong = scores.map((_, i) => i).filter((i) => Math.abs(scores[i]) >= this.bench.limit(this.answer) && names[i].toLowerCase().includes(wanted));
    return { found: this.all ? strong : strong.slice(0, LISTED), by, all: strong.length };
  }

  show() {
    const { scores, names, errors, base, value, rest, players, signed, kind } = this.answer;
    const { found, by, all } = this.chosen();
    this.more.textContent = this.all ? "fewer" : `all ${all}`;
    this.more.hidden = all <= LISTED;
    const falls = signed && base !== null;
    let at = falls ? base : 0;
    const rows = [];
    const add = (name, change, text, side, i = null) => {
      const from = falls ? at : 0;
      at = falls ? at + change : change;
      rows.push({ name, from, to: at, text, side, i });
    };
    if (falls) rows.push({ name: `without ${kind}`, from: base, to: base, text: String(Number(base.toPrecision(4))), side: "total", i: null });
    for (const i of [...found].sort(by)) {
      const error = errors ? spread(errors[i]) : "";
      add(names[i], scores[i], sign(scores[i]) + error, !signed ? "share" : scores[i] < 0 ? "down" : "up", i);
    }
    const total = scores.reduce((sum, score) => sum + score, rest);
    const others = total - found.reduce((sum, i) => sum + scores[i], 0), count = players - found.length;
    if (count) add(`${count} others, together`, others, sign(others), !signed ? "share" : others < 0 ? "down" : "up");
    if (falls) {
      const gap = value - base - total;
      if (Math.abs(gap) > 1e-3 * Math.max(Math.abs(value - base), 1e-12)) add("not shared out", gap, sign(gap), gap < 0 ? "down" : "up");
      rows.push({ name: "the number", from: value, to: value, text: String(Number(value.toPrecision(4))), side: "total", i: null });
    }
    const ends = rows.flatMap((row) => [row.from, row.to]);
    const low = Math.min(...ends, falls ? Infinity : 0), span = Math.max(...ends, falls ? -Infinity : 0) - low || 1;
    this.body.replaceChildren(...rows.map((row) => this.row(row, low, span)));
    const first = this.body.querySelector("tr[data-i]");
    if (first) first.tabIndex = 0;
  }

  row({ name, from, to, text, side, i }, low, span) {
    const bar = make("i", { class: side });
    bar.style.setProperty("--l", `${(100 * (Math.min(from, to) - low) / span).toFixed(2)}%`);
    bar.style.setProperty("--w", `${(100 * Math.abs(to - from) / span).toFixed(2)}%`);
    return make("tr", { class: i === null ? "rest" : "", "data-i": i, tabindex: i === null ? null : -1 },
      make("th", { scope: "row" }, name), make("td", { class: "bar" }, bar), make("td", { class: "number" }, text));
  }
}

function copied(text, button) {
  const area = make("textarea", { readonly: true });
  area.value = text;
  button.after(area);
  area.select();
  const done = document.execCommand("copy"); // navigator.clipboard asks for https, and this is a file
  area.remove();
  button.focus();
  button.textContent = done ? "Copied" : "Select the lines below";
  setTimeout(() => { button.textContent = "Copy as Python"; }, 2000);
}
