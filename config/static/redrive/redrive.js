// Small comforts of the admin; every page works without them.

// Copy buttons exist only where copying can work.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const field = document.getElementById(button.dataset.copy);
    button.hidden = false;
    button.addEventListener("click", async () => {
      field.select();
      try {
        await navigator.clipboard.writeText(field.value);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Press Ctrl+C";
      }
    });
  }
});

// Numbers that are not fresh must not look as if they were.
for (const failed of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(failed, (event) => event.target.closest?.("[data-stale]")?.classList.add("rd-stale"));
}
document.addEventListener("htmx:afterSwap", (event) => event.target.closest?.("[data-stale]")?.classList.remove("rd-stale"));

// The box above a table of choices checks its rows, and unchecks itself with any of them.
document.addEventListener("change", (event) => {
  const form = event.target.closest?.(".rd-choose");
  if (!form) return;
  const all = form.querySelector("[data-check-all]");
  const boxes = [...form.querySelectorAll("input[name=group]")];
  if (event.target === all) for (const box of boxes) box.checked = all.checked;
  else if (all && !event.target.checked) all.checked = false;
});

// Keys: j and k move, x chooses, Enter opens, / searches, ? tells.
const KEYS = [["j", "next row"], ["k", "previous row"], ["x", "choose the row"], ["Enter", "open the row"],
  ["/", "search"], ["?", "show or hide this"], ["Esc", "leave a field, or hide this"]];

function move(step) {
  const rows = [...document.querySelectorAll("tr[data-row], #result_list tbody tr")];
  if (!rows.length) return;
  const here = rows.findIndex((row) => row.classList.contains("rd-here"));
  const next = rows[Math.min(Math.max(here + step, 0), rows.length - 1)];
  rows[here]?.classList.remove("rd-here");
  next.classList.add("rd-here");
  next.scrollIntoView({ block: "nearest" });
}

function help(show) {
  const shown = document.querySelector(".rd-keys");
  shown?.remove();
  if (shown || !show) return;
  const box = Object.assign(document.createElement("div"), { className: "rd-keys" });
  box.setAttribute("role", "status");
  for (const [key, words] of KEYS) {
    const line = document.createElement("div");
    line.append(Object.assign(document.createElement("kbd"), { textContent: key }), words);
    box.append(line);
  }
  document.body.append(box);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (event.key === "Escape") {
    typing?.blur();
    help(false);
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const here = document.querySelector("tr.rd-here");
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "x") here?.querySelector("input[type=checkbox]")?.click();
  else if (event.key === "Enter" && here && event.target === document.body) here.querySelector("a[data-open], th a, td a")?.click();
  else if (event.key === "?") help(true);
  else if (event.key === "/") {
    const field = document.querySelector("[data-search], #searchbar");
    if (!field) return;
    event.preventDefault();
    field.focus();
  }
});
