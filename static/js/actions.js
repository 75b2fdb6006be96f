// Buttons that only the browser can serve: theme, dialogs, copying. Each is a link or a form without JavaScript.
import { $, $$, press, root, say, toast } from './dom.js';

const NEXT_THEME = { undefined: 'dark', dark: 'light', light: 'auto' };

/** auto -> dark -> light; the cookie lets the server render the right one next time. */
const setTheme = (value) => {
  if (value === 'auto') delete root.dataset.theme; else root.dataset.theme = value;
  const secure = location.protocol === 'https:' ? ';secure' : '';
  document.cookie = `hb_theme=${value};path=/;max-age=31536000;samesite=lax${secure}`;
  $$('[data-theme-name]').forEach((name) => { name.textContent = value; });
  say(`Theme: ${value}`);
  document.dispatchEvent(new Event('hb:theme'));
};
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => document.dispatchEvent(new Event('hb:theme')));

export const openDialog = (id) => {
  const dialog = document.getElementById(id);
  if (dialog && !dialog.open) { dialog.showModal(); dialog.dispatchEvent(new Event('hb:open')); }
};

const copy = async (button) => {
  const source = document.getElementById(button.dataset.from);
  const lines = [...source.querySelectorAll('.l')];
  const text = lines.length ? lines.map((line) => line.textContent).join('\n') : source.textContent.trim();
  try {
    await navigator.clipboard.writeText(text);
    toast('ok', 'Copied');
  } catch {
    getSelection().selectAllChildren(source);
    toast('warn', 'Press Ctrl+C to copy', 'This browser blocks access to the clipboard.');
  }
};

/** Whether a box of a picker stands for something with this tag, or in a group of this name. */
const has = (box, tag) => box.dataset.group === tag || (box.dataset.tags || '').split(' ').includes(tag);

/** All that the search leaves, or those of them with the button's tag; none when they are all chosen. */
const selectAll = (button) => {
  const boxes = $$('input[type=checkbox]:not(:disabled)', document.getElementById(button.dataset.id))
    .filter((box) => !box.closest('li')?.hidden && (!button.dataset.tag || has(box, button.dataset.tag)));
  const on = !boxes.every((box) => box.checked);
  boxes.forEach((box) => { box.checked = on; });
  boxes[0]?.dispatchEvent(new Event('change', { bubbles: true }));
};

export const actions = {
  theme: () => setTheme(NEXT_THEME[root.dataset.theme]),
  open: (button) => openDialog(button.dataset.id),
  close: (button) => button.closest('dialog').close(),
  dismiss: (button) => button.closest('.toast, .notice').remove(),
  reload: () => location.reload(),
  copy,
  'select-all': selectAll,
};

document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  const run = button && actions[button.dataset.act];
  if (run) { event.preventDefault(); run(button); return; }
  const isBackdrop = event.target.matches('dialog[data-modal]');
  if (isBackdrop) event.target.close();
});

document.addEventListener('keydown', (event) => { // what looks like a button is one: links do not hear the space bar
  if (event.key !== ' ' || !event.target.matches?.('a[role="button"]')) return;
  event.preventDefault();
  event.target.click();
});

/* A form that was sent once is not sent twice; the button shows that the server is at work. */
document.addEventListener('submit', (event) => {
  if (event.defaultPrevented || event.target.method !== 'post') return;
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = '1';
  event.submitter?.setAttribute('aria-busy', 'true');
});
addEventListener('pageshow', () => $$('form[data-sent]').forEach((form) => {
  delete form.dataset.sent;
  $$('[aria-busy]', form).forEach((button) => button.removeAttribute('aria-busy'));
}));

/* Typed confirmation: the server checks the text again. */
const gate = (input) => {
  const button = $('[data-gate]', input.form) ?? [...input.form.elements].find((element) => element.matches('[data-gate]'));
  if (button) button.disabled = input.value.trim() !== input.dataset.confirm;
};
document.addEventListener('input', (event) => {
  if (event.target.dataset.confirm) gate(event.target);
  if (event.target.matches('[data-filter]')) filterList(event.target);
});
export const gateAll = () => $$('[data-confirm]').forEach(gate);

/* Filter the rows of a list that is already here. */
export const filterList = (input) => {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  $$('li:not(.h)', document.getElementById(input.dataset.filter)).forEach((item) => {
    const text = item.textContent.toLowerCase();
    item.hidden = !words.every((word) => text.includes(word));
  });
};

/* Pickers say how many are chosen. */
document.addEventListener('change', (event) => {
  const picker = event.target.closest('[data-count]');
  if (!picker) return;
  const count = $$('input:checked', picker).length;
  $$(`[data-count-for="${picker.id}"]`).forEach((element) => { element.textContent = count; });
  $$('[data-act="select-all"][data-tag]').forEach((chip) => {
    const boxes = $$(`input[type=checkbox]`, picker).filter((box) => has(box, chip.dataset.tag));
    press(chip, boxes.length && boxes.every((box) => box.checked));
  });
});

/* Selects that act at once (sorting, filters); a submit button does it without JavaScript. */
document.addEventListener('change', (event) => {
  if (event.target.matches('[data-submit]')) event.target.form.requestSubmit();
});

/* Leaving with a secret that is shown only once needs a yes. */
addEventListener('beforeunload', (event) => {
  const reveal = $('[data-once]');
  if (reveal && !reveal.dataset.saved) event.preventDefault();
});
document.addEventListener('click', (event) => {
  if (event.target.closest('[data-saved-it]')) $('[data-once]').dataset.saved = '1';
}, { capture: true });
