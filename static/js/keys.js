// Keyboard: "/" search, "?" help, g and a letter, Ctrl/Cmd+K, arrows in the map and in the palette.
import { $, $$ } from './dom.js';
import { filterList, openDialog } from './actions.js';

const OFF = 'hb_single_keys_off';
let chordAt = 0;
const links = () => $$('#palette li:not([hidden]) a');

const select = (index) => {
  const all = links();
  all.forEach((link, n) => link.setAttribute('aria-selected', String(n === index)));
  all[index]?.scrollIntoView({ block: 'nearest' });
};

const inPalette = (event) => {
  const all = links();
  const at = all.findIndex((link) => link.getAttribute('aria-selected') === 'true');
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    event.preventDefault();
    select((at + (event.key === 'ArrowDown' ? 1 : -1) + all.length) % all.length);
  }
  if (event.key === 'Enter' && all[at]) { event.preventDefault(); all[at].click(); }
};

const inMap = (event) => { // a thousand cells are one tab stop
  const cells = $$('a', event.target.closest('.heat'));
  const at = cells.indexOf(event.target);
  const perRow = Math.floor(event.target.closest('.heat').clientWidth / 24);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow }[event.key];
  const next = cells[at + step];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
};

const single = (event) => {
  if (event.key === '/') {
    event.preventDefault();
    const search = $('[data-search]');
    if (search) { search.focus(); search.select(); } else { openDialog('palette'); }
  } else if (event.key === '?') {
    openDialog('help');
  } else if (event.key === 'g') {
    chordAt = Date.now();
  } else if (Date.now() - chordAt < 1200) {
    chordAt = 0;
    $(`[data-go="${CSS.escape(event.key)}"]`)?.click();
  }
};

document.addEventListener('keydown', (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === 'k') {
    event.preventDefault();
    openDialog('palette');
    return;
  }
  if ($('#palette')?.open) { inPalette(event); return; }
  if (event.target.closest?.('.heat') && event.key.startsWith('Arrow')) { inMap(event); return; }
  const isTyping = event.target.matches('input, textarea, select, [contenteditable]');
  if (localStorage.getItem(OFF) || isTyping || event.ctrlKey || event.metaKey || event.altKey || $('dialog:modal')) return;
  single(event);
});

/* Whoever speaks to their computer, or hits keys by chance, turns single keys off. */
const singleKeys = $('[data-single-keys]');
if (singleKeys) singleKeys.checked = !localStorage.getItem(OFF);
singleKeys?.addEventListener('change', () => {
  if (singleKeys.checked) localStorage.removeItem(OFF); else localStorage.setItem(OFF, '1');
});

const palette = $('#palette');
palette?.addEventListener('hb:open', () => select(0));
palette?.addEventListener('input', () => select(0));
document.addEventListener('htmx:after:swap', () => {
  const input = $('#palette-q');
  if (!palette?.open || !input) return;
  filterList(input);
  select(0);
});
