"use strict";
// Asks for the state of the run every two seconds, and draws it. Texts of the run never become markup.
(() => {
  const at = name => document.getElementById(name);
  const make = (tag, name, ...inside) => {
    const made = document.createElement(tag);
    made.className = name;
    made.append(...inside);
    return made;
  };
  const draw = (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  function duration(seconds) {
    if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    const two = number => String(number).padStart(2, "0");
    if (hours) return `${hours} h ${two(minutes)} min`;
    return minutes ? `${minutes} min ${two(whole % 60)} s` : `${whole} s`;
  }
  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    for (; bytes >= 999.95 && unit < units.length - 1; unit++) bytes /= 1000;
    return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
  }
  const energy = kwh => (kwh >= 1 ? `${kwh.toPrecision(3)} kWh` : kwh >= 1e-4 ? `${(1e3 * kwh).toPrecision(2)} Wh` : `${(1e6 * kwh).toPrecision(2)} mWh`);
  const known = (value, show) => (value === null || value === undefined ? "–" : show(value));
  const short = number => (number !== 0 && Math.abs(number) < 1e-3 ? number.toExponential(1) : String(+number.toPrecision(4)));
  const STATES = {
    running: () => "Running",
    done: () => "Done",
    stopped: () => "Stopped. The same command goes on from here.",
    killed: run => `Ended without a word ${duration(run.silent)} ago. The same command goes on from here.`,
    waiting: () => "Does not run. The same command goes on from here.",
  };

  function figures(run) {
    const found = [];
    const add = (value, about) => found.push(make("div", "", make("dt", "", value), make("dd", "", about)));
    const done = run.steps.filter(step => step.state === "done").length;
    add(`${done} of ${run.steps.length}`, "steps done");
    if (run.seconds_left !== null) add(duration(run.seconds_left), "left, by the plan and the speed of late");
    add(duration(run.seconds), "so far");
    if (run.tokens_per_second !== null) add(Math.round(run.tokens_per_second).toLocaleString("en"), "tokens per second");
    if (run.memory !== null) add(size(run.memory), "of memory now");
    if (run.kwh !== null) add(energy(run.kwh), "for the whole machine");
    return found;
  }

  function row(step) {
    const name = make("th", "", step.name);
    name.scope = "row";
    const isTraining = step.of !== null && step.state !== "done";
    const made = make("td", "text", isTraining ? `${step.done.toLocaleString("en")} of ${step.of.toLocaleString("en")} steps` : step.made);
    if (isTraining) made.append(bar(step.done / step.of));
    const cells = [known(step.seconds, duration), known(step.forecast, duration), known(step.kwh, energy), known(step.memory, size)];
    return make("tr", step.state, name, made, ...cells.map(text => make("td", "", text)));
  }
  function bar(share) {
    const inside = make("i", "");
    inside.style.width = `${100 * share}%`;
    return make("div", "bar", inside);
  }

  function looks(run) {
    const models = [...new Set(run.curves.map(curve => curve.model))];
    const students = models.filter(model => model.startsWith("student"));
    const colour = model => {
      if (model === "control") return "var(--control)";
      if (!students.includes(model)) return "var(--teacher)";
      return students.length > 1 ? `var(--s${students.indexOf(model) % 7})` : "var(--student)";
    };
    return new Map(models.map(model => [model, { colour: colour(model), dash: model === "control" ? "5 3" : "" }]));
  }

  function chart(term, curves, seen) {
    const width = 340, height = 190, left = 48, right = 8, top = 8, bottom = 24;
    const points = curves.flatMap(curve => curve.terms[term]), ys = points.map(point => point[1]);
    let low = Math.min(...ys), high = Math.max(...ys);
    if (low === high) { low -= Math.abs(low) / 10 || 1; high += Math.abs(high) / 10 || 1; }
    const end = Math.max(...curves.map(curve => curve.steps), 1);
    const x = step => left + (width - left - right) * step / end;
    const y = value => top + (height - top - bottom) * (high - value) / (high - low);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${term} by step` });
    for (const value of [low, (low + high) / 2, high]) {
      svg.append(draw("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--rule)" }));
      svg.append(draw("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end", class: "axis" }, short(value)));
    }
    svg.append(draw("text", { x: left, y: height - 6, class: "axis" }, "step 0"));
    svg.append(draw("text", { x: width - right, y: height - 6, "text-anchor": "end", class: "axis" }, end.toLocaleString("en")));
    for (const curve of curves) {
      const path = curve.terms[term].map(([step, value], place) => `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
      const { colour, dash } = seen.get(curve.model), last = curve.terms[term].at(-1);
      svg.append(draw("path", { d: path.join(""), stroke: colour, "stroke-dasharray": dash }));
      svg.append(draw("circle", { cx: x(last[0]), cy: y(last[1]), r: 3, fill: colour }));
    }
    const latest = curves.map(curve => short(curve.terms[term].at(-1)[1])).join(" · ");
    const title = term === "loss" ? "loss, each by its own terms" : term.replace("train_", "").replaceAll("_", " ").replace("kl", "KL");
    return make("figure", "chart", make("figcaption", "", make("b", "", title[0].toUpperCase() + title.slice(1)), make("span", "", latest)), svg);
  }

  function curves(run) {
    const seen = looks(run), terms = [...new Set(run.curves.flatMap(curve => Object.keys(curve.terms)))];
    const models = term => new Set(run.curves.filter(curve => curve.terms[term]).map(curve => curve.model)).size;
    // What student and control both log comes first, and the two that compare nothing come last.
    const rank = term => (["loss", "learning_rate", "train_tokens_per_second"].includes(term) ? 0 : models(term));
    terms.sort((a, b) => rank(b) - rank(a));
    at("legend").replaceChildren(...[...seen].map(([model, { colour }]) => {
      const key = make("span", `key ${model}`, model);
      key.style.setProperty("--colour", colour);
      return key;
    }));
    at("panels").replaceChildren(...terms.map(term => chart(term, run.curves.filter(curve => curve.terms[term]), seen)));
    at("training").hidden = !terms.length;
  }

  function written(run) {
    const groups = run.texts.map(one => {
      const answers = one.texts.map(each => make("div", "answer", make("p", "said prompt", each.beginning), make("p", "said", each.text)));
      return make("div", "", make("p", "minus", `${one.model}, step ${one.step}`), make("div", "answers written", ...answers));
    });
    at("samples").replaceChildren(...groups.reverse());
    at("written").hidden = !groups.length;
  }

  function show(run) {
    at("about").textContent = run.about;
    at("state").textContent = STATES[run.state](run);
    at("now").className = `verdict ${{ running: "", done: "good" }[run.state] ?? "open"}`;
    const share = run.seconds_left === null ? null : run.seconds / (run.seconds + run.seconds_left || 1);
    at("bar").hidden = share === null;
    at("bar").firstChild.style.width = `${100 * (share ?? 0)}%`;
    at("figures").replaceChildren(...figures(run));
    at("report").hidden = !run.has_report;
    at("rows").replaceChildren(...run.steps.map(row));
    curves(run);
    written(run);
  }

  let seen = "";
  async function look() {
    try {
      const text = await (await fetch("state.json")).text(), run = JSON.parse(text);
      at("news").textContent = run.error ?? new Date().toLocaleTimeString();
      if (!run.error && text !== seen) show(run);
      seen = text;
    } catch {
      at("news").textContent = "potstill watch does not answer; start it again with the same port";
    }
    setTimeout(look, 2000);
  }
  look();
})();
