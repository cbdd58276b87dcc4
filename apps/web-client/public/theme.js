// Puts the chosen theme on the page before its first paint. Not a module and not inline: it must run early, under a
// content security policy without inline scripts. The switch itself is src/shared/theme.tsx.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem('weft-theme');
  } catch {
    // Storage is switched off in this browser; the system's theme stays.
  }
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
})();
