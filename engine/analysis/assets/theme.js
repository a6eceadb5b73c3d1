// Light or dark before anything is drawn; a choice is kept where the browser lets it be.
(() => {
  const asked = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try { return localStorage.getItem("tocsin-theme"); } catch { return null; }
  };
  const set = (theme) => { document.documentElement.dataset.theme = theme; };
  set(kept() || (asked.matches ? "dark" : "light"));
  asked.addEventListener("change", () => {
    if (kept()) return;
    set(asked.matches ? "dark" : "light");
    dispatchEvent(new Event("tocsin-theme"));
  });
})();
