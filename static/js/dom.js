// Small helpers that every module uses.
export const $ = (selector, within = document) => within.querySelector(selector);
export const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
export const root = document.documentElement;

/** Marks a toggle button as pressed or not. */
export const press = (button, on) => button?.setAttribute('aria-pressed', String(Boolean(on)));

/** Tells screen readers, politely. */
export const say = (text) => { const box = $('#say'); if (box) box.textContent = text; };

/** Shows a short message. Errors stay until they are dismissed. */
export const toast = (kind, title, detail = '') => {
  const box = $('.toasts');
  const template = $('#toast-template');
  if (!box || !template) return;
  const item = template.content.firstElementChild.cloneNode(true);
  item.dataset.s = kind;
  $$('.ico[data-kind]', item).forEach((icon) => { if (icon.dataset.kind !== kind) icon.remove(); });
  $('strong', item).textContent = title;
  $('p', item).textContent = detail;
  box.append(item);
  if (kind !== 'crit') setTimeout(() => item.remove(), 6000);
};

export const onReady = (run) => {
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', run, { once: true }); else run();
};
