// All answers: a header sorts upwards, downwards and as asked again; the search keeps rows that hold every word.

class Answers {
  constructor(section) {
    const table = section.querySelector("table");
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows];
    this.heads = [...table.tHead.rows[0].cells];
    this.heads.forEach((head, column) => head.replaceChildren(
      make("button", { type: "button", class: "sort", onclick: () => this.sort(column) }, ...head.childNodes)));
    this.search = make("input", { type: "search", placeholder: "search", "aria-label": "Search all answers", oninput: () => this.find() });
    this.said = make("output", {});
    table.parentNode.before(make("div", { class: "tools" }, this.search, this.said));
    this.find();
  }

  sort(column) {
    const way = { none: "ascending", ascending: "descending" }[this.heads[column].getAttribute("aria-sort") || "none"];
    this.heads.forEach((head) => head.removeAttribute("aria-sort"));
    if (way) this.heads[column].setAttribute("aria-sort", way);
    const by = this.heads[column].classList.contains("number") ? numbers : names;
    const turned = way === "descending" ? -1 : 1;
    const text = (row) => row.cells[column].textContent;
    const sorted = way ? [...this.rows].sort((one, other) => turned * by(text(one), text(other))) : this.rows;
    this.body.append(...sorted);
  }

  find() {
    const wanted = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of this.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
    }
    const shown = this.rows.filter((row) => !row.hidden).length;
    this.said.textContent = `${shown} of ${this.rows.length} answers`;
  }
}

const names = (one, other) => one.localeCompare(other, undefined, { numeric: true });
const numbers = (one, other) => Number(one) - Number(other);
