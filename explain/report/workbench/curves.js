// Deletion and insertion: the chosen method's line before the others.

class Curves {
  constructor(section) {
    this.figures = [...section.querySelectorAll("figure.curves")];
  }

  show(chosen) {
    for (const figure of this.figures) {
      figure.hidden = !figure.dataset.answers.split(" ").includes(String(chosen));
      for (const own of figure.querySelectorAll("[data-a]")) {
        const it = own.dataset.a === String(chosen);
        own.classList.toggle("chosen", it);
        if (it && own.tagName === "polyline") own.parentNode.append(own); // on top
      }
    }
  }
}
