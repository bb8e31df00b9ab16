"use strict";
/* The leaderboard: one protocol at a time; every section is drawn only where its rows have data. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const LOWER = ["crps", "rmse", "spectrum_error", "histogram_distance"], HIGHER = ["acc"];
const state = { protocol: 0, metric: "", label: "", setting: 0, reference: 0, sort: null };

const board = () => DATA.protocols[state.protocol];
const scores = (row, metric = state.metric, label = state.label) => row.scores[metric]?.[label] || [];
const bounds = row => row.bounds[state.metric]?.[state.label] || [];
const wide = (most = 620) => Math.max(280, Math.min(most, document.querySelector("main").clientWidth - 34));
const labelOf = id => board().labels.find(l => l.id === id) || { name: id, long: id, units: "", factor: 1 };
const unitsOf = metric => (["acc", "spread_skill", "spread_ratio", "spectrum_error", "histogram_distance"].includes(metric) ? "" : labelOf(state.label).units);
const axisName = () => { const u = unitsOf(state.metric); return DATA.metrics[state.metric] + (u ? `, ${u}` : ""); };

/* p-value of no difference between two rows at a setting; undefined where it is not tested. */
function p(i, j, setting, metric = state.metric, label = state.label) {
  const found = board().p[metric]?.[label]?.[`${Math.min(i, j)},${Math.max(i, j)}`];
  return found ? found[setting] : undefined;
}

function best(setting) {
  const sign = LOWER.includes(state.metric) ? 1 : HIGHER.includes(state.metric) ? -1 : 0;
  const found = board().rows.map((r, i) => [sign * scores(r)[setting], i]).filter(v => sign && finite(v[0]));
  return found.length > 1 ? found.sort((a, b) => a[0] - b[0])[0][1] : -1;
}

/* Sections: [title, note, function to nodes or null]. */
const SECTIONS = [
  ["Scores", null, table],
  ["Scorecard", null, scorecard],
  ["Score by lead and density", null, curves],
  ["Rank histograms", "Where the truth falls among the members, over all channels and points, as share of the flat histogram. Flat is calibrated; a U means too little spread, a dome too much, a slope a bias.", ranks],
  ["Spectra", "Power of the members over the truth's by zonal wavenumber; 1 is right, the band is 10 % either way.", spectra],
  ["Maps", "Root-mean-square error and spread over the initial times, with one colour scale; a calibrated ensemble has both alike.", maps],
  ["Fields", null, fields],
  ["Long series", null, series],
  ["Cost against skill", "Seconds of one core (or of the GPU that the card names) for one member of one case, without scoring. Down and to the left is better.", cost],
  ["Cards", "How each row was made.", cards],
];

function table() {
  const { rows, heads } = board();
  const order = rows.map((_, i) => i);
  if (state.sort) {
    const { column, down } = state.sort, key = i => (column < 0 ? rows[i].title : scores(rows[i])[column] ?? Infinity);
    order.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (down ? -1 : 1));
  }
  const head = (name, column) => {
    const mark = state.sort?.column === column ? (state.sort.down ? " ▼" : " ▲") : "";
    const sorted = mark ? (state.sort.down ? "descending" : "ascending") : "none";
    const click = () => set({ sort: { column, down: state.sort?.column === column && !state.sort.down } });
    return make("th", { scope: "col", "aria-sort": sorted }, make("button", { onclick: click, "data-column": column }, name + mark));
  };
  const winners = heads.map((_, s) => best(s));
  const body = order.map(i => make("tr", {}, make("td", {}, swatch(i), rows[i].title), ...heads.map((_, s) => {
    const value = scores(rows[i])[s], range = bounds(rows[i])[s], close = winners[s] >= 0 && winners[s] !== i && p(i, winners[s], s) >= 0.05;
    const text = finite(value) ? shown(value, state.metric === "spread_skill" ? 2 : 3) + (close ? " ~" : "") : "";
    const span = range ? make("span", { class: "range" }, `${shown(range[0])}–${shown(range[1])}`) : null;
    return make("td", { class: winners[s] === i ? "best" : null }, text, span);
  })));
  const note = board().tested
    ? `Below each score its 95 % interval. Bold is best; ~ cannot be told from the best (p ≥ 0.05, paired differences). Both by bootstrap over ${board().times} initial times${board().block > 1 ? ` in blocks of ${board().block}` : ""}.`
    : "Bold is best. Which ranks are real is not tested here: too few initial times, or rows made before scores were kept by case.";
  return [make("p", { class: "note" }, `${axisName()}: ${labelOf(state.label).long}. ${note}`),
    make("div", { class: "wide" }, make("table", { id: "scores" }, make("thead", {}, make("tr", {}, head("entry", -1), ...heads.map(head))), make("tbody", {}, ...body)))];
}

