// The address is the state: pages read their filters here, and write them here.
import { href } from './match';

class Router {
  #url = $state.raw(new URL(location.href));

  get path(): string {
    return this.#url.pathname;
  }
  get query(): URLSearchParams {
    return this.#url.searchParams;
  }
  get address(): string {
    return this.#url.pathname + this.#url.search;
  }

  start() {
    addEventListener('popstate', () => (this.#url = new URL(location.href)));
    // Links stay links: they can be opened in another tab, copied, and followed without this code.
    document.addEventListener('click', (event) => {
      if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = (event.target as Element).closest?.('a[href]');
      if (!(link instanceof HTMLAnchorElement) || link.target || link.origin !== location.origin) return;
      if (link.hasAttribute('download') || /^\/(api|auth)\//.test(link.pathname)) return;
      event.preventDefault();
      this.go(link.pathname + link.search + link.hash);
    });
  }

  go(address: string, { replace = false } = {}) {
    if (replace) history.replaceState(null, '', address);
    else if (address !== this.address) history.pushState(null, '', address);
    const moved = new URL(location.href).pathname !== this.#url.pathname;
    this.#url = new URL(location.href);
    if (moved) scrollTo(0, 0);
  }

  get(name: string): string {
    return this.#url.searchParams.get(name) ?? '';
  }

  /** Changes parts of the query; null or empty removes one. */
  set(changes: Record<string, string | null | undefined>, { replace = true } = {}) {
    const query: Record<string, string | null | undefined> = Object.fromEntries(this.#url.searchParams);
    this.go(href(this.path, { ...query, ...changes }), { replace });
  }
}

export const router = new Router();
