// Before the first paint: the chosen theme, so that a page never flashes in the other one.
(() => {
  try {
    const theme = JSON.parse(localStorage.getItem('af.prefs') || '{}').theme;
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is off: the system's theme is used.
  }
})();
