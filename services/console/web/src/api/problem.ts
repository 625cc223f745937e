// An error of our APIs (RFC 9457), or of the way to them, in one form.

interface Body {
  code?: string;
  title?: string;
  detail?: string;
  field?: string | null;
  retry_after_ms?: number | null;
  request_id?: string | null;
}

export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly detail: string;
  readonly field: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly requestId: string | undefined;
  /** The whole document, for fields that only one route has. */
  readonly body: Readonly<Record<string, unknown>>;

  constructor(status: number, body: Body) {
    super(body.detail ?? body.title ?? `status ${status}`);
    this.status = status;
    this.code = body.code ?? `http_${status}`;
    this.title = body.title ?? `The server answered ${status}`;
    this.detail = body.detail ?? this.title;
    this.field = body.field ?? undefined;
    this.retryAfterMs = body.retry_after_ms ?? undefined;
    this.requestId = body.request_id ?? undefined;
    this.body = { ...body };
  }

  static of(cause: unknown): Problem {
    if (cause instanceof Problem) return cause;
    if (cause instanceof TypeError) {
      return new Problem(0, { code: 'unreachable', title: 'The console cannot be reached', detail: 'the connection to the console failed; the page keeps trying' });
    }
    return new Problem(0, { code: 'page_error', title: 'This page has an error', detail: cause instanceof Error ? cause.message : String(cause) });
  }

  static async from(response: Response): Promise<Problem> {
    const text = await response.text().catch(() => '');
    let body: Body = {};
    try {
      const parsed: unknown = JSON.parse(text);
      if (parsed && typeof parsed === 'object') body = parsed;
    } catch {
      if (text && text.length < 300 && !text.trimStart().startsWith('<')) body.detail = text;
    }
    body.request_id ??= response.headers.get('x-request-id');
    const wait = response.headers.get('retry-after');
    if (body.retry_after_ms == null && wait && /^\d+$/.test(wait)) body.retry_after_ms = Number(wait) * 1000;
    return new Problem(response.status, body);
  }
}
