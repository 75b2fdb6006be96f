// Live updates: one EventSource per tab. The server sends ready, escaped HTML fragments with an id.
// They are merged by id (the newest wins) and applied at most 4 times a second, never while the tab is
// hidden or the page is paused, and never under the keyboard focus.
import { $, $$, press, say } from './dom.js';
import { actions } from './actions.js';
import { refreshTimes } from './times.js';

const FLUSH_MS = 250;
const MAX_LINES = 500;
const ASK_MS = 5000;

const queue = new Map();
const lines = [];
const changed = new Set(); // lists in which something changed that they do not show
let isPaused = false;
let wasLost = false;
let timer = 0;
let source = null;
let hasAsked = false; // a short while ago
let lastDataAt = new Date();

export const setConnection = (state) => {
  const isUp = state === 'ok';
  $$('.conn').forEach((mark) => { mark.dataset.s = state; mark.textContent = isUp ? 'Live' : 'Reconnecting'; });
  $$('[data-live]').forEach((part) => part.classList.toggle('is-stale', !isUp));
  const banner = $('#lost');
  if (!banner) return;
  banner.hidden = isUp;
  const since = $('time', banner);
  if (!isUp && since) since.textContent = `${lastDataAt.toISOString().slice(11, 19)} UTC`;
};

const soon = () => {
  if (!timer) timer = setTimeout(() => { timer = 0; requestAnimationFrame(flush); }, FLUSH_MS);
};

/** Replaces the element with this id, unless it holds the focus or text is selected in it. */
const replace = (id, html) => {
  const element = document.getElementById(id);
  if (!element) return true;
  if (element.contains(document.activeElement)) return false;
  const template = document.createElement('template');
  template.innerHTML = html;
  const next = template.content.firstElementChild;
  if (!next) { element.remove(); return true; }
  if (element.matches('.heat > a')) next.tabIndex = element.tabIndex; // a group stays one tab stop
  element.replaceWith(next);
  window.htmx?.process(next);
  refreshTimes(next);
  document.dispatchEvent(new CustomEvent('hb:replaced', { detail: next }));
  return true;
};

/** Takes a fragment over at the next flush. */
export const apply = (id, html) => { lastDataAt = new Date(); queue.set(id, html); soon(); };

/**
 * Says how many rows the list would show that it does not show now. What changed may belong to another page or fit no
 * filter, which only the server knows, so it is asked, every few seconds at most.
 */
const countNew = async () => {
  if (!changed.size || hasAsked) return;
  hasAsked = true;
  const lists = [...changed].map((name) => $(`[data-new="${CSS.escape(name)}"]`)).filter(Boolean);
  changed.clear();
  for (const button of lists) {
    const rows = await rowsOf(button);
    if (!rows || !button.isConnected) continue; // filtered anew meanwhile
    const count = rows.filter((id) => !document.getElementById(id)).length;
    button.hidden = !count;
    $('b', button).textContent = count;
  }
  setTimeout(() => { hasAsked = false; soon(); }, ASK_MS);
};

/** The ids of the rows that a list has by now; null when it cannot be had. */
const rowsOf = async (button) => {
  try {
    const answer = await fetch(button.href, { headers: { 'HX-Request': 'true' }, credentials: 'same-origin' });
    if (!answer.ok || answer.redirected) return null;
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const list = $(`[data-new="${CSS.escape(button.dataset.new)}"]`, page)?.parentElement;
    return list ? $$('[data-live][id]', list).map((row) => row.id) : null;
  } catch { return null; }
};

const prepend = () => {
  const box = $('[data-stream="prepend"]');
  if (!box || !lines.length) { lines.length = 0; return; }
  const template = document.createElement('template');
  template.innerHTML = lines.splice(0).reverse().join('');
  document.dispatchEvent(new CustomEvent('hb:lines', { detail: template.content }));
  box.prepend(template.content);
  while (box.children.length > MAX_LINES) box.lastElementChild.remove();
};

export const flush = () => {
  const badge = $('[data-waiting]');
  if (badge) { badge.hidden = !isPaused; badge.textContent = queue.size + lines.length; }
  if (isPaused || document.hidden) return;
  for (const [id, html] of queue) if (replace(id, html)) queue.delete(id);
  countNew();
  prepend();
};

/** After a lost connection: fetch this page again and take over its live parts. */
const resync = async () => {
  try {
    const answer = await fetch(location.href, { headers: { 'X-Resync': '1' }, credentials: 'same-origin' });
    if (!answer.ok || answer.redirected) { if (answer.redirected) location.reload(); return; }
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    page.querySelectorAll('[data-live]').forEach((part) => { if (part.id) queue.set(part.id, part.outerHTML); });
    flush();
  } catch { /* the next reconnect tries again */ }
};

const onFragment = (event) => {
  const { id, html, list } = JSON.parse(event.data);
  lastDataAt = new Date();
  if (list && !document.getElementById(id)) {
    changed.add(list);
  } else {
    queue.set(id, html);
  }
  soon();
};

const onLine = (event) => {
  lastDataAt = new Date();
  lines.push(JSON.parse(event.data).html);
  if (lines.length > MAX_LINES) lines.shift();
  soon();
};

let isLeaving = false;
addEventListener('submit', (event) => { isLeaving = !event.defaultPrevented; });

/** The login has ended. Who is signing out gets to where that leads; a reload would overtake it. */
export const onExpired = () => setTimeout(() => location.reload(), isLeaving ? 5000 : 0);

export const start = (url) => {
  source = new EventSource(url);
  source.addEventListener('fragment', onFragment);
  source.addEventListener('line', onLine);
  source.addEventListener('resync', resync);
  source.addEventListener('expired', () => { source.close(); onExpired(); });
  source.onopen = () => {
    setConnection('ok');
    if (wasLost) { say('Live again'); resync(); }
    wasLost = false;
  };
  source.onerror = () => {
    if (!wasLost) say('Live connection lost, reconnecting');
    wasLost = true;
    setConnection('warn');
    // A refused stream is not retried by the browser: 401 after signing out, 503 when the server is full.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => start(url), 5000);
  };
};
addEventListener('pagehide', () => source?.close());

actions.pause = (button) => { isPaused = !isPaused; press(button, isPaused); flush(); };
document.addEventListener('visibilitychange', flush);
document.addEventListener('focusout', () => { if (queue.size) soon(); });
addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
