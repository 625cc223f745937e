// The Markdown of our own documents as blocks and spans, which components show as elements: no text becomes HTML. Pure.

export interface Span {
  kind: 'text' | 'code' | 'strong' | 'emphasis' | 'link';
  text: string;
  href?: string;
}
export type Block =
  | { kind: 'heading'; level: number; spans: Span[] }
  | { kind: 'paragraph'; spans: Span[] }
  | { kind: 'code'; text: string }
  | { kind: 'list'; ordered: boolean; items: Span[][] }
  | { kind: 'table'; head: Span[][]; rows: Span[][][] };

export function spans(text: string): Span[] {
  const list: Span[] = [];
  let at = 0;
  for (const one of text.matchAll(/`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)\s]+)\)/g)) {
    if (one.index > at) list.push({ kind: 'text', text: text.slice(at, one.index) });
    if (one[1] !== undefined) list.push({ kind: 'code', text: one[1] });
    else if (one[2] !== undefined) list.push({ kind: 'strong', text: one[2] });
    else if (one[3] !== undefined) list.push({ kind: 'emphasis', text: one[3] });
    else list.push({ kind: 'link', text: one[4]!.replaceAll('`', ''), href: one[5]! });
    at = one.index + one[0].length;
  }
  if (at < text.length) list.push({ kind: 'text', text: text.slice(at) });
  return list;
}

const BULLET = /^\s*[-*] /;
const NUMBER = /^\s*\d+\. /;

function cells(line: string): Span[][] {
  return line
    .trim()
    .replace(/^\||\|$/g, '')
    .split(/(?<!\\)\|/)
    .map((cell) => spans(cell.trim().replaceAll('\\|', '|')));
}

export function blocks(markdown: string): Block[] {
  const lines = markdown.split('\n');
  const list: Block[] = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at]!;
    const heading = /^(#{1,6}) (.*)$/.exec(line);
    if (line.trim() === '') at += 1;
    else if (heading) {
      list.push({ kind: 'heading', level: heading[1]!.length, spans: spans(heading[2]!) });
      at += 1;
    } else if (line.startsWith('```')) {
      const end = lines.findIndex((one, index) => index > at && one.startsWith('```'));
      const stop = end < 0 ? lines.length : end;
      list.push({ kind: 'code', text: lines.slice(at + 1, stop).join('\n') });
      at = stop + 1;
    } else if (line.startsWith('|') && /^\|[\s:|-]+\|?$/.test(lines[at + 1] ?? '')) {
      let stop = at + 2;
      while (lines[stop]?.startsWith('|')) stop += 1;
      list.push({ kind: 'table', head: cells(line), rows: lines.slice(at + 2, stop).map(cells) });
      at = stop;
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      const ordered = NUMBER.test(line);
      const mark = ordered ? NUMBER : BULLET;
      const items: string[] = [];
      while (at < lines.length && lines[at]!.trim() !== '' && (mark.test(lines[at]!) || /^\s+/.test(lines[at]!))) {
        if (mark.test(lines[at]!)) items.push(lines[at]!.replace(mark, ''));
        else items[items.length - 1] += ` ${lines[at]!.trim()}`;
        at += 1;
      }
      list.push({ kind: 'list', ordered, items: items.map(spans) });
    } else {
      const text: string[] = [];
      while (at < lines.length && lines[at]!.trim() !== '' && !/^(#{1,6} |```|\|)/.test(lines[at]!) && !(text.length > 0 && BULLET.test(lines[at]!))) {
        text.push(lines[at]!.trim());
        at += 1;
      }
      if (text.length === 0) {
        text.push(line.trim());
        at += 1;
      }
      list.push({ kind: 'paragraph', spans: spans(text.join(' ')) });
    }
  }
  return list;
}
