// The live page: filters what is shown, what is there and what comes.
import { $, $$, press } from './dom.js';

const isHidden = (item) => {
  const kind = item.classList[0];
  if ($(`[data-feed-kind="${kind}"]`)?.getAttribute('aria-pressed') === 'false') return true;
  const words = ($('[data-feed-filter]')?.value ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  const text = item.textContent.toLowerCase();
  return !words.every((word) => text.includes(word));
};

const apply = (items) => items.forEach((item) => { item.hidden = isHidden(item); });
const applyAll = () => apply($$('#feed > li'));

document.addEventListener('input', (event) => { if (event.target.matches('[data-feed-filter]')) applyAll(); });
document.addEventListener('click', (event) => {
  const chip = event.target.closest('[data-feed-kind]');
  if (!chip) return;
  press(chip, chip.getAttribute('aria-pressed') === 'false');
  applyAll();
});
document.addEventListener('hb:lines', (event) => apply([...event.detail.children]));
