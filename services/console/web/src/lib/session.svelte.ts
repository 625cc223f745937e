// Who is logged in. The tokens are in cookies that no script can read; this knows the name, the rights and the CSRF value.
import { documentOf, guardWith, json } from '../api/http';
import { Problem } from '../api/problem';
import { remember } from './storage';

export interface SessionInfo {
  user: string;
  role: string;
  csrf: string;
  expires_at: string;
  can: { submit?: boolean; operate: boolean; admin: boolean };
  settings: { grafana_url?: string | null; env?: string; version?: string; prometheus?: boolean; oidc?: boolean; [key: string]: unknown };
}

/** What a role may do, in words that follow "to". */
export type Acts = Partial<Record<'submitter' | 'operator' | 'admin', string>>;

/** The session is renewed this long before it ends. */
const EARLY_MS = 60_000;
/** A tab that slept renews at once, and never more often than this. */
const SOONEST_MS = 5_000;

/** What theme.js asked for before this code was there; used once. */
const early = globalThis as { afSession?: Promise<Response> };
/** Says at the next load that there is a session, most likely. */
const MARK = 'af.in';

class Session {
  info = $state.raw<SessionInfo>();
  /** Undefined until the first answer. */
  state = $state<'starting' | 'out' | 'in' | 'unreachable'>('starting');
  problem = $state.raw<Problem>();
  /** What the login offers next to a password: the name of an OpenID provider. */
  oidc = $state<string>();
  #renewing: Promise<boolean> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Submits, and cancels or retries single jobs. */
  get canSubmit(): boolean {
    return this.info?.can.submit ?? this.canOperate;
  }
  get canOperate(): boolean {
    return this.info?.can.operate ?? false;
  }
  get isAdmin(): boolean {
    return this.info?.can.admin ?? false;
  }

  /** Which of these the person here may not do, the least role first. */
  lacking(acts: Acts): [role: keyof Acts, act: string][] {
    const may = { submitter: this.canSubmit, operator: this.canOperate, admin: this.isAdmin };
    return (['submitter', 'operator', 'admin'] as const).flatMap((role) => (acts[role] && !may[role] ? [[role, acts[role]] as [keyof Acts, string]] : []));
  }

  async start() {
    guardWith({ csrf: () => this.info?.csrf, renew: () => this.renew() });
    await this.load();
  }

  async load() {
    try {
      const asked = early.afSession;
      early.afSession = undefined;
      this.#enter(await (asked ? documentOf<SessionInfo>(asked) : json<SessionInfo>('GET', '/auth/session')));
    } catch (cause) {
      const problem = Problem.of(cause);
      if (problem.status === 401) {
        if (typeof problem.body.oidc === 'string') this.oidc = problem.body.oidc;
        if (!(await this.renew())) this.#leave();
      } else {
        this.problem = problem;
        this.state = 'unreachable';
      }
    }
  }

  async login(user: string, password: string) {
    await this.#begin(await json('POST', '/auth/login', { body: { user, password } }));
  }

  /** Uses a one-time link. */
  async once(token: string) {
    await this.#begin(await json('POST', `/auth/once/${encodeURIComponent(token)}`));
  }

  async #begin(answer: SessionInfo | undefined) {
    if (answer?.csrf) this.#enter(answer);
    else await this.load();
  }

  async logout() {
    await json('POST', '/auth/logout').catch(() => undefined);
    this.#leave();
  }

  /** One renewal for all callers that wait for it. */
  renew(): Promise<boolean> {
    this.#renewing ??= this.#renew().finally(() => (this.#renewing = undefined));
    return this.#renewing;
  }

  async #renew(): Promise<boolean> {
    try {
      // Another tab may have renewed it a moment ago: then the answer is empty.
      this.#enter((await json<SessionInfo | undefined>('POST', '/auth/refresh')) ?? (await json<SessionInfo>('GET', '/auth/session')));
      return true;
    } catch (cause) {
      const problem = Problem.of(cause);
      if (problem.status === 401 || problem.status === 403) this.#leave();
      else if (this.state === 'starting') {
        this.problem = problem;
        this.state = 'unreachable';
      }
      return false;
    }
  }

  #enter(info: SessionInfo) {
    this.info = info;
    this.state = 'in';
    remember(MARK, true);
    this.problem = undefined;
    clearTimeout(this.#timer);
    const left = Date.parse(info.expires_at) - Date.now() - EARLY_MS;
    if (!Number.isNaN(left)) this.#timer = setTimeout(() => void this.renew(), Math.max(left, SOONEST_MS));
  }

  #leave() {
    clearTimeout(this.#timer);
    this.info = undefined;
    this.state = 'out';
    remember(MARK, false);
  }
}

export const session = new Session();
