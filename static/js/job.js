// The job's console. The page was rendered with what is stored; this goes on from the offsets it was rendered with.
// A reconnect resumes by Last-Event-ID, so nothing is lost or doubled. Output becomes text nodes only.
import { $, $$, press, onReady, say } from './dom.js';
import { actions } from './actions.js';
import { apply, onExpired, setConnection } from './live.js';
import { PLAIN, nodesOf } from './ansi.js';

const MAX_LINES = 2000;
const MAX_LINE_CHARACTERS = 8000;
const FLUSH_MS = 80;

const box = $('#console');
const tail = { on: true };
const streams = { stdout: newStream('out'), stderr: newStream('err') };
let source = null;
let queue = [];
let timer = 0;
let cursor = box && $('.ln.tail', box);
let shown = box ? $$('.ln:not(.tail)', box).length : 0;
let fresh = []; // lines that have no element yet
let now = '';
let total = Number(box?.dataset.total ?? 0);
let errors = Number(box?.dataset.errors ?? 0);
let phase = box?.dataset.phase ?? '';

/* Of a line that has not ended only what can be seen of it is kept: its length does not matter to what comes next. */
function newStream(kind) {
  return { kind, text: '', hidden: 0, isReturned: false, line: null, style: PLAIN, offset: null };
}

/** Adds a piece to the line that has not ended. After a carriage return the line is written anew from its start. */
const grow = (stream, piece) => {
  let end = piece.length;
  while (end && piece[end - 1] === '\r') end -= 1;
  if (end) {
    const from = piece.lastIndexOf('\r', end - 1) + 1;
    if (from || stream.isReturned) { stream.text = ''; stream.hidden = 0; }
    const until = Math.min(end, from + MAX_LINE_CHARACTERS - stream.text.length);
    stream.text += piece.slice(from, until);
    stream.hidden += end - until;
  }
  stream.isReturned = end < piece.length || (stream.isReturned && !end);
};

const newLine = (kind, text = '') => {
  const line = { kind, at: now, text, style: PLAIN, element: null, isStale: true };
  fresh.push(line);
  if (fresh.length === 2 * MAX_LINES) fresh = fresh.slice(-MAX_LINES); // the others would leave the page at once
  total += 1;
  if (kind === 'err') errors += 1;
  return line;
};

const note = (text) => newLine('sys', text);

/** What the stream's line reads now. */
const update = (stream) => {
  const more = stream.hidden ? ` … and ${stream.hidden.toLocaleString('en')} more characters, see the download` : '';
  stream.line ??= newLine(stream.kind);
  Object.assign(stream.line, { text: stream.text + more, style: stream.style, isStale: true });
};

/** The line has ended, and the style moves on. */
const end = (stream) => {
  update(stream);
  const style = stream.text.includes('\x1b') ? nodesOf(stream.line.text, stream.style)[1] : stream.style;
  Object.assign(stream, { text: '', hidden: 0, isReturned: false, line: null, style });
};

const take = (stream, { offset, next_offset: next, text }) => {
  if (stream.offset !== null && next <= stream.offset) return; // seen before
  if (stream.offset !== null && offset > stream.offset) note(`${(offset - stream.offset).toLocaleString('en')} bytes are not kept`);
  stream.offset = next;
  const lines = text.split('\n');
  const rest = lines.pop();
  lines.forEach((line) => { grow(stream, line); end(stream); });
  if (rest) { grow(stream, rest); update(stream); }
};

const elementOf = (line) => {
  const element = document.createElement('div');
  element.className = 'ln';
  element.dataset.k = line.kind;
  const [time, mark, text] = ['i', 'b', 'span'].map((tag) => document.createElement(tag));
  time.textContent = line.at;
  mark.textContent = line.kind;
  element.append(time, mark, text);
  box.insertBefore(element, cursor);
  if (shown < MAX_LINES) shown += 1; else box.firstElementChild.remove();
  return element;
};

const draw = (line) => {
  line.element ??= elementOf(line);
  line.element.lastElementChild.replaceChildren(...nodesOf(line.text, line.style)[0]);
  line.isStale = false;
};

const refreshCounts = () => {
  const cut = $('#cut');
  if (cut && total > MAX_LINES) {
    cut.hidden = false;
    $('[data-shown]', cut).textContent = MAX_LINES;
    $('[data-total]', cut).textContent = total;
  }
  const badge = $('#error-lines');
  if (badge) { badge.hidden = !errors; badge.textContent = errors; }
};

