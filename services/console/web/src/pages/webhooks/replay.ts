// A replay in short requests, each a few seconds at most. Pure but for the request that it is given.
import type { BroadcasterSchemas } from '../../api/client';

type Body = BroadcasterSchemas['ReplayRequest'];
type Answer = BroadcasterSchemas['Replayed'];
export interface Sum {
  matched: number;
  replayed: number;
  refused: number;
  /** Why the first of them was refused. */
  reason: string;
}

const CHUNK = 1_000;
const SECONDS = 5;

/** All that is meant, request after request; `told` hears how far it is. */
export async function replayAll(post: (body: Body) => Promise<Answer>, wanted: { endpoint: string; since: string; until: string; rate: number; dry_run: boolean }, told?: (sum: Sum) => void): Promise<Sum> {
  const sum: Sum = { matched: 0, replayed: 0, refused: 0, reason: '' };
  const limit = Math.max(1, Math.min(CHUNK, Math.ceil(wanted.rate * SECONDS)));
  let place: Partial<Pick<Body, 'after' | 'run'>> = {};
  for (;;) {
    const answer = await post({ ...wanted, ids: [], limit, ...place } as Body);
    sum.matched += answer.matched;
    sum.replayed += answer.replayed;
    sum.refused += answer.refused.length;
    sum.reason ||= answer.refused[0]?.reason ?? '';
    told?.({ ...sum });
    if (answer.next_after == null) return sum;
    place = { after: answer.next_after, run: answer.run };
  }
}
