// Before the first paint: the chosen theme, so that a page never flashes in the other one, and the frame of the pages for those who
// were logged in. The session is asked for while the code of the pages is still on its way.
(() => {
  globalThis.afSession = fetch('/auth/session', { headers: { accept: 'application/json' }, credentials: 'same-origin' });
  globalThis.afSession.catch(() => undefined);
  try {
    const theme = JSON.parse(localStorage.getItem('af.prefs') || '{}').theme;
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
    if (localStorage.getItem('af.in') === 'true') document.documentElement.dataset.boot = 'in';
  } catch {
    // Storage is off: the system's theme is used.
  }
})();