/* Relative difference in percent; of a correlation the difference in hundredths. Negative is better. */
function relative(value, reference, metric) {
  if (!finite(value) || !finite(reference)) return NaN;
  return HIGHER.includes(metric) ? 100 * (reference - value) : reference > 0 ? 100 * (value / reference - 1) : NaN;
}

function scorecard() {
  const metric = [...LOWER, ...HIGHER].includes(state.metric) ? state.metric : board().metrics.find(m => LOWER.includes(m)), { rows, heads } = board();
  if (!metric || rows.length < 2) return null;
  const full = Math.max(10, DATA.full), card = (row, i) => make("div", {}, make("h3", {}, swatch(i), row.title),
    make("div", { class: "wide" }, make("table", { class: "score" }, make("thead", {}, make("tr", {}, make("th", {}), ...heads.map(h => make("th", { scope: "col" }, h.replace("day ", "d"))))),
      make("tbody", {}, ...blocks(i, metric).flatMap(([name, lines]) => [make("tr", { class: "group" }, make("th", { colspan: heads.length + 1 }, name)), ...lines])))));
  const blocks = (i, m) => groups(m).map(([name, entries]) => [name, entries.map(e => make("tr", {}, make("th", { scope: "row" }, e.name), ...heads.map((_, s) => cell(i, e, s, m))))]);
  const cell = (i, e, s, m) => {
    const [a, b] = [i, state.reference].map(k => e.values(rows[k], m)[s]), d = relative(a, b, m), sure = e.id ? p(i, state.reference, s, m, e.id) : undefined;
    if (!finite(d)) return make("td", {});
    const rgb = palette(DIVERGING, 0.5 + d / full / 2), dark = Math.abs(d) > 0.62 * full;
    const real = sure !== undefined && sure < 0.05 ? "●" : sure !== undefined ? "○" : "";
    const text = `${d > 0 ? "+" : d < 0 ? "−" : ""}${Math.abs(d) >= 99.5 ? Math.min(999, Math.abs(d)).toFixed(0) : Math.abs(d).toFixed(Math.abs(d) < 10 ? 1 : 0)}`;
    return make("td", { style: `background:rgb(${rgb});color:${dark ? "#fff" : "#111"}`, title: `${shown(a)} against ${shown(b)}${sure === undefined ? "" : `, p = ${sure.toFixed(3)}`}` }, text, real ? make("small", {}, ` ${real}`) : null);
  };
  const what = HIGHER.includes(metric) ? "Difference in hundredths (reference minus row)" : "Difference in percent of the reference's score";
  const picked = rows.map((row, i) => [row, i]).filter(([, i]) => i !== state.reference);
  return [make("p", { class: "note" }, `${DATA.metrics[metric]} against ${rows[state.reference].title}. ${what}: blue and negative is better. ● is real (p < 0.05), ○ is not; where there is no mark it is not tested.`),
    colourBar(DIVERGING, `−${full} better`, `+${full} worse`, ""),
    make("div", { class: "flow", id: "scorecard" }, ...picked.map(([row, i]) => card(row, i)))];
}

/* What a scorecard has lines of: headline fields, then channels by variable. */
function groups(metric) {
  const { labels, rows } = board(), found = [];
  const heads = labels.filter(l => rows.some(r => r.scores[metric]?.[l.id]));
  if (heads.length) found.push(["headline", heads.map(l => ({ id: l.id, name: l.name, values: (r, m) => r.scores[m]?.[l.id] || [] }))]);
  const channels = rows.map(r => r.channels[metric]).find(Boolean) || {};
  for (const variable of [...new Set(Object.keys(channels).map(c => c.split("@")[0]))]) {
    const mine = Object.keys(channels).filter(c => c.split("@")[0] === variable);
    found.push([variable.replaceAll("_", " "), mine.map(c => ({ name: c.split("@")[1] || "surface", values: (r, m) => r.channels[m]?.[c] || [] }))]);
  }
  return found;
}

function curves() {
  const { rows, x, axis, heads } = board();
  if (x.filter(finite).length < 2) return null;
  const drawn = rows.map((r, i) => ({ index: i, title: r.title, points: x.map((at, s) => [at, scores(r)[s], ...(bounds(r)[s] || [])]).filter(q => finite(q[0])) }))
    .filter(s => s.points.some(q => finite(q[1])));
  if (!drawn.length) return null;
  const log = axis === "density", ratio = state.metric.startsWith("spread_"), values = drawn.flatMap(s => s.points.map(q => q[1])).filter(finite);
  const y = { label: axisName(), low: ratio ? Math.min(0.5, ...values) : Math.min(0, ...values), high: state.metric === "acc" ? 1 : undefined };
  const names = { ticks: log ? x.filter(finite) : undefined, name: t => (log ? heads[x.indexOf(t)] : +t.toPrecision(4)) };
  const chart = lines({ series: drawn, x: { log, label: log ? "share of the columns that is observed" : "lead, days", whole: true, ...names }, y, width: wide(720), height: 340, guide: ratio ? 1 : undefined, title: "scores" });
  return [make("p", { class: "note" }, `${labelOf(state.label).long}.${board().tested ? " Shaded: 95 % intervals." : ""}`), chart, legend(drawn)];
}

