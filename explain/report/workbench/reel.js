// A run, step by step: what it saw and foresaw, and where it looked.

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
