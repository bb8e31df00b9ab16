"use strict";
/* Drawing: elements, scales, lines with intervals, bars, maps. All sizes are CSS pixels. */

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7a7a7a"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "5 5", "12 4", "1 4", "4 2"];

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "rect", "text", "g", "title", "polygon"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter(c => c !== null && c !== undefined).map(c => (c instanceof Node ? c : String(c))));
  return node;
}

const finite = v => typeof v === "number" && Number.isFinite(v);

function shown(value, digits = 3) {
  if (!finite(value)) return "";
  const size = Math.abs(value);
  if (size >= 1000) return value.toFixed(0);
  return size >= 100 ? value.toFixed(1) : size >= 10 ? value.toFixed(2) : value.toFixed(digits);
}

/* Round ticks that cover low..high. */
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(f => f * power).find(s => s >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(+(k * step).toPrecision(12));
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const f of [1, 2, 5]) if (f * 10 ** e >= low * 0.99 && f * 10 ** e <= high * 1.01) found.push(+(f * 10 ** e).toPrecision(3));
  return found.length > 6 ? found.filter(t => Math.abs(Math.log10(t) % 1) < 1e-9) : found;
}

function scale(low, high, from, to, log) {
  const f = log ? Math.log10 : v => v;
  const a = f(low), b = f(high) === a ? a + 1 : f(high);
  return v => from + (f(v) - a) / (b - a) * (to - from);
}

const MARKERS = [
  (x, y) => `M${x - 4} ${y}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0`,
  (x, y) => `M${x - 4} ${y - 4}h8v8h-8z`,
  (x, y) => `M${x} ${y - 5}l5 9h-10z`,
  (x, y) => `M${x} ${y - 5}l5 5l-5 5l-5 -5z`,
  (x, y) => `M${x} ${y + 5}l5 -9h-10z`,
];
const colour = i => COLOURS[i % COLOURS.length];
const marker = (i, x, y) => make("path", { d: MARKERS[i % MARKERS.length](x, y), fill: colour(i) });

function swatch(i) {
  const line = make("line", { x1: 0, x2: 30, y1: 8, y2: 8, stroke: colour(i), "stroke-width": 2, "stroke-dasharray": DASHES[i % DASHES.length] });
  return make("svg", { width: 30, height: 16, class: "swatch", "aria-hidden": "true" }, line, marker(i, 15, 8));
}

const legend = rows => make("div", { class: "legend" }, ...rows.map(r => make("span", {}, swatch(r.index), r.title)));

/* Frame with axes; returns the svg and both scales.
   axes: {width, height, x: {low, high, log, ticks, name, label}, y: the same}. */
