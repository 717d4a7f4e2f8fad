// One question: one answer at a time is seen on a drawing that all answers share.

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
    this.curves = new Curves(section);
    this.lists = this.panels.map((panel, i) => new List(this, panel, this.answers[i]));
    this.makeTabs();
    this.makeStage();
    this.lists.forEach((list) => list.show()); // a print shows them all
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
    const tools = make("div", { class: "tools" }, labelled("Hide credit below", this.cut), this.times(), this.hidden);
    const before = stage.querySelector("figure.curves");
    stage.insertBefore(tools, before).after(this.card, this.reel.place);
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
    this.curves.show(i);
    this.showNoise();
    this.reel.show();
    this.paint();
    this.point(-1);
  }

  limit(answer) { return largest(answer) * (this.cut.value / 100) ** 2; }

  // The drawing and the list in the colours of the chosen answer.
  paint() {
    const { scores, owners, rest, players, signed, unit } = this.answer, limit = this.limit(this.answer), most = largest(this.answer) || 1;
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
      const error = answer.errors ? spread(answer.errors[own]) : "";
      return `${answer.name} (${answer.kind}) ${sign(answer.scores[own])}${error}`;
    });
    return `${name}: ${told.filter(Boolean).join(" · ")}`;
  }
}
