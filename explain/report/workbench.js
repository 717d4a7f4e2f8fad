"use strict";
// The page is whole without this file. With it, one answer at a time is seen on a drawing that all answers share.
(() => {
const LISTED = 8; // players of a list, before all are asked for
const sign = (x) => (x > 0 ? "+" : "") + Number(x.toPrecision(3));
const within = (x, low, high) => Math.max(low, Math.min(high, x));

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const labelled = (text, control) => make("label", {}, text, control);

// --- one question ---

class Bench {
  constructor(section) {
    this.section = section;
    const data = JSON.parse(section.querySelector("script.data").textContent);
    Object.assign(this, data);
    this.bench = section.querySelector(".bench");
    this.panels = [...section.querySelectorAll(".panel")];
    this.figures = [...section.querySelectorAll("figure.scene")];
    this.elements = this.figures.map((figure) => [...figure.querySelectorAll("[data-e]")]
      .sort((one, other) => one.dataset.e - other.dataset.e));
    this.lists = this.panels.map((panel, i) => new List(this, panel, this.answers[i]));
    this.makeTabs();
    this.makeStage();
    this.choose(0);
  }

  get answer() { return this.answers[this.chosen]; }
  get drawn() { return this.elements[this.answer.scene] || []; }

  makeTabs() {
    const row = make("div", { class: "tabs", role: "tablist", "aria-label": "Methods" });
    this.tabs = this.answers.map((answer, i) => make("button", {
      type: "button", role: "tab", id: this.panels[i].id + "tab", "aria-controls": this.panels[i].id,
      onclick: () => this.choose(i),
    }, `${answer.name} · ${answer.kind}`, this.panels[i].querySelector(".doubts") ? make("span", { class: "doubt" }, "doubtful") : ""));
    row.append(...this.tabs);
    row.addEventListener("keydown", (event) => {
      const last = this.tabs.length - 1;
      const to = { ArrowRight: this.chosen + 1, ArrowLeft: this.chosen - 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.choose(to > last ? 0 : to < 0 ? last : to);
      this.tabs[this.chosen].focus();
    });
    this.bench.prepend(row);
    this.panels.forEach((panel, i) => {
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", this.tabs[i].id);
    });
  }

  makeStage() {
    const stage = this.bench.querySelector(".stage") || this.bench.insertBefore(make("div", { class: "stage" }), this.bench.querySelector(".panels"));
    this.cut = make("input", { type: "range", min: 0, max: 100, value: 0, class: "cut", oninput: () => this.paint() });
    this.hidden = make("output", { class: "hidden-sum" });
    this.card = make("p", { class: "card", "aria-live": "polite" });
    this.reel = new Reel(this);
    stage.append(make("div", { class: "tools" }, labelled("Hide credit below", this.cut), this.times(), this.hidden), this.card, this.reel.place);
    this.figures.forEach((figure, i) => {
      figure.querySelectorAll("title").forEach((title) => title.remove()); // the card says it, for all methods
      figure.addEventListener("pointerover", (event) => this.point(this.playerOf(event.target)));
      if (this.scenes[i].kind === "steps") figure.addEventListener("pointerover", (event) => this.reel.scrub(event.target.closest("[data-e]")));
      figure.addEventListener("pointerleave", () => this.point(-1));
      if (this.scenes[i].kind === "graph") new Drag(figure, this.scenes[i], this.elements[i]);
    });
  }

  // A slider over noise levels, where one method was asked about several.
  times() {
    const alike = (answer) => this.answers.filter((one) => one.t && one.t.length === 1 && one.method === answer.method && one.kind === answer.kind);
    this.noise = make("input", { type: "range", min: 0, value: 0, step: 1, class: "noise", oninput: () => {
      this.choose(this.answers.indexOf(alike(this.answer).sort((a, b) => b.t[0] - a.t[0])[this.noise.value]));
    } });
    this.showNoise = () => {
      const found = alike(this.answer).sort((a, b) => b.t[0] - a.t[0]);
      this.noise.parentNode.hidden = found.length < 2;
      this.noise.max = Math.max(found.length - 1, 0);
      this.noise.value = found.indexOf(this.answer);
      this.noise.setAttribute("aria-valuetext", found.length ? `t=${this.answer.t}` : "");
    };
    return labelled("t, noise first", this.noise);
  }

  choose(i) {
    this.chosen = i;
    this.tabs.forEach((tab, j) => { tab.setAttribute("aria-selected", i === j); tab.tabIndex = i === j ? 0 : -1; });
    this.panels.forEach((panel, j) => { panel.hidden = i !== j; });
    this.figures.forEach((figure, j) => { figure.hidden = j !== this.answer.scene; });
    this.showNoise();
    this.reel.show();
    this.paint();
    this.point(-1);
  }

  get limit() { return this.largest() * (this.cut.value / 100) ** 2; }
  largest() { return this.answer.scores.reduce((most, score) => Math.max(most, Math.abs(score)), 0); }

  // The drawing and the list in the colours of the chosen answer.
  paint() {
    const { scores, owners, rest, players, signed, unit } = this.answer, limit = this.limit, most = this.largest() || 1;
    this.drawn.forEach((element, e) => {
      const player = owners[e], score = player >= 0 ? scores[player] : 0;
      const side = player < 0 ? "none" : !signed ? "share" : score > 0 ? "up" : score < 0 ? "down" : "none";
      element.classList.remove("none", "share", "up", "down");
      element.classList.add(side);
      element.classList.toggle("off", player >= 0 && Math.abs(score) < limit);
      element.style.setProperty("--s", (Math.abs(score) / most).toFixed(3));
    });
    const small = scores.filter((score) => Math.abs(score) < limit);
    const away = small.length + players - scores.length, sum = small.reduce((total, score) => total + score, rest);
    this.hidden.textContent = away
      ? `below ${Number(limit.toPrecision(2))}: ${away} of ${players} hidden, together ${sign(sum)}`
      : `all ${players} shown, together ${sign(scores.reduce((total, score) => total + score, 0))}`;
    this.hidden.dataset.sum = sum;
    this.cut.setAttribute("aria-valuetext", this.hidden.textContent);
    const figure = this.figures[this.answer.scene];
    if (figure) {
      const top = scores.slice(0, 3).map((score, i) => `${this.answer.names[i]} ${sign(score)}`).join(", ");
      const told = `${this.answer.name} over ${this.answer.kind}: ${top}`;
      figure.querySelector(".shows").textContent = `${told}. ${unit}, full colour is ±${Number(most.toPrecision(3))}`;
      const svg = figure.querySelector("svg");
      if (svg) svg.setAttribute("aria-label", `${this.section.querySelector("h2").textContent} ${told}`);
    }
    this.reel.draw();
    this.lists[this.chosen].show();
  }

  playerOf(target) {
    const element = target.closest("[data-e]");
    return element ? this.answer.owners[element.dataset.e] ?? -1 : -1;
  }

  // One player is marked where it is drawn and listed, and what every method gives it is written down.
  point(player) {
    this.drawn.forEach((element, e) => element.classList.toggle("here", player >= 0 && this.answer.owners[e] === player));
    this.lists[this.chosen].mark(player);
    if (player >= 0 && this.answer.kind === "words") this.reel.look(this.answer.names[player]);
    this.card.textContent = player >= 0 ? this.saying(player) : "Point at a player: what every method gives it stands here.";
  }

  saying(player) {
    const name = this.answer.names[player], element = this.answer.owners.indexOf(player);
    const told = this.answers.map((answer) => {
      const own = answer === this.answer ? player
        : answer.scene === this.answer.scene && element >= 0 ? answer.owners[element]
        : answer.kind === this.answer.kind ? answer.names.indexOf(name) : -1;
      if (own === undefined || own < 0) return "";
      const error = answer.errors ? ` ± ${Number(answer.errors[own].toPrecision(1))}` : "";
      return `${answer.name} (${answer.kind}) ${sign(answer.scores[own])}${error}`;
    });
    return `${name}: ${told.filter(Boolean).join(" · ")}`;
  }
}

// --- the list of players, as a waterfall where the scores add up ---

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
    const strong = scores.map((_, i) => i).filter((i) => Math.abs(scores[i]) >= this.bench.limit && names[i].toLowerCase().includes(wanted));
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
      const error = errors ? ` ± ${Number(errors[i].toPrecision(1))}` : "";
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

// --- moving nodes ---

class Drag {
  constructor(figure, scene, elements) {
    this.svg = figure.querySelector("svg");
    Object.assign(this, { scene, elements });
    this.places = elements.filter((element) => element.tagName === "g").map((element) => {
      const { e, f } = element.transform.baseVal.getItem(0).matrix;
      return [e, f];
    });
    this.svg.addEventListener("pointerdown", (event) => this.take(event));
  }

  take(event) {
    const node = event.target.closest("g[data-e]");
    if (!node) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    const move = (moved) => this.move(Number(node.dataset.e), moved);
    this.svg.addEventListener("pointermove", move);
    this.svg.addEventListener("pointerup", () => this.svg.removeEventListener("pointermove", move), { once: true });
  }

  move(node, event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    const [width, height] = this.scene.size;
    this.places[node] = [within(at.x, 8, width - 8), within(at.y, 8, height - 8)];
    this.elements[node].setAttribute("transform", `translate(${this.places[node].join(" ")})`);
    this.scene.edges.forEach((edge, i) => {
      if (edge[0] === node || edge[1] === node) this.elements[this.places.length + i].setAttribute("d", this.path(edge));
    });
  }

  path([source, target, bend]) {
    const [x, y] = this.places[source], [u, v] = this.places[target];
    const length = Math.hypot(u - x, v - y) || 1, radius = Math.min(this.scene.radius, length / 2);
    const dx = (u - x) / length, dy = (v - y) / length;
    const start = `M${x + radius * dx} ${y + radius * dy}`, end = `${u - radius * dx} ${v - radius * dy}`;
    return bend ? `${start}Q${(x + u) / 2 - bend * length * dy} ${(y + v) / 2 + bend * length * dx} ${end}` : `${start}L${end}`;
  }
}

// --- a run, step by step: what it saw and foresaw, and where it looked ---

class Reel {
  constructor(bench) {
    this.bench = bench;
    this.place = make("div", { class: "film" });
    this.step = make("input", { type: "range", min: 0, value: 0, step: 1, class: "step", oninput: () => this.draw() });
    this.layer = make("select", { "aria-label": "Where it looks: a layer, or a word", onchange: () => this.draw() });
    this.said = make("output", {});
    this.reel = make("div", { class: "reel" });
    this.place.append(make("div", { class: "tools" }, labelled("Step of the run", this.step), this.layer, this.said), this.reel);
  }

  show() {
    const { film } = this.bench, { maps } = this.bench.answer;
    this.film = film || { seen: [], foreseen: [], times: [] };
    this.names = [...new Set(maps.map((map) => map.step).filter(Boolean))];
    const layers = [...new Set(maps.map((map) => map.layer))];
    const before = this.layer.value;
    this.layer.replaceChildren(...layers.map((layer) => make("option", {}, layer)));
    if (layers.includes(before)) this.layer.value = before;
    this.layer.hidden = layers.length < 2;
    const steps = Math.max(this.film.foreseen.length, this.names.length);
    this.step.max = Math.max(steps - 1, 0);
    const { t } = this.bench.answer;
    if (t && t.length === 1) this.step.value = Math.max(this.film.times.indexOf(t[0]), 0); // the other slider drives it
    this.step.parentNode.hidden = steps < 2 || Boolean(t && t.length === 1);
    this.place.hidden = !maps.length && !steps;
  }

  scrub(tile) {
    if (!tile || this.place.hidden) return;
    this.step.value = tile.dataset.e;
    this.draw();
  }

  // The map of a word, where there is one.
  look(name) {
    if (![...this.layer.options].some((option) => option.value === name)) return;
    this.layer.value = name;
    this.draw();
  }

  // The chosen answer's regions, as outlines over a picture: how strong they are is how wide.
  contours() {
    const { answer, figures, scenes } = this.bench;
    if ((scenes[answer.scene] || {}).kind !== "image") return "";
    const drawn = figures[answer.scene].querySelector("svg").cloneNode(true);
    for (const name of ["role", "aria-label"]) drawn.removeAttribute(name);
    drawn.setAttribute("class", "contours");
    drawn.setAttribute("aria-hidden", "true");
    drawn.querySelectorAll("[data-e]").forEach((path) => path.removeAttribute("data-e"));
    return drawn;
  }

  draw() {
    const k = Number(this.step.value), { film } = this, { answer, drawn, scenes } = this.bench;
    const time = film.times.length > k ? `t=${Number(film.times[k].toPrecision(4))}` : this.names[k] || "";
    const map = answer.maps.find((one) => one.layer === this.layer.value && (!one.step || one.step === (this.names[k] || time)));
    const shown = [["what it sees, x_t", film.seen[k]], ["what it foresees, x̂₀", film.foreseen[k]], ["attention, × uniform", map && map.picture]];
    const words = this.bench.section.querySelector("h2").textContent;
    this.reel.replaceChildren(...shown.filter(([, picture]) => picture).map(([name, picture]) => make("figure", {},
      make("div", { class: "over" }, make("img", { class: "pixels", src: picture, alt: `${name} at ${time}, ${answer.name}: ${words}` }), this.contours()),
      make("figcaption", {}, name))));
    this.said.textContent = [time, shown[0][1] || shown[1][1] ? "each picture on its own scale" : "", map ? `${map.layer}: ${map.least} to ${map.most} × uniform` : ""].filter(Boolean).join(" · ");
    this.step.setAttribute("aria-valuetext", time);
    if ((scenes[answer.scene] || {}).kind === "steps") drawn.forEach((tile, i) => tile.setAttribute("aria-current", i === k && !this.place.hidden ? "step" : "false"));
  }
}

// --- the page ---

document.documentElement.classList.add("js");
document.querySelectorAll("section.question").forEach((section) => new Bench(section));
const theme = make("button", { type: "button", class: "theme", onclick: () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || getComputedStyle(document.documentElement).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
} }, "Light or dark");
document.querySelector("h1").before(theme);
})();