function frame({ width, height, x, y, title }) {
  const every = y.ticks || (y.log ? logTicks(y.low, y.high) : ticks(y.low, y.high)), named = t => String(y.name ? y.name(t) : +t.toPrecision(4));
  const left = 30 + Math.max(24, ...every.map(t => 7 * named(t).length)), right = width - 18, top = 10, bottom = height - 40;
  const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const X = scale(x.low, x.high, left, right, x.log), Y = scale(y.low, y.high, bottom, top, y.log);
  for (const t of every) {
    svg.append(make("line", { x1: left, x2: right, y1: Y(t), y2: Y(t), stroke: "#e4e4e4" }));
    svg.append(make("text", { x: left - 6, y: Y(t) + 4, "text-anchor": "end" }, named(t)));
  }
  let last = -1e9;
  for (const t of x.ticks || (x.log ? logTicks(x.low, x.high) : ticks(x.low, x.high, Math.max(3, width / 90)).filter(t => !x.whole || Number.isInteger(t)))) {
    svg.append(make("line", { x1: X(t), x2: X(t), y1: bottom, y2: bottom + 4, stroke: "#555" }));
    const name = String(x.name ? x.name(t) : +t.toPrecision(4));
    if (X(t) - last < 7 * name.length + 6) continue;
    last = X(t);
    svg.append(make("text", { x: X(t), y: bottom + 17, "text-anchor": "middle" }, name));
  }
  svg.append(make("line", { x1: left, x2: right, y1: bottom, y2: bottom, stroke: "#555" }));
  svg.append(make("text", { x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, x.label));
  svg.append(make("text", { transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label));
  return { svg, X, Y, left, right, top, bottom };
}

/* Lines: series [{index, title, points: [[x, y, low, high], ...]}]; guide: a level to draw. */
function lines({ series, x, y, width, height = 320, guide, band, title }) {
  const all = series.flatMap(s => s.points), values = all.flatMap(p => p.slice(1)).filter(finite);
  if (!values.length) return null;
  const xs = all.map(p => p[0]);
  const low = y.low ?? Math.min(...values, guide ?? Infinity), high = y.high ?? Math.max(...values, guide ?? -Infinity);
  const margin = y.log ? 0 : (high - low) * 0.04 || 0.1;
  const axes = frame({ width, height, title,
    x: { low: Math.min(...xs), high: Math.max(...xs), ...x },
    y: { ...y, low: y.low ?? low - margin, high: y.high ?? high + margin } });
  const { svg, X, Y } = axes, inside = v => Math.max(axes.top, Math.min(axes.bottom, Y(v)));
  if (band) svg.append(make("rect", { x: axes.left, width: axes.right - axes.left, y: Y(band[1]), height: Y(band[0]) - Y(band[1]), fill: "#ededed" }));
  if (finite(guide)) svg.append(make("line", { x1: axes.left, x2: axes.right, y1: Y(guide), y2: Y(guide), stroke: "#333", "stroke-dasharray": "2 2" }));
  for (const s of series) {
    const drawn = s.points.filter(p => finite(p[1])), ranged = drawn.filter(p => finite(p[2]));
    if (ranged.length > 1) {
      const edge = [...ranged.map(p => [p[0], p[3]]), ...ranged.map(p => [p[0], p[2]]).reverse()];
      svg.append(make("polygon", { points: edge.map(p => `${X(p[0])},${inside(p[1])}`).join(" "), fill: colour(s.index), opacity: 0.15 }));
    }
    const path = drawn.map((p, n) => `${n ? "L" : "M"}${X(p[0]).toFixed(1)} ${inside(p[1]).toFixed(1)}`).join("");
    svg.append(make("path", { d: path, fill: "none", stroke: colour(s.index), "stroke-width": s.plain ? 1 : 2, "stroke-dasharray": s.plain ? "" : DASHES[s.index % DASHES.length] }));
    if (s.plain) continue;
    for (const p of drawn) {
      const range = finite(p[2]) ? ` (${shown(p[2])} to ${shown(p[3])})` : "";
      const at = marker(s.index, X(p[0]), inside(p[1]));
      at.append(make("title", {}, `${s.title}: ${shown(p[1])}${range}`));
      svg.append(at);
    }
  }
  return svg;
}

/* Bars of shares over the flat share; the line at 1 is a calibrated ensemble. */
function bars({ counts, index, width, height = 170, label, high }) {
  const total = counts.reduce((a, b) => a + b, 0), share = counts.map(c => c / total * counts.length);
  const n = counts.length;
  const axes = frame({ width, height, title: "rank histogram", x: { low: -0.5, high: n - 0.5, ticks: ticks(0, n - 1, 4).filter(Number.isInteger), label }, y: { low: 0, high, label: "share" } });
  const step = (axes.right - axes.left) / n;
  share.forEach((v, k) => {
    const y = Math.max(axes.top, axes.Y(v));
    const bar = make("rect", { x: axes.left + k * step + step * 0.06, width: step * 0.88, y, height: axes.bottom - y, fill: colour(index) });
    bar.append(make("title", {}, `rank ${k}: ${v.toFixed(2)} of the flat share`));
    axes.svg.append(bar);
  });
  axes.svg.append(make("line", { x1: axes.left, x2: axes.right, y1: axes.Y(1), y2: axes.Y(1), stroke: "#222", "stroke-dasharray": "4 3" }));
  return axes.svg;
}

const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const DIVERGING = [[0, 83, 143], [64, 144, 194], [163, 204, 228], [247, 247, 247], [246, 192, 150], [224, 123, 57], [166, 69, 0]];

function palette(stops, share) {
  const at = Math.max(0, Math.min(1, share)) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
  return stops[k].map((v, c) => Math.round(v + (stops[k + 1][c] - v) * (at - k)));
}

/* Black or white text, whichever is read better on a colour (relative luminance, WCAG 2). */
function ink(rgb) {
  const [r, g, b] = rgb.map(v => (v / 255) ** 2.2), light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff";
}

function unpack(field) {
  const bytes = Uint8Array.from(atob(field.data), c => c.charCodeAt(0));
  const last = field.missing ? 254 : 255;
  return Array.from(bytes, b => (b > last ? NaN : field.low + b / last * (field.high - field.low)));
}

const MISSING = [205, 205, 205];

/* A map: values (H, W) rows by latitude; the coast is where land passes one half. */
function map({ field, grid, low, high, stops, log, width }) {
  const [rows, columns] = field.shape, values = unpack(field), height = Math.round(width / 2);
  const canvas = make("canvas", { width: width * 2, height: height * 2, role: "img", "aria-label": "map" });
  canvas.style.width = `${width}px`;
  const context = canvas.getContext("2d"), north = grid.latitude[0] > grid.latitude[rows - 1];
  const edges = rowEdges(grid.latitude).map(l => (90 - l) / 180 * height * 2), step = width * 2 / columns;
  const top = r => Math.round(Math.min(edges[r], edges[r + 1])), tall = r => Math.round(Math.max(edges[r], edges[r + 1])) - top(r);
  const share = scale(low, high, 0, 1, log), column = c => (c + Math.floor(columns / 2)) % columns;
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const value = values[r * columns + column(c)], rgb = finite(value) ? palette(stops, share(value)) : MISSING;
    context.fillStyle = `rgb(${rgb})`;
    context.fillRect(Math.floor(c * step), top(r), Math.ceil(step), tall(r));
  }
  if (field.p) dots(context, unpack(field.p), rows, columns, column, top, tall, step);
  if (grid.land) coast(context, unpack(grid.land), rows, columns, column, top, tall, step, north, stops === VIRIDIS);
  return canvas;
}

/* Dots where a map's p-value is below 5 %. */
function dots(context, p, rows, columns, column, top, tall, step) {
  context.fillStyle = "rgba(0,0,0,.8)";
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++)
    if (p[r * columns + column(c)] < 0.05) context.fillRect(c * step + step / 2 - 1.2, top(r) + tall(r) / 2 - 1.2, 2.4, 2.4);
}