const goToEnd = () => { if (box && tail.on) box.scrollTop = box.scrollHeight; };

const flush = () => {
  timer = 0;
  now = new Date().toISOString().slice(11, 19);
  const work = queue;
  queue = [];
  const open = Object.values(streams).map((stream) => stream.line).filter((line) => line?.element);
  work.forEach((run) => run());
  open.filter((line) => line.isStale).forEach(draw);
  fresh.slice(-MAX_LINES).forEach(draw);
  fresh = [];
  refreshCounts();
  goToEnd();
};
const soon = (run) => {
  queue.push(run);
  if (!timer) timer = setTimeout(flush, FLUSH_MS);
};

/** The state above and beside the console, rendered by the server. */
const refreshState = async () => {
  const answer = await fetch(box.dataset.stateUrl, { headers: { 'HX-Request': 'true' }, credentials: 'same-origin' });
  if (!answer.ok) return;
  const template = document.createElement('template');
  template.innerHTML = await answer.text();
  [...template.content.children].forEach((part) => { if (part.id) apply(part.id, part.outerHTML); });
};

const onStatus = (state) => {
  if (state.phase && state.phase !== phase) {
    phase = state.phase;
    soon(() => note(`phase ${state.phase}`));
  }
  refreshState();
};

const onDone = (state) => {
  source.close();
  setConnection('ok');
  soon(() => {
    Object.values(streams).forEach((stream) => { if (stream.line) end(stream); });
    cursor?.remove();
    cursor = null;
  });
  say(`The job ended: ${state.status.toLowerCase()}`);
};

const follow = () => {
  source = new EventSource(`${box.dataset.streamUrl}?after=${encodeURIComponent(box.dataset.after)}`);
  box.dataset.after.split(',').forEach((part) => { const [name, offset] = part.split(':'); streams[name].offset = Number(offset); });
  ['stdout', 'stderr'].forEach((name) => source.addEventListener(name, (event) => soon(() => take(streams[name], JSON.parse(event.data)))));
  source.addEventListener('status', (event) => onStatus(JSON.parse(event.data)));
  source.addEventListener('done', (event) => onDone(JSON.parse(event.data)));
  source.addEventListener('expired', () => { source.close(); onExpired(); });
  source.onopen = () => setConnection('ok');
  source.onerror = () => {
    setConnection('warn');
    if (source.readyState !== EventSource.CLOSED) return;
    box.dataset.after = Object.entries(streams).map(([name, stream]) => `${name}:${stream.offset}`).join(',');
    setTimeout(follow, 3000);
  };
};
addEventListener('pagehide', () => source?.close());

/** Finds text with the CSS Custom Highlight API: the page itself stays as it is. */
const find = (wanted) => {
  CSS.highlights?.delete('find');
  const out = $('[data-hits]');
  if (out) out.textContent = '';
  if (!wanted) return;
  const needle = wanted.toLowerCase();
  const hits = [];
  $$('.ln > span', box).forEach((line) => {
    const walk = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const text = node.data.toLowerCase();
      for (let at = text.indexOf(needle); at > -1; at = text.indexOf(needle, at + needle.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + needle.length);
        hits.push(range);
      }
    }
  });
  if (window.Highlight) CSS.highlights.set('find', new Highlight(...hits));
  hits[0]?.startContainer.parentElement.scrollIntoView({ block: 'center' });
  if (out) out.textContent = `${hits.length} found`;
};

document.addEventListener('click', (event) => {
  const link = event.target.closest('a[data-only]');
  if (!link || !box || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  $$('a[data-only]').forEach((each) => { if (each === link) each.setAttribute('aria-current', 'true'); else each.removeAttribute('aria-current'); });
  box.dataset.only = link.dataset.only;
  goToEnd();
});
actions.wrap = (button) => press(button, box.toggleAttribute('data-wrap'));
actions.follow = (button) => { tail.on = !tail.on; press(button, tail.on); goToEnd(); };

// For screen readers: the log itself is silent, or it would never stop talking.
actions['read-last'] = () => say($$('.ln:not(.tail) > span', box).slice(-5).map((line) => line.textContent).join('. '));

onReady(() => {
  if (!box) return;
  goToEnd();
  box.addEventListener('scroll', () => {
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    if (isAtEnd !== tail.on) { tail.on = isAtEnd; press($('[data-act="follow"]'), isAtEnd); }
  }, { passive: true });
  document.addEventListener('input', (event) => { if (event.target.matches('[data-find]')) find(event.target.value); });
  if (box.dataset.streamUrl) follow();
});
