// A chart of the last minutes: lines over time, and beside its title what they are now, or where the pointer is.

import { element, setText } from "./dom.mjs";
import { clock } from "./format.mjs";

/** The most seconds that a chart shows, and the fewest. */
export const SPAN = 300;
const SPAN_MIN = 60;

const HEIGHT = 168;

/** Pixels beside the plot for half of the last time below it. */
const RIGHT = 28;

/** Amounts: from zero, with room above the highest point, and an axis also where all is zero. */
export const AMOUNTS = { scale: { range: (self, from, to) => [0, to > 0 ? to * 1.12 : 4] }, filter: (self, marks) => marks };

/** Times, of which some are a thousand times as long as others: powers of ten. */
export const TIMES = {
  scale: { distr: 3, range: (self, from, to) => [10 ** Math.floor(Math.log10(from ?? 1e-3)), 10 ** Math.ceil(Math.log10(to ?? 1e-1))] },
  filter: (self, marks) => marks.map((mark) => (Number.isInteger(Math.round(Math.log10(mark) * 1e9) / 1e9) ? mark : null)),
};

/** The seconds that are shown of points from `from` to `to`, both null before the first one: then those that end now. */
export function shown(from, to) {
  const end = to ?? Date.now() / 1000;
  return [Math.max(end - SPAN, Math.min(from ?? end, end - SPAN_MIN)), end];
}

/** A chart in a figure of the page: `lines` are the classes of its keys, `show` writes a value, `kind` is one of those above. */
export function chart(figure, lines, kind, show) {
  const place = figure.querySelector(".plot");
  const keys = lines.map((line) => figure.querySelector(`.key.${line}`));
  const when = figure.querySelector(".when");
  const styleOf = (key, property) => () => getComputedStyle(key)[property];
  // A probe for each colour, since a canvas cannot read those of the style sheet.
  const probes = ["ink", "grid"].map((name) => place.appendChild(element("i", { class: `probe ${name}` })));
  const [ink, grid] = probes.map((probe) => styleOf(probe, "color"));
  const axis = { stroke: ink, font: `11px ${getComputedStyle(figure).fontFamily}`, ticks: { show: false } };
  const plot = new globalThis.uPlot(
    {
      width: 300,
      height: HEIGHT,
      padding: [8, RIGHT, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: {
        x: { range: (self, from, to) => shown(from, to) },
        y: kind.scale,
      },
      axes: [
        { ...axis, grid: { show: false }, space: 70, size: 24, values: (self, times) => times.map((time) => clock(time * 1000).slice(0, time % 60 === 0 ? 5 : 8)) },
        { ...axis, grid: { stroke: grid, width: 1, filter: kind.filter }, filter: kind.filter, space: 32, size: 58, values: (self, values) => values.map((value) => (value === null ? "" : show(value))) },
      ],
      series: [{}, ...keys.map((key) => ({
        stroke: styleOf(key, "color"),
        fill: styleOf(key, "outlineColor"),
        width: 1.5,
        points: { show: false },
      }))],
      hooks: { setCursor: [label], setData: [label] },
    },
    [[], ...lines.map(() => [])],
    place,
  );

  function label(self) {
    const at = self.cursor.idx ?? null;
    const point = at ?? self.data[0].length - 1;
    keys.forEach((key, index) => setText(key.querySelector("output"), show(self.data[index + 1][point] ?? null)));
    setText(when, at === null ? "" : clock(self.data[0][at] * 1000).slice(0, 8));
  }

  new ResizeObserver(([{ contentRect }]) => plot.setSize({ width: Math.floor(contentRect.width), height: HEIGHT })).observe(place);
  return {
    /** Draws these points: times in seconds, then the values of each line; null is a gap. */
    draw: (times, ...values) => plot.setData([times, ...values]),
    /** Draws again, in the colours of now. */
    recolour: () => plot.redraw(false, true),
  };
}