function rowEdges(latitude) {
  const inner = latitude.slice(1).map((l, k) => (l + latitude[k]) / 2), pole = latitude[0] > latitude[1] ? 90 : -90;
  return [pole, ...inner, -pole];
}

function coast(context, land, rows, columns, column, top, tall, step, north, light) {
  context.strokeStyle = light ? "rgba(255,255,255,.8)" : "rgba(0,0,0,.75)";
  context.lineWidth = 1.6;
  context.beginPath();
  const dry = (r, c) => land[r * columns + column((c + columns) % columns)] > 0.5;
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const x = c * step, y = top(r), below = north ? r + 1 : r - 1;
    if (c + 1 < columns && dry(r, c) !== dry(r, c + 1)) { context.moveTo(x + step, y); context.lineTo(x + step, y + tall(r)); }
    if (below >= 0 && below < rows && dry(r, c) !== dry(below, c)) { context.moveTo(x, y + tall(r)); context.lineTo(x + step, y + tall(r)); }
  }
  context.stroke();
}

function colourBar(stops, low, high, units, missing) {
  const css = stops.map((s, k) => `rgb(${s}) ${100 * k / (stops.length - 1)}%`).join(",");
  const bar = make("span", { class: "bar", style: `background:linear-gradient(90deg,${css})` });
  const none = missing ? make("span", {}, make("span", { class: "none" }), "no value") : null;
  return make("div", { class: "key" }, low, bar, `${high} ${units}`.trim(), none);
}
