// Relative times: one timer for the page. The server renders the same words, so nothing jumps.
import { $$ } from './dom.js';

const UNITS = [[60, 1, 's'], [3600, 60, 'min'], [86400, 3600, 'h'], [Infinity, 86400, 'd']];

export const relative = (seconds) => {
  const [, size, unit] = UNITS.find(([limit]) => seconds < limit);
  return `${Math.floor(seconds / size)}\u00a0${unit}`;
};

/** What remains, rounded: a moment after they began, seven days are still 7 d. */
export const left = (seconds) => {
  const ranks = [[86400, 3600, 'd'], [3600, 60, 'h'], [60, 1, 'min']];
  const [size, , unit] = ranks.find(([size, smaller]) => Math.round(seconds / smaller) * smaller >= size) || [1, 1, 's'];
  return `${Math.max(0, Math.round(seconds / size))}\u00a0${unit}`;
};

/** Rewrites each <time data-rel> ("3 s ago") and <time data-for> ("1 min 12 s", counting up). */
export const refreshTimes = (within = document) => {
  const now = Date.now();
  $$('time[data-rel]', within).forEach((time) => {
    const seconds = (now - Date.parse(time.dateTime)) / 1000;
    if (seconds >= 86400) return; // the server has written the date
    const isNow = seconds > -1 && seconds < 1;
    time.textContent = isNow ? 'now' : seconds < 0 ? `in ${left(-seconds)}` : `${relative(seconds)} ago`;
  });
  $$('time[data-for]', within).forEach((time) => {
    const total = Math.max(0, Math.floor((now - Date.parse(time.dateTime)) / 1000));
    const [h, min, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
    const parts = h ? [`${h}\u00a0h`, `${min}\u00a0min`] : min ? [`${min}\u00a0min`, `${s}\u00a0s`] : [`${s}\u00a0s`];
    time.textContent = parts.join(' ');
  });
};

setInterval(() => { if (!document.hidden) refreshTimes(); }, 15000);
setInterval(() => { if (!document.hidden && document.querySelector('time[data-for]')) refreshTimes(); }, 1000);
