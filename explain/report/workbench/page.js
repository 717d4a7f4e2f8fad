// The page is whole without these files; here they begin.

document.documentElement.classList.add("js");
document.querySelectorAll("section.question").forEach((section) => new Bench(section));
document.querySelectorAll("section.summary").forEach((section) => new Answers(section));
const theme = make("button", { type: "button", class: "theme", onclick: () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || getComputedStyle(document.documentElement).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
} }, "Light or dark");
document.querySelector("h1").before(theme);
