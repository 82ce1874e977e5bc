// The theme adds a button to each block of code when a page is shown; a screen reader needs a name for each.
new MutationObserver(() => {
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav, index) => {
    nav.setAttribute("aria-label", `Code block ${index + 1}`);
    nav.querySelectorAll("button").forEach((button) => button.setAttribute("aria-label", button.title || "Copy"));
  });
}).observe(document.documentElement, { childList: true, subtree: true });