function ranks() {
  const { rows } = board(), mine = rows.map((r, i) => [r, i]).filter(([r]) => r.ranks[state.setting]);
  if (!mine.length) return null;
  const width = Math.min(wide(), 300), peak = Math.max(...mine.map(([r]) => { const c = r.ranks[state.setting]; return Math.max(...c) * c.length / c.reduce((a, b) => a + b, 0); }));
  const high = Math.max(1.6, Math.min(4, peak * 1.05));
  return [make("p", { class: "note" }, `At ${board().heads[state.setting]}.`), make("div", { class: "flow" }, ...mine.map(([r, i]) => make("div", {}, make("h3", {}, swatch(i), r.title), bars({ counts: r.ranks[state.setting], index: i, width, label: "rank of the truth", high }))))];
}

function spectra() {
  const { rows, heads } = board(), at = r => r.spectra[state.setting]?.[state.label] || r.spectra[state.setting]?.mean;
  const drawn = rows.map((r, i) => ({ index: i, title: r.title, points: (at(r) || []).map((v, k) => [k, v]).slice(1) })).filter(s => s.points.length);
  if (!drawn.length) return null;
  const whole = rows.some(r => r.spectra[state.setting]?.[state.label]) ? (state.label === "mean" ? "mean over channels" : labelOf(state.label).name) : "mean over channels";
  const y = { log: true, low: 0.1, high: 4, ticks: [0.1, 0.2, 0.5, 1, 2, 4], label: "power over the truth's" };
  return [make("p", { class: "note" }, `${whole}, ${heads[state.setting]}.`), lines({ series: drawn, x: { label: "zonal wavenumber", whole: true }, y, width: wide(720), height: 320, guide: 1, band: [0.9, 1.1], title: "spectra" }), legend(drawn)];
}

function maps() {
  const { rows, grid } = board(), settings = rows.flatMap(r => Object.keys(r.maps));
  if (!settings.length || !grid) return null;
  const setting = settings.includes(String(state.setting)) ? state.setting : settings.map(Number).sort((a, b) => Math.abs(a - state.setting) - Math.abs(b - state.setting))[0];
  const labels = [...new Set(rows.flatMap(r => Object.keys(r.maps[setting] || {})))], id = labels.includes(state.label) ? state.label : labels[0];
  const mine = rows.map((r, i) => [r, i]).filter(([r]) => r.maps[setting]?.[id]), all = mine.flatMap(([r]) => Object.values(r.maps[setting][id]));
  const high = Math.max(...all.map(f => f.high)), { name, units, factor } = labelOf(id), width = Math.min(wide(), 380);
  const one = (field, text) => make("figure", {}, map({ field, grid, low: 0, high, stops: VIRIDIS, width }), make("figcaption", {}, text));
  return [make("p", { class: "note" }, `${name}, ${board().heads[setting]}. Fields other than ${labels.map(l => labelOf(l).name).join(" and ")} and leads between are not kept.`), colourBar(VIRIDIS, "0", shown(high * factor), units),
    make("div", { class: "flow" }, ...mine.map(([r, i]) => make("div", {}, make("h3", {}, swatch(i), r.title), make("div", { class: "flow" }, ...Object.entries(r.maps[setting][id]).map(([kind, f]) => one(f, kind === "rmse" ? "error (RMSE)" : kind))))))];
}

/* Maps that a row brings of itself, such as seasonal correlations: {title, units, low, high, data}. */
function fields() {
  const { rows, grid } = board(), mine = rows.map((r, i) => [r, i]).filter(([r]) => r.fields.length);
  if (!mine.length || !grid) return null;
  const width = Math.min(wide(), 380);
  return [make("div", { class: "flow" }, ...mine.flatMap(([r, i]) => r.fields.map(f => {
    const both = f.from < 0, end = both ? Math.max(-f.from, f.to) : f.to, low = both ? -end : f.from, stops = both ? DIVERGING : VIRIDIS;
    return make("figure", {}, make("h3", {}, swatch(i), `${r.title}: ${f.title}`), map({ field: f, grid, low, high: end, stops, width }), colourBar(stops, shown(low, 2), shown(end, 2), f.units));
  })))];
}

