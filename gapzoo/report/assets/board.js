"use strict";
/* The leaderboard: one protocol at a time; every section is drawn only where its rows have data. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const state = { protocol: 0, metric: "", label: "", setting: 0, reference: 0, sort: null };

const board = () => DATA.protocols[state.protocol];
const scores = (row, metric = state.metric, label = state.label) => row.scores[metric]?.[label] || [];
const bounds = row => row.bounds[state.metric]?.[state.label] || [];
const wide = (most = 620) => Math.max(280, Math.min(most, document.querySelector("main").clientWidth - 34));
const labelOf = id => board().labels.find(l => l.id === id) || { name: id, long: id, units: "" };
const told = (metric = state.metric) => board().metrics[metric];
const names = () => Object.keys(board().metrics);
const unitsOf = metric => (told(metric).units === "field" ? labelOf(state.label).units : told(metric).units);
const withUnits = (text, units) => text + (units ? `, ${units}` : "");
const axisName = () => withUnits(told().title, unitsOf(state.metric));

/* How bad a score is: smaller is better; NaN where the score ranks nothing. */
function badness(value, metric = state.metric) {
  const { better, ideal } = told(metric);
  if (!finite(value) || !better) return NaN;
  if (better === "near") return ideal === 1 ? (value > 0 ? Math.abs(Math.log(value)) : Infinity) : Math.abs(value - ideal);
  return better === "higher" ? -value : value;
}

/* p-value of no difference between two rows at a setting; undefined where it is not tested. */
function p(i, j, setting, metric = state.metric, label = state.label) {
  const found = board().p[metric]?.[label]?.[`${Math.min(i, j)},${Math.max(i, j)}`];
  return found ? found[setting] : undefined;
}

function best(setting) {
  const found = board().rows.map((r, i) => [badness(scores(r)[setting]), i]).filter(v => finite(v[0]));
  return found.length > 1 ? found.sort((a, b) => a[0] - b[0])[0][1] : -1;
}

/* Sections: [title, note, function to nodes or null]. */
const SECTIONS = [
  ["Scores", null, table],
  ["Scorecard", null, scorecard],
  ["Score by lead and density", null, curves],
  ["Rank histograms", "Where the truth falls among the members, over all channels and points, as share of the flat histogram. Flat is calibrated; a U means too little spread, a dome too much, a slope a bias.", ranks],
  ["Spectra", "Power of the members over the truth's by zonal wavenumber; 1 is right, the band is 10 % either way.", spectra],
  ["Maps", null, maps],
  ["Fields", "Maps over all initial times.", fields],
  ["Series", null, series],
  ["Cost against skill", null, cost],
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
    const text = finite(value) ? shown(value, told().digits) + (close ? " ~" : "") : rows[i].diverged[s] ? "diverged" : "";
    const span = range ? make("span", { class: "range" }, `${shown(range[0])}–${shown(range[1])}`) : null;
    return make("td", { class: winners[s] === i ? "best" : null }, text, span);
  })));
  const note = rows.some(r => board().tested && (r.bounds[state.metric]?.[state.label] || []).some(Boolean))
    ? `Below each score its 95 % interval. Bold is best; ~ cannot be told from the best (p ≥ 0.05, paired differences). Both by bootstrap over ${board().times} initial times${board().block > 1 ? ` in blocks of ${board().block}` : ""}.`
    : `${told().better ? "Bold is best. " : ""}Which differences are real is not tested here: too few initial times, or scores that are not kept by case.`;
  return [make("p", { class: "note" }, `${axisName()}: ${labelOf(state.label).long}. ${note}`),
    make("div", { class: "wide" }, make("table", { id: "scores" }, make("thead", {}, make("tr", {}, head("entry", -1), ...heads.map(head))), make("tbody", {}, ...body)))];
}

/* Relative difference in percent; of a correlation or skill the difference in hundredths. Negative is better. */
function relative(value, reference, metric) {
  if (!finite(value) || !finite(reference)) return NaN;
  if (told(metric).better === "higher") return 100 * (reference - value);
  const [a, b] = [value, reference].map(v => badness(v, metric));
  return b > 0 ? 100 * (a / b - 1) : NaN;
}

/* Colours grow with the root of a difference, so that 2 % is seen and 50 % still differs from 20 %. */
const FULL = 75;
const shade = d => palette(DIVERGING, 0.5 + Math.sign(d) * Math.sqrt(Math.min(1, Math.abs(d) / FULL)) / 2);
const signed = (d, digits = 0) => (d > 0 ? "+" : d < 0 ? "−" : "") + Math.min(999, Math.abs(d)).toFixed(digits);

