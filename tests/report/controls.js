// Uses every control of the page as a reader would, and tells the page around it what it found.
const texts = query => [...document.querySelectorAll(query)].map(e => e.textContent);
const pick = (id, value) => {
  const select = document.getElementById("pick-" + id);
  select.value = value;
  select.dispatchEvent(new Event("change"));
};
const click = (query, n = 0) => document.querySelectorAll(query)[n].click();
const sections = () => [...document.querySelectorAll("section")].map(e => e.dataset.section);
const coloured = canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, 200, 100).data;
  return new Set(Array.from({ length: 300 }, (_, k) => pixels.slice(k * 240, k * 240 + 3).join())).size;
};
const heights = path => path.getAttribute("d").split(/[ML]/).slice(1).map(point => Number(point.split(" ")[1]));
const seen = () => ({
  spectra: [...document.querySelectorAll("[data-section=Spectra] path[fill=none]")].flatMap(heights),
  pairs: [...document.querySelectorAll("[data-section=Maps] .flow .flow")].map(e => e.querySelectorAll("figure").length),
  sections: sections(),
  table: texts("#scores tbody td"),
  names: texts("#scores tbody td:first-child"),
  cards: texts("#scorecard h3"),
  note: document.querySelector('[data-section="Scores"] .note').textContent,
  costs: texts("#costs tbody td"),
  maps: texts("[data-section=Maps] figcaption, [data-section=Fields] figcaption"),
  scales: texts(".scale"),
  colours: [...document.querySelectorAll("canvas")].map(coloured),
  series: texts("[data-section=Series] h3"),
  legends: [...document.querySelectorAll("[data-section=Series] .legend")].map(e => e.textContent),
  width: document.documentElement.scrollWidth,
  inner: window.innerWidth,
  hash: decodeURIComponent(location.hash),
});
const LINK = "#protocol=weather-toy&metric=acc&field=temperature@850&at=day+2&reference=GAP";
const open = hash => { history.replaceState(null, "", hash); recall(); };
const steps = {
  nothing: () => {},
  sort: () => { click('#scores button[data-column="0"]'); click('#scores button[data-column="0"]'); },
  reference: () => pick("reference", 2),
  metric: () => pick("metric", "rmse"),
  field: () => pick("label", "geopotential@500"),
  setting: () => pick("setting", 1),
  tab: () => click("nav button", 1),
  link: () => open(LINK),
  strange: () => open("#protocol=none&metric=none&at=none&field=x"),
  cards: () => document.querySelectorAll("details").forEach(d => (d.open = true)),
};
const out = {};
for (const name of STEPS) { steps[name](); out[name] = seen(); }
out.errors = window.found;
parent.postMessage(JSON.stringify(out), "*");