/* Series that rows bring: {title, x_label, y_label, x, y}; one chart a title. */
function series() {
  const { rows } = board(), titles = [...new Set(rows.flatMap(r => r.series.map(s => s.title)))];
  if (!titles.length) return null;
  return titles.flatMap(title => {
    const mine = rows.flatMap((r, i) => r.series.filter(s => s.title === title).map(s => ({ ...s, row: r, index: i })));
    const drawn = mine.map(s => ({ index: s.index, title: s.row.title, plain: s.x.length > 60, points: s.x.map((at, k) => [at, s.y[k]]) }));
    return [make("h3", {}, title), lines({ series: drawn, x: { label: mine[0].x_label }, y: { label: mine[0].y_label }, width: wide(900), height: 260, title }), legend(drawn)];
  });
}

function cost() {
  const metric = LOWER.includes(state.metric) ? state.metric : board().metrics.find(m => LOWER.includes(m)), { rows } = board();
  const drawn = metric ? rows.map((r, i) => ({ index: i, title: r.title, points: [[r.cost, scores(r, metric)[state.setting]]] })).filter(s => finite(s.points[0][0]) && finite(s.points[0][1])) : [];
  if (drawn.length < 2) return null;
  const costs = drawn.map(s => s.points[0][0]), x = { log: true, low: Math.min(...costs) / 2, high: Math.max(...costs) * 2, label: "seconds a member", name: t => String(t) };
  return [make("p", { class: "note" }, `${DATA.metrics[metric]}, ${labelOf(state.label).name}, ${board().heads[state.setting]}.`), lines({ series: drawn, x, y: { low: 0, label: DATA.metrics[metric] }, width: wide(720), height: 300, title: "cost against skill" }), legend(drawn)];
}

function cards() {
  return board().rows.map((r, i) => make("details", { class: "card" }, make("summary", {}, swatch(i), r.title),
    make("dl", {}, ...r.card.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]))));
}

/* Controls and state. */
function picker(name, text, options, chosen) {
  const choices = options.map(([value, label]) => make("option", { value, selected: String(value) === String(chosen) }, label));
  const change = event => set({ [name]: ["metric", "label"].includes(name) ? event.target.value : Number(event.target.value) });
  return make("div", {}, make("label", { for: `pick-${name}` }, text), make("select", { id: `pick-${name}`, onchange: change }, ...choices));
}

function controls() {
  const { metrics, labels, heads, rows } = board(), has = labels.filter(l => rows.some(r => r.scores[state.metric]?.[l.id]));
  const several = has.length > 1 ? picker("label", "field", has.map(l => [l.id, l.name]), state.label) : null;
  return make("div", { class: "controls" }, picker("metric", "score", metrics.map(m => [m, DATA.metrics[m]]), state.metric), several,
    picker("setting", board().axis === "lead" ? "lead" : board().axis === "density" ? "density" : "part", heads.map((h, i) => [i, h]), state.setting),
    rows.length > 1 ? picker("reference", "reference of the scorecard", rows.map((r, i) => [i, r.title]), state.reference) : null);
}

function set(change) {
  Object.assign(state, change);
  if ("protocol" in change) Object.assign(state, { metric: board().metrics[0], label: board().labels[0].id, setting: board().first, reference: board().reference, sort: null });
  const fits = board().rows.some(r => r.scores[state.metric]?.[state.label]);
  if (!fits) state.label = board().labels.find(l => board().rows.some(r => r.scores[state.metric]?.[l.id]))?.id || "mean";
  draw();
}

function draw() {
  const focus = document.activeElement?.id;
  const tabs = DATA.protocols.map((q, i) => make("button", { role: "tab", "aria-selected": i === state.protocol, onclick: () => set({ protocol: i }) }, q.title));
  const parts = SECTIONS.flatMap(([title, note, build]) => {
    const found = (build() || []).filter(Boolean);
    if (!found.length) return [];
    const name = build === curves ? (board().axis === "density" ? "Error against density" : "Skill against lead") : title;
    return [make("section", { "data-section": title }, make("h2", {}, name), note ? make("p", { class: "note" }, note) : null, ...found)];
  });
  document.getElementById("tabs").replaceChildren(...tabs);
  document.getElementById("board").replaceChildren(make("p", {}, board().description), make("p", { class: "note" }, board().facts), controls(), ...parts);
  if (focus) document.getElementById(focus)?.focus();
}

let drawnWidth = window.innerWidth;
window.addEventListener("resize", () => { if (window.innerWidth !== drawnWidth) { drawnWidth = window.innerWidth; draw(); } });
set({ protocol: 0 });
