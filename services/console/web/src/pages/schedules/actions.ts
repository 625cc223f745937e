// What can be done with a schedule, and how it is taken back.
import { orchestrator, type Schemas } from '../../api/client';
import { toasts } from '../../lib/toasts.svelte';

type Schedule = Schemas['Schedule'];

export async function setPaused(schedule: Schedule, paused: boolean, changed: () => unknown, canUndo = true): Promise<void> {
  try {
    const path = { id: schedule.id };
    if (paused) await orchestrator.post('/v1/schedules/{id}/pause', { path });
    else await orchestrator.post('/v1/schedules/{id}/resume', { path });
    toasts.done(`${schedule.name} is ${paused ? 'paused' : 'resumed'}`, canUndo ? () => setPaused(schedule, !paused, changed, false) : undefined);
  } catch (error) {
    toasts.failed(`${schedule.name} was not ${paused ? 'paused' : 'resumed'}`, error);
  }
  changed();
}
