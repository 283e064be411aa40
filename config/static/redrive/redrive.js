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
