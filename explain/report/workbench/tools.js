// What all parts use.

const LISTED = 8; // players of a list, before all are asked for
const sign = (x) => (x > 0 ? "+" : "") + Number(x.toPrecision(3));
const spread = (error) => ` ± ${error > 0 && error < 1e-3 ? error.toExponential(0) : Number(error.toPrecision(1))}`;
const within = (x, low, high) => Math.max(low, Math.min(high, x));
const largest = (answer) => answer.scores.reduce((most, score) => Math.max(most, Math.abs(score)), 0);

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
