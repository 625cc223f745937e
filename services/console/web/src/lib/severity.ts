// Words of severity as the services send them, worst first. `states.ts` has the look of each.

/** Of markers and zones. */
export const MARKER_SEVERITIES = ['critical', 'high', 'medium', 'low'] as const;
/** All words, those of alerts too. */
export const SEVERITIES: readonly string[] = ['critical', 'high', 'page', 'medium', 'warning', 'ticket', 'low', 'info', 'none'];

/** The worst is 0; a word that is not known comes last. */
export function rank(severity: string): number {
  const at = SEVERITIES.indexOf(severity);
  return at < 0 ? SEVERITIES.length : at;
}
