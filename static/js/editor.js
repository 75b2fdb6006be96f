// The preset editor: line numbers beside the text, marks on the lines with findings, and the way from a finding to its line.
// Without JavaScript it is a text field and a form.
import { $, $$, onReady } from './dom.js';
import { actions } from './actions.js';

const SEVERITY = ['info', 'warn', 'crit'];
const text = $('#text');
const gutter = $('#lines');
let saved = text?.value ?? '';

/** The worst finding of each line. */
const marks = () => {
  const found = new Map();
  $$('.findings [data-s][data-line]').forEach((item) => {
    const line = Number(item.dataset.line);
    const worst = Math.max(SEVERITY.indexOf(found.get(line)), SEVERITY.indexOf(item.dataset.s));
    found.set(line, SEVERITY[worst]);
  });
  return found;
};

const draw = () => {
  const found = marks();
  const count = text.value.split('\n').length;
  gutter.replaceChildren(...Array.from({ length: count }, (_, index) => {
    const line = document.createElement('span');
    line.textContent = index + 1;
    if (found.has(index + 1)) line.dataset.s = found.get(index + 1);
    return line;
  }));
  gutter.scrollTop = text.scrollTop;
};

const lineHeight = () => parseFloat(getComputedStyle(text).lineHeight);

actions.goto = (button) => {
  const line = Number(button.dataset.line);
  const lines = text.value.split('\n');
  const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
  const at = start + Math.min(Math.max(Number(button.dataset.column) - 1, 0), (lines[line - 1] ?? '').length);
  text.focus();
  text.setSelectionRange(at, at);
  text.scrollTop = Math.max(0, (line - 6) * lineHeight());
};

/** A new line begins where the one before it did, so that a block of YAML stays one. */
const indent = (event) => {
  if (event.key !== 'Enter' || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  const line = text.value.slice(0, text.selectionStart).split('\n').at(-1);
  const blanks = line.match(/^ */)[0];
  if (!blanks) return;
  event.preventDefault();
  document.execCommand('insertText', false, `\n${blanks}`); // the one way that keeps undo
};

onReady(() => {
  if (!text) return;
  draw();
  text.addEventListener('input', draw);
  text.addEventListener('scroll', () => { gutter.scrollTop = text.scrollTop; }, { passive: true });
  text.addEventListener('keydown', indent);
  document.addEventListener('htmx:after:swap', draw);
  $('#editor').addEventListener('submit', () => { saved = text.value; });
  addEventListener('beforeunload', (event) => { if (text.value !== saved) event.preventDefault(); });
});
