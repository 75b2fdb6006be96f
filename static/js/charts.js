// Charts: the server draws the SVG; uPlot takes its place to add the readout under the pointer.
import { $, $$, onReady } from './dom.js';

const resize = new ResizeObserver((entries) => entries.forEach(({ target }) => {
  target.hbPlot?.setSize({ width: target.clientWidth, height: target.clientHeight });
}));

const colour = (element, name) => {
  element.style.color = `var(--${name})`;
  const value = getComputedStyle(element).color;
  element.style.color = '';
  return value;
};
const faded = (value) => value.replace('rgb(', 'rgba(').replace(')', ', .1)');

const clock = (seconds, isLong) => {
  const when = new Date(seconds * 1000);
  const time = when.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', timeZone: 'UTC' });
  return isLong ? `${when.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', timeZone: 'UTC' })} ${time}` : time;
};

const readout = (tip, plot, data) => {
  const at = plot.cursor.idx;
  tip.hidden = at == null || plot.cursor.left < 0;
  if (tip.hidden) return;
  const parts = data.series.flatMap((series, n) => {
    const value = document.createElement('b');
    const number = plot.data[n + 1][at];
    value.textContent = number == null ? '–' : `${number}\u00a0%`;
    return [` · ${series.label} `, value];
  });
  tip.replaceChildren(clock(plot.data[0][at], data.long), ...parts);
  const width = plot.root.clientWidth;
  tip.style.left = `${Math.min(plot.cursor.left + 52, width - tip.offsetWidth - 8)}px`;
};

const drawLimit = (plot, limit, stroke) => {
  const { ctx, bbox } = plot;
  const y = plot.valToPos(limit, 'y', true);
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
};

const options = (element, data, tip) => {
  const limit = Number(element.dataset.limit ?? 0);
  const axis = { stroke: colour(element, 'ink-3'), font: '11px Geist, sans-serif', grid: { stroke: colour(element, 'grid'), width: 1 }, ticks: { show: false } };
  const series = data.series.map(({ key, label, filled }) => ({
    label, stroke: colour(element, key), fill: filled ? faded(colour(element, key)) : undefined,
    width: 1.75, dash: key === 'mem' ? [5, 3] : undefined, points: { show: data.t.length < 4, size: 4 }, spanGaps: false,
  }));
  return {
    width: element.clientWidth, height: element.clientHeight, padding: [8, 4, 0, 0],
    legend: { show: false }, cursor: { y: false, points: { size: 6 } }, scales: { x: { range: () => data.span }, y: { range: [0, 100] } },
    axes: [
      { ...axis, grid: { show: false }, space: 90, size: 26, values: (_, ticks) => ticks.map((tick) => clock(tick, data.long)) },
      { ...axis, size: 46, splits: () => [0, 25, 50, 75, 100], values: (_, ticks) => ticks.map((tick) => `${tick} %`) },
    ],
    series: [{}, ...series],
    hooks: { setCursor: [(plot) => readout(tip, plot, data)], draw: limit ? [(plot) => drawLimit(plot, limit, colour(element, 'warn'))] : [] },
  };
};

const draw = (element) => {
  const source = $('script[type="application/json"]', element);
  if (!window.uPlot || !source) return;
  const data = JSON.parse(source.textContent);
  if (!data.t.length) return;
  element.hbPlot?.destroy();
  const tip = document.createElement('div');
  tip.className = 'chart-tip';
  tip.hidden = true;
  const plot = new window.uPlot(options(element, data, tip), [data.t, ...data.series.map((series) => series.data)], element);
  plot.root.append(tip);
  plot.root.classList.add('has-tip');
  element.dataset.ready = '';
  element.hbPlot = plot;
  resize.observe(element);
};

const drawAll = (within = document) => $$('[data-chart]', within).forEach(draw);
onReady(() => drawAll());
document.addEventListener('hb:theme', () => drawAll());
document.addEventListener('hb:replaced', (event) => drawAll(event.detail));
document.addEventListener('htmx:after:swap', () => drawAll());
