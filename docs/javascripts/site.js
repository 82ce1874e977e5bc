// The theme adds a button to each block of code, and takes blocks that fit out of the order of the keyboard. Here each
// button has a name for a screen reader, and each block and table stays reachable: it may scroll on a narrower window.
new MutationObserver(() => {
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((nav, index) => {
    nav.setAttribute("aria-label", `Code block ${index + 1}`);
    nav.querySelectorAll("button").forEach((button) => button.setAttribute("aria-label", button.title || "Copy"));
  });
  document
    .querySelectorAll("pre > code:not([tabindex]), .md-typeset__scrollwrap:not([tabindex])")
    .forEach((one) => one.setAttribute("tabindex", "0"));
}).observe(document.documentElement, { attributeFilter: ["tabindex"], childList: true, subtree: true });
