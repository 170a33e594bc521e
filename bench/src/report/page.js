// What a reader can do beyond reading: sort tables, switch the start-up chart's axis, point at a chart for values. The page is
// whole without it: nothing here adds a figure, and the controls themselves are made here.
"use strict";
(() => {
  const units = { ns: 1e-6, "µs": 1e-3, ms: 1, s: 1e3, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
  // "18.0 (15.8–20.6)" is 18; "1.07 ms" and "340 µs" compare as times; what is no number comes last.
  const figure = (text) => {
    const found = /^[<×]?\s*(-?[\d.]+)\s*([^\d\s(%]+)?/.exec(text.trim());
    return found ? Number(found[1]) * (units[found[2]] ?? 1) : NaN;
  };
  const button = (text, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  };

  for (const table of document.querySelectorAll(".figures table")) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      if (!head.textContent) return;
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].textContent;
        const order = (a, b) => {
          const [x, y] = [figure(value(a)), figure(value(b))];
          if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || value(a).localeCompare(value(b)) * (down ? -1 : 1);
          return (x - y) * (down ? -1 : 1);
        };
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(order));
      };
      head.replaceChildren(button(head.textContent, sort));
    });
  }

  const linear = document.querySelector("figure.linear");
  const log = document.querySelector("figure.log");
  if (linear && log) {
    const toggle = button("Linear axis", () => {
      linear.hidden = !linear.hidden;
      log.hidden = !linear.hidden;
      toggle.textContent = linear.hidden ? "Linear axis" : "Logarithmic axis";
    });
    toggle.className = "axis";
    log.before(toggle);
  }

  // A line below a chart for what is pointed at.
  const line = (chart) => {
    const said = document.createElement("p");
    said.className = "second hover";
    said.setAttribute("aria-live", "polite");
    said.textContent = "Point at the chart to read it.";
    chart.append(said);
    return said;
  };
  // Where the pointer is on the chart's own sheet.
  const place = (svg, event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };

  for (const chart of document.querySelectorAll("figure[data-plot]")) {
    const svg = chart.querySelector("svg");
    const plot = JSON.parse(chart.dataset.plot);
    const said = line(chart);
    const share = (quantiles, time) => {
      if (time < quantiles[0]) return 0;
      const after = quantiles.findIndex((quantile) => quantile > time);
      return after < 0 ? 100 : Math.max(after - 1, 0) * (100 / (quantiles.length - 1));
    };
    svg.addEventListener("pointermove", (event) => {
      const [x] = place(svg, event);
      const part = Math.min(Math.max((x - plot.left) / (plot.right - plot.left), 0), 1);
      const time = plot.log ? plot.low * (plot.high / plot.low) ** part : plot.low + (plot.high - plot.low) * part;
      const shares = plot.curves.map((curve) => `${curve.name} ${Math.round(share(curve.quantiles, time))}%`);
      said.textContent = `Started after ${time.toPrecision(3)} ms: ${shares.join(", ")}`;
    });
  }

  for (const chart of document.querySelectorAll("figure[data-hints]")) {
    const svg = chart.querySelector("svg");
    const hints = JSON.parse(chart.dataset.hints);
    const said = line(chart);
    const away = ([left, top, right, bottom], x, y) =>
      Math.hypot(Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
    svg.addEventListener("pointermove", (event) => {
      const [x, y] = place(svg, event);
      // The nearest part within reach of a fingertip; the first of several at the same place.
      let [nearest, least] = [null, 24];
      for (const [box, text] of hints) {
        const distance = away(box, x, y);
        if (distance < least) [nearest, least] = [text, distance];
      }
      if (nearest) said.textContent = nearest;
    });
  }
})();
