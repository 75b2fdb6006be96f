// ANSI colours as class names, the same as hyprbox/lib/ansi.py. Text becomes text nodes, never markup.
const COLOURS = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'];
const ESCAPE = /\x1b\[([0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
const ON = { 1: 'bold', 2: 'dim', 3: 'italic', 4: 'underline', 7: 'inverse' };
const OFF = { 22: ['bold', 'dim'], 23: ['italic'], 24: ['underline'], 27: ['inverse'] };

export const PLAIN = Object.freeze({ fg: null, bg: null });

const name = (colour, side) => (colour === null ? '' : `ansi-${colour > 7 ? 'bright-' : ''}${COLOURS[colour % 8]}-${side}`);

export const classesOf = (style) => {
  const [fg, bg] = style.inverse ? [style.bg, style.fg] : [style.fg, style.bg];
  const names = [name(fg, 'fg'), name(bg, 'bg')];
  if (style.inverse && fg === null && bg === null) names.push('ansi-inverse');
  ['bold', 'dim', 'italic', 'underline'].forEach((kind) => { if (style[kind]) names.push(`ansi-${kind}`); });
  return names.filter(Boolean).join(' ');
};

const nearest = (red, green, blue) => {
  const top = Math.max(red, green, blue);
  if (top < 64) return 0;
  const half = Math.floor(top / 2);
  const bits = (red > half ? 1 : 0) | (green > half ? 2 : 0) | (blue > half ? 4 : 0);
  if (bits === 7 && top < 192) return top < 128 ? 8 : 7;
  return bits + (top > 191 ? 8 : 0);
};

const of256 = (index) => {
  if (index < 16) return index;
  if (index > 255) return null;
  if (index < 232) {
    const cube = index - 16;
    return nearest(Math.floor(cube / 36) * 51, (Math.floor(cube / 6) % 6) * 51, (cube % 6) * 51);
  }
  const grey = 8 + (index - 232) * 10;
  return nearest(grey, grey, grey);
};

const extended = (codes) => {
  const kind = codes.shift() ?? 0;
  if (kind === 5) return of256(codes.shift() ?? 0);
  if (kind === 2) return nearest(codes.shift() ?? 0, codes.shift() ?? 0, codes.shift() ?? 0);
  return null;
};

const one = (style, code, codes) => {
  if (code === 0) return { ...PLAIN };
  if (ON[code]) return { ...style, [ON[code]]: true };
  if (OFF[code]) return { ...style, ...Object.fromEntries(OFF[code].map((kind) => [kind, false])) };
  if (code === 38) return { ...style, fg: extended(codes) };
  if (code === 48) return { ...style, bg: extended(codes) };
  if (code >= 30 && code <= 37) return { ...style, fg: code - 30 };
  if (code >= 90 && code <= 97) return { ...style, fg: code - 82 };
  if (code >= 40 && code <= 47) return { ...style, bg: code - 40 };
  if (code >= 100 && code <= 107) return { ...style, bg: code - 92 };
  if (code === 39) return { ...style, fg: null };
  return code === 49 ? { ...style, bg: null } : style;
};

/** The text as nodes of one style each, and the style that holds after it. */
export const nodesOf = (text, style) => {
  const nodes = [];
  let at = 0;
  const add = (piece) => {
    if (!piece) return;
    const classes = classesOf(style);
    if (!classes) { nodes.push(document.createTextNode(piece)); return; }
    const span = document.createElement('span');
    span.className = classes;
    span.textContent = piece;
    nodes.push(span);
  };
  for (const match of text.matchAll(ESCAPE)) {
    add(text.slice(at, match.index));
    if (match[1] !== undefined) {
      const codes = match[1].replaceAll(':', ';').split(';').map((part) => Number(part || 0));
      while (codes.length) style = one(style, codes.shift(), codes);
    }
    at = match.index + match[0].length;
  }
  add(text.slice(at));
  return [nodes, style];
};
