// What every page needs. Nothing is written inline anywhere, so the strict Content-Security-Policy holds.
import { $, $$, onReady, toast } from './dom.js';
import { gateAll } from './actions.js';
import { refreshTimes } from './times.js';
import { start } from './live.js';
import './keys.js';

onReady(() => {
  refreshTimes();
  gateAll();
  const events = $('meta[name="hb-events"]')?.content;
  if (events) start(events);
  $('[aria-invalid="true"]')?.focus();
});
document.addEventListener('hb:toast', (event) => toast(event.detail.kind, event.detail.title, event.detail.detail));
document.addEventListener('htmx:after:swap', () => {
  refreshTimes();
  $$('.field-note').forEach((note) => { // what the server said about a value, for screen readers too
    const input = $('.input, .select, .textarea', note.parentElement);
    if (note.querySelector('.field-err')) input?.setAttribute('aria-invalid', 'true'); else input?.removeAttribute('aria-invalid');
  });
});
document.addEventListener('toggle', (event) => {
  if (event.target.id === 'sheet' && event.newState === 'open') $$('a', event.target)[0]?.focus();
}, { capture: true });
