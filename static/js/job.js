// The job's console. The page was rendered with what is stored; this goes on from the offsets it was rendered with.
// A reconnect resumes by Last-Event-ID, so nothing is lost or doubled. Output becomes text nodes only.
import { $, $$, press, onReady, say } from './dom.js';
import { actions } from './actions.js';
import { apply, setConnection } from './live.js';
import { PLAIN, nodesOf } from './ansi.js';

const MAX_LINES = 2000;
const MAX_LINE_CHARACTERS = 8000;
const FLUSH_MS = 80;

const box = $('#console');
const tail = { on: true };
const streams = { stdout: newStream('out'), stderr: newStream('err') };
let queue = [];
let timer = 0;
let total = Number(box?.dataset.total ?? 0);
let errors = Number(box?.dataset.errors ?? 0);
let phase = box?.dataset.phase ?? '';

function newStream(kind) { return { kind, text: '', element: null, at: '', style: PLAIN, offset: null }; }

const clock = () => new Date().toISOString().slice(11, 19);

const visible = (text) => {
  const shown = text.replace(/\r+$/, '').split('\r').at(-1);
  if (shown.length <= MAX_LINE_CHARACTERS) return shown;
  const hidden = (shown.length - MAX_LINE_CHARACTERS).toLocaleString('en');
  return `${shown.slice(0, MAX_LINE_CHARACTERS)} … and ${hidden} more characters, see the download`;
};

const lineElement = (kind, at) => {
  const line = document.createElement('div');
  line.className = 'ln';
  line.dataset.k = kind;
  const [time, mark, text] = ['i', 'b', 'span'].map((tag) => document.createElement(tag));
  time.textContent = at;
  mark.textContent = kind;
  line.append(time, mark, text);
  box.insertBefore(line, $('.ln.tail', box));
  total += 1;
  if (kind === 'err') errors += 1;
  return line;
};

/** Writes a line's text. A whole line moves the style on; an unfinished one is drawn again when more comes. */
const write = (stream, text, isWhole) => {
  stream.element ??= lineElement(stream.kind, clock());
  const [nodes, style] = nodesOf(visible(text), stream.style);
  stream.element.lastElementChild.replaceChildren(...nodes);
  if (isWhole) { stream.style = style; stream.element = null; }
};

const take = (stream, { offset, next_offset: next, text }) => {
  if (stream.offset !== null && next <= stream.offset) return; // seen before
  if (stream.offset !== null && offset > stream.offset) note(`${(offset - stream.offset).toLocaleString('en')} bytes are not kept`);
  stream.offset = next;
  const lines = (stream.text + text).split('\n');
  stream.text = lines.pop();
  lines.forEach((line) => write(stream, line, true));
  if (stream.text) write(stream, stream.text, false);
};

const note = (text) => {
  const line = lineElement('sys', clock());
  line.lastElementChild.textContent = text;
};

const trim = () => {
  const lines = $$('.ln:not(.tail)', box);
  lines.slice(0, Math.max(0, lines.length - MAX_LINES)).forEach((line) => line.remove());
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
  const work = queue;
  queue = [];
  work.forEach((run) => run());
  trim();
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

const onDone = (source, state) => {
  source.close();
  setConnection('ok');
  soon(() => { Object.values(streams).forEach((stream) => { if (stream.text) write(stream, stream.text, true); }); $('.ln.tail', box)?.remove(); });
  say(`The job ended: ${state.status.toLowerCase()}`);
};

const follow = () => {
  const source = new EventSource(`${box.dataset.streamUrl}?after=${encodeURIComponent(box.dataset.after)}`);
  box.dataset.after.split(',').forEach((part) => { const [name, offset] = part.split(':'); streams[name].offset = Number(offset); });
  ['stdout', 'stderr'].forEach((name) => source.addEventListener(name, (event) => soon(() => take(streams[name], JSON.parse(event.data)))));
  source.addEventListener('status', (event) => onStatus(JSON.parse(event.data)));
  source.addEventListener('done', (event) => onDone(source, JSON.parse(event.data)));
  source.addEventListener('expired', () => { source.close(); location.reload(); });
  source.onopen = () => setConnection('ok');
  source.onerror = () => {
    setConnection('warn');
    if (source.readyState !== EventSource.CLOSED) return;
    box.dataset.after = Object.entries(streams).map(([name, stream]) => `${name}:${stream.offset}`).join(',');
    setTimeout(follow, 3000);
  };
  addEventListener('pagehide', () => source.close());
};

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
