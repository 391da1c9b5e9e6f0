// What the console's pages do beyond links and forms. Everything here only adds to a
// page that works without it.
"use strict";

// Times are sent in UTC; the reader sees the exact time of their own zone on hover.
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "medium" });

// The current place of a navigation that scrolls, as on a phone, is shown. The page itself
// does not move.
const navigations = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const link = target.querySelector("[aria-current]").getBoundingClientRect();
    const place = target.getBoundingClientRect();
    if (link.left < place.left || link.right > place.right) {
      target.scrollLeft += link.left - place.left - (place.width - link.width) / 2;
    }
    if (link.top < place.top || link.bottom > place.bottom) {
      target.scrollTop += link.top - place.top - (place.height - link.height) / 2;
    }
  }
});

function enhance(root) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    time.title = exact.format(new Date(time.dateTime));
  }
  for (const button of root.querySelectorAll("button[data-copy]")) {
    button.hidden = !navigator.clipboard;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  enhance(document);
  for (const current of document.querySelectorAll("nav [aria-current]")) {
    navigations.observe(current.closest("nav"));
  }
});
document.addEventListener("htmx:afterSwap", (event) => enhance(event.target));
document.addEventListener("htmx:sseMessage", (event) => enhance(event.target));

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1500);
    return;
  }
  if (event.target.closest("[data-palette]")) {
    event.preventDefault();
    openPalette();
  }
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

// A form is sent once: a second click would send it again.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || "repeatable" in form.dataset) return; // the answer of some is a file: the page stays
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  form.setAttribute("aria-busy", "true");
});
// Going back shows the page as it was: its forms can be sent again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }
});

function openPalette() {
  const palette = document.getElementById("palette");
  if (palette && !palette.open) palette.showModal();
}

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
  }
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details[data-menu][open]")) menu.open = false;
  }
  const results = event.target.closest && event.target.closest("#palette") && [...document.querySelectorAll("#palette-results a")];
  if (results && results.length && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    const at = results.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    (results[at] || document.getElementById("palette-query")).focus();
  }
});

// The address of a new store, as the server would make it from its name.
document.addEventListener("input", (event) => {
  const preview = event.target.dataset && event.target.dataset.slugPreview;
  if (!preview) return;
  const slug = event.target.value.normalize("NFKD").replace(/[\u0300-\u036f'’]/g, "").toLowerCase()
    .replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 40) || "store";
  document.getElementById(preview).textContent = slug;
});
