// Moving nodes.

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