/* The chosen score, or the first that ranks. */
const ranked = () => (told().better ? state.metric : names().find(m => told(m).better));

function scorecard() {
  const metric = ranked(), { rows, heads } = board();
  if (!metric || rows.length < 2) return null;
  const card = (row, i) => make("div", {}, make("h3", {}, swatch(i), row.title),
    make("div", { class: "wide" }, make("table", { class: "score" }, make("thead", {}, make("tr", {}, make("th", {}), ...heads.map(h => make("th", { scope: "col" }, h.replace("day ", "d"))))),
      make("tbody", {}, ...blocks(i, metric).flatMap(([name, lines]) => [make("tr", { class: "group" }, make("th", { colspan: heads.length + 1 }, name)), ...lines])))));
  const blocks = (i, m) => groups(m).map(([name, entries]) => [name, entries.map(e => make("tr", {}, make("th", { scope: "row" }, e.name), ...heads.map((_, s) => cell(i, e, s, m))))]);
  const cell = (i, e, s, m) => {
    const [a, b] = [i, state.reference].map(k => e.values(rows[k], m)[s]), d = relative(a, b, m), sure = e.id ? p(i, state.reference, s, m, e.id) : undefined;
    if (!finite(d)) return make("td", {});
    const rgb = shade(d);
    const real = sure !== undefined && sure < 0.05 ? "●" : sure !== undefined ? "○" : "";
    const text = signed(d, Math.abs(d) < 9.95 ? 1 : 0);
    return make("td", { style: `background:rgb(${rgb});color:${ink(rgb)}`, title: `${shown(a)} against ${shown(b)}${sure === undefined ? "" : `, p = ${sure.toFixed(3)}`}` }, text, real ? make("small", {}, ` ${real}`) : null);
  };
  const what = { higher: "Difference in hundredths (reference minus row)", lower: "Difference in percent of the reference's score", near: `Distance from the ideal ${told(metric).ideal}, difference in percent of the reference's distance` }[told(metric).better];
  const picked = rows.map((row, i) => [row, i]).filter(([, i]) => i !== state.reference);
  return [make("p", { class: "note" }, `${told(metric).title} against ${rows[state.reference].title}. ${what}: blue and negative is better. ● is real (p < 0.05), ○ is not; where there is no mark it is not tested.`),
    make("div", { class: "key" }, "better", ...[-50, -20, -5, -1, 0, 1, 5, 20, 50].map(d => make("span", { class: "step", style: `background:rgb(${shade(d)});color:${ink(shade(d))}` }, signed(d))), "worse"),
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
  const log = axis === "density", { ideal, better } = told(), values = drawn.flatMap(s => s.points.map(q => q[1])).filter(finite);
  const guide = ideal === null || better === "higher" ? undefined : ideal, least = Math.min(...values);
  const y = { label: axisName(), low: guide === 1 ? Math.min(0.5, least) : Math.min(0, least), high: better === "higher" ? Math.max(1, ...values) : undefined };
  const ticks = log ? { ticks: x.filter(finite), name: t => heads[x.indexOf(t)] } : { whole: true };
  const chart = lines({ series: drawn, x: { log, label: log ? "share that is observed" : "lead, days", ...ticks }, y, width: wide(720), height: 340, guide, title: "scores" });
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
  const every = drawn.flatMap(s => s.points.map(q => q[1])).filter(v => v > 0), low = Math.max(1e-3, Math.min(0.2, ...every)), high = Math.min(1e3, Math.max(4, ...every));
  const y = { log: true, low, high, ticks: [0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 4, 10, 100, 1000].filter(t => t >= low && t <= high), label: "power over the truth's" };
  return [make("p", { class: "note" }, `${whole}, ${heads[state.setting]}.`), lines({ series: drawn, x: { label: "zonal wavenumber", whole: true }, y, width: wide(720), height: 320, guide: 1, band: [0.9, 1.1], title: "spectra" }), legend(drawn)];
}

/* Ends and colours of maps that share a scale: -1 to 1, about zero, ratios about one, from zero, or as they are. */
function range(fields, scale) {
  if (scale.endsWith("ratio")) {
    const most = Math.min(4, Math.max(1.25, ...fields.flatMap(f => [f.high, 1 / Math.max(f.low, 0.01)])));
    return { low: 1 / most, high: most, stops: DIVERGING, log: true };
  }
  const low = Math.min(...fields.map(f => f.low)), high = Math.max(...fields.map(f => f.high));
  if (scale === "correlation") return { low: -1, high: 1, stops: DIVERGING };
  if (low < 0) return { low: -Math.max(-low, high), high: Math.max(-low, high), stops: DIVERGING };
  return { low: low > 0.5 * high ? low : 0, high, stops: VIRIDIS };
}

/* Figures of maps [{row index, field}], one colour scale and its key a group. */
function figures(maps, width, heading) {
  const { grid } = board(), groups = [...new Set(maps.map(m => m.field.scale))];
  return groups.flatMap(group => {
    const mine = maps.filter(m => m.field.scale === group), ends = range(mine.map(m => m.field), group), { units } = mine[0].field;
    const kinds = [...new Set(mine.map(m => m.field.title))];
    return [make("div", { class: "scale" }, make("strong", {}, `${heading ? `${heading}: ` : ""}${kinds.join(" and ")}`), colourBar(ends.stops, shown(ends.low, 2), shown(ends.high, 2), units, mine.some(m => m.field.missing))),
      make("div", { class: "flow" }, ...together(mine.map(m => [m.index, make("figure", {}, map({ ...m, ...ends, grid, width }), make("figcaption", {}, swatch(m.index), `${board().rows[m.index].title}${kinds.length > 1 ? `: ${m.field.title}` : ""}`))])))];
  });
}

/* Two pairs beside each other where rows have pairs, else three maps. */
const mapWidth = maps => (new Set(maps.map(m => m.field.title)).size === 2 ? 282 : 380);

/* What is of one row side by side: [[row index, node], ...]. */
const together = pairs => [...new Set(pairs.map(q => q[0]))].map(i => make("div", { class: "flow" }, ...pairs.filter(q => q[0] === i).map(q => q[1])));

function maps() {
  const { rows, grid, heads } = board(), settings = [...new Set(rows.flatMap(r => Object.keys(r.maps)))].map(Number);
  if (!settings.length || !grid) return null;
  const setting = settings.sort((a, b) => Math.abs(a - state.setting) - Math.abs(b - state.setting) || b - a)[0];
  const labels = [...new Set(rows.flatMap(r => Object.keys(r.maps[setting] || {})))], id = labels.includes(state.label) ? state.label : labels[0];
  const mine = rows.flatMap((r, index) => (r.maps[setting]?.[id] || []).map(field => ({ index, field })));
  const both = ["error (RMSE)", "spread"].every(t => mine.some(m => m.field.title === t)) ? " Over the initial times; a calibrated ensemble has error and spread alike." : "";
  const elsewhere = setting === state.setting && id === state.label ? "" : ` Maps are kept for ${labels.map(l => labelOf(l).name).join(", ")} at ${settings.sort((a, b) => a - b).map(s => heads[s]).join(", ")}.`;
  return [make("p", { class: "note" }, `${labelOf(id).name}, ${heads[setting]}.${both}${elsewhere}`), ...figures(mine, Math.min(wide(), mapWidth(mine)), labelOf(id).name)];
}

/* Maps that a row brings for no setting: {title, units, low, high, data}. */
function fields() {
  const mine = board().rows.flatMap((r, index) => r.fields.map(field => ({ index, field })));
  return mine.length && board().grid ? figures(mine, Math.min(wide(), mapWidth(mine)), "") : null;
}

/* Series that rows bring: {title, x_label, y_label, x, y}; one chart a title; one line of those that are named alike and are alike. */
function series() {
  const { rows } = board(), titles = [...new Set(rows.flatMap(r => r.series.map(s => s.title)))];
  if (!titles.length) return null;
  return titles.flatMap(title => {
    const every = rows.flatMap((r, i) => r.series.filter(s => s.title === title).map(s => ({ ...s, row: r.title, index: i })));
    const shared = [...new Set(every.map(s => s.name).filter(Boolean))], named = name => every.filter(s => s.name === name);
    const alike = list => list.length > 1 && list.every(s => String(s.y) === String(list[0].y)), common = shared.filter(name => alike(named(name)));
    const mine = [...every.filter(s => !common.includes(s.name)), ...common.map((name, k) => ({ ...named(name)[0], row: null, index: COLOURS.length - 2 + (k % 2) }))];
    const drawn = mine.map(s => ({ index: s.index, title: [s.row, s.name].filter(Boolean).join(": "), plain: s.x.length > 60, points: s.x.map((at, k) => [at, s.y[k], s.low?.[k], s.high?.[k]]) }));
    const log = mine[0].log || "", ends = axis => (log.includes(axis) ? { log: true } : {});
    return [make("h3", {}, title), lines({ series: drawn, x: { label: mine[0].x_label, ...ends("x") }, y: { label: mine[0].y_label, ...ends("y") }, width: wide(900), height: 260, title }), legend(drawn)];
  });
}

function cost() {
  const metric = ranked(), { rows, heads } = board();
  const drawn = metric ? rows.map((r, i) => ({ index: i, title: r.title, points: [[r.cost, scores(r, metric)[state.setting]]] })).filter(s => finite(s.points[0][0]) && finite(s.points[0][1])) : [];
  const found = [];
  if (drawn.length > 1) {
    const costs = drawn.map(s => s.points[0][0]), x = { log: true, low: Math.min(...costs) / 2, high: Math.max(...costs) * 2, label: "seconds a member", name: t => String(t) };
    const up = told(metric).better === "higher" ? "Up" : "Down", y = { low: told(metric).better === "lower" ? 0 : undefined, label: told(metric).title };
    found.push(make("p", { class: "note" }, `${told(metric).title}, ${labelOf(state.label).name}, ${heads[state.setting]}, against seconds of one core (or of the GPU that the card names) for one member of one case, without scoring. ${up} and to the left is better.`),
      lines({ series: drawn, x, y, width: wide(720), height: 300, title: "cost against skill" }), legend(drawn));
  }
  const spent = rows.filter(r => r.spent.some(finite)), seconds = v => (finite(v) ? (v >= 100 ? v.toFixed(0) : v.toPrecision(2)) : "");
  if (!spent.length) return found;
  const head = ["entry", "wall", "CPU", "of it scoring", "a member", "device"].map(t => make("th", { scope: "col" }, t));
  const body = rows.map((r, i) => make("tr", {}, make("td", {}, swatch(i), r.title), ...[...r.spent, r.cost].map(v => make("td", {}, seconds(v))), make("td", { class: "words" }, r.device)));
  return [...found, make("p", { class: "note" }, "Seconds that a row took in all, and one member of one case without scoring."),
    make("div", { class: "wide" }, make("table", { id: "costs" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)))];
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
  const { labels, heads, rows, axis } = board(), has = labels.filter(l => rows.some(r => r.scores[state.metric]?.[l.id]));
  const several = has.length > 1 ? picker("label", "field", has.map(l => [l.id, l.name]), state.label) : null;
  return make("div", { class: "controls" }, picker("metric", "score", names().map(m => [m, told(m).title]), state.metric), several,
    heads.length > 1 ? picker("setting", axis, heads.map((h, i) => [i, h]), state.setting) : null,
    rows.length > 1 ? picker("reference", "reference of the scorecard", rows.map((r, i) => [i, r.title]), state.reference) : null);
}

const START = () => ({ metric: names()[0], label: board().labels[0].id, setting: board().first, reference: board().reference, sort: null });

function set(change) {
  Object.assign(state, change);
  if ("protocol" in change) Object.assign(state, { ...START(), ...change });
  const fits = board().rows.some(r => r.scores[state.metric]?.[state.label]);
  if (!fits) state.label = board().labels.find(l => board().rows.some(r => r.scores[state.metric]?.[l.id]))?.id || "mean";
  remember();
  draw();
}

/* The address holds what is chosen, so that a link shows it again. */
function remember() {
  const words = { protocol: board().title, metric: state.metric, field: state.label, at: board().heads[state.setting], reference: board().rows[state.reference].title };
  const hash = `#${new URLSearchParams(words)}`;
  if (location.protocol !== "about:" && hash !== location.hash) history.replaceState(null, "", hash);
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1)), at = (list, name) => list.indexOf(words.get(name));
  state.protocol = Math.max(0, at(DATA.protocols.map(q => q.title), "protocol"));
  const change = { protocol: state.protocol }, setting = at(board().heads, "at"), reference = at(board().rows.map(r => r.title), "reference");
  if (words.get("metric") in board().metrics) change.metric = words.get("metric");
  if (board().labels.some(l => l.id === words.get("field"))) change.label = words.get("field");
  if (setting >= 0) change.setting = setting;
  if (reference >= 0) change.reference = reference;
  set(change);
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
  const tab = document.querySelector("nav [aria-selected=true]");
  tab.parentNode.scrollLeft = tab.offsetLeft - 40;
  if (focus) document.getElementById(focus)?.focus();
}

let drawnWidth = window.innerWidth;
window.addEventListener("resize", () => { if (window.innerWidth !== drawnWidth) { drawnWidth = window.innerWidth; draw(); } });
window.addEventListener("hashchange", recall);
recall();
