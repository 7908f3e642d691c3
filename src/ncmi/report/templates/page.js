"use strict";
// What a page does: draws charts, follows legends and choices, sorts and filters tables, saves figures and data.
(() => {
  const root = document.documentElement;
  const views = new Map(); // panel -> view
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const errors = [];
  const fault = (error) => {
    errors.push(String(error));
    root.dataset.errors = errors.join("\n");
  };
  window.addEventListener("error", (event) => fault(event.message));
  window.addEventListener("unhandledrejection", (event) => fault(event.reason));
  document.addEventListener("securitypolicyviolation", (event) => fault("blocked " + event.blockedURI + " " + event.violatedDirective));

  // --- charts

  // colors that charts are drawn in become the page's, which differ in light and dark; data is left alone
  const toned = (tones, value) => {
    if (Array.isArray(value)) return value.map((part) => toned(tones, part));
    if (typeof value === "string") return Object.hasOwn(tones, value) ? tones[value] : value;
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, part]) => [key, ["data", "datasets", "domain"].includes(key) ? part : toned(tones, part)]));
  };

  const sized = (chart, width) => ({ width, height: chart.square ? width : chart.height });

  const draw = (chart, spec, box, renderer, width) =>
    vegaEmbed(box, { ...spec, ...sized(chart, width), autosize: { type: "fit", contains: "padding" } },
      { mode: "vega-lite", renderer, actions: false, ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true } });

  const content = (panel) => JSON.parse(panel.querySelector("script").textContent);

  const drawAll = async () => {
    const tones = JSON.parse(document.getElementById("tones").textContent);
    const font = getComputedStyle(document.body).fontFamily;
    for (const panel of all(".panel:has(.chart)")) {
      const chart = content(panel);
      const box = panel.querySelector(".chart");
      let width = box.clientWidth;
      try {
        const spec = toned(tones, chart.spec);
        spec.config.font = font;
        const { view } = await draw(chart, spec, box, "svg", width);
        views.set(panel, view);
        new ResizeObserver(() => {
          if (box.clientWidth && Math.abs(box.clientWidth - width) > 1) {
            width = box.clientWidth;
            const size = sized(chart, width);
            view.width(size.width).height(size.height).runAsync();
          }
        }).observe(box);
      } catch (error) {
        fault(error);
      }
    }
    all(".choice button[aria-pressed=true]").forEach(choose);
  };

  // --- legends and choices

  const isolate = (button) => {
    const figure = button.closest("figure");
    const pressed = button.getAttribute("aria-pressed") !== "true";
    all(".legend button", figure).forEach((other) => other.setAttribute("aria-pressed", String(other === button && pressed)));
    figure.querySelector(".legend").classList.toggle("isolating", pressed);
    for (const panel of all(".panel", figure)) {
      const view = views.get(panel);
      if (view) view.signal("isolated", pressed ? button.dataset.series : "").runAsync();
    }
  };

  const choose = (button) => {
    const figure = button.closest("figure");
    all(".choice button", figure).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    all("[data-group]", figure).forEach((group) => { group.hidden = group.dataset.group !== button.dataset.choice; });
  };

  // --- saving

  const save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // what a spreadsheet would take for a formula becomes text
  const field = (value) => {
    if (value === null || value === undefined) return "";
    let words = String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(words) && !/^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(words)) words = "'" + words;
    return /[",\r\n]/.test(words) ? '"' + words.replaceAll('"', '""') + '"' : words;
  };
  const csv = (rows) => rows.map((row) => row.map(field).join(",") + "\n").join("");

  const chartRows = (chart) => {
    const values = chart.spec.data.values;
    const columns = chart.columns.filter(([key]) => values.some((row) => row[key] !== undefined));
    return [columns.map(([, name]) => name), ...values.map((row) => columns.map(([key]) => row[key]))];
  };

  const tableRows = (table) => {
    const words = (cell) => [cell.firstChild ? cell.firstChild.textContent : "", ...all(".sub", cell).map((part) => part.textContent)]
      .map((part) => part.trim()).filter(Boolean).join("; ");
    const lines = all("tbody tr:not([hidden])", table);
    return [all("thead th", table).map((cell) => cell.textContent.trim()), ...lines.map((row) => [...row.cells].map(words))];
  };

  const saveFigure = async (panel, kind) => {
    const chart = content(panel);
    if (kind === "csv") return save(chart.name + ".csv", new Blob(["\ufeff" + csv(chartRows(chart))], { type: "text/csv" }));
    // on light paper, whatever the page looks like
    const box = document.createElement("div");
    const spec = { ...chart.spec, config: { ...chart.spec.config, background: "#ffffff", padding: 12 } };
    const { view } = await draw(chart, spec, box, "svg", 520);
    view.signal("isolated", views.get(panel).signal("isolated"));
    await view.runAsync();
    if (kind === "svg") save(chart.name + ".svg", new Blob([await view.toSVG()], { type: "image/svg+xml" }));
    else (await view.toCanvas(3)).toBlob((blob) => save(chart.name + ".png", blob));
    view.finalize();
  };

  // --- tables

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  // numbers before words, what is missing last
  const compare = (a, b, sign) => {
    const missing = (one) => one === "" || one === "–";
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * a.localeCompare(b, undefined, { numeric: true });
  };

  // a first click on numbers puts the largest first, a third one the given order
  const sort = (header) => {
    const table = header.closest("table");
    const body = table.tBodies[0];
    const column = header.cellIndex;
    const rows = [...body.rows];
    rows.forEach((row, place) => { row.dataset.place ??= place; });
    const numbers = rows.some((row) => typeof value(row, column) === "number");
    const orders = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
    const order = [...orders, "none"][orders.indexOf(header.getAttribute("aria-sort")) + 1];
    all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
    if (order !== "none") header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => (order !== "none" && compare(value(a, column), value(b, column), sign)) || a.dataset.place - b.dataset.place);
    body.append(...rows);
    table.classList.toggle("sorted", order !== "none");
  };

  const filter = (table) => {
    const chosen = all("select", table).map((select) => select.value);
    const rows = all("tbody tr", table);
    const rare = chosen.some((value) => value !== "");
    for (const row of rows) {
      const keys = JSON.parse(row.dataset.keys);
      row.hidden = !chosen.every((value, place) => value === "" || value === "*" || keys[place] === value) ||
        ("rare" in row.dataset && !rare);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    table.querySelector(".shown").textContent = rare ? shown + " of " + rows.length + " rows" : "";
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.series !== undefined) isolate(button);
    else if (button.dataset.choice) choose(button);
    else if (button.dataset.save === "table") {
      const table = button.closest(".table");
      save(table.dataset.name + ".csv", new Blob(["\ufeff" + csv(tableRows(table))], { type: "text/csv" }));
    } else if (button.dataset.save) saveFigure(button.closest(".panel"), button.dataset.save).catch(fault);
    else if (button.closest("thead")) sort(button.closest("th"));
  });
  document.addEventListener("change", (event) => {
    const table = event.target.closest(".table");
    if (table) filter(table);
  });
  // browsers keep what was chosen before a page was loaded again
  all(".table:has(select)").forEach(filter);

  // a picture that the wheel enlarges around the pointer, and that is moved by dragging
  all(".zoom").forEach((view) => {
    const stage = view.querySelector(".stage"), section = view.closest("section");
    let scale = 1, left = 0, top = 0, from = null;
    const show = () => {
      const fit = (offset, length) => Math.min(0, Math.max(offset, length * (1 - scale)));
      left = fit(left, view.clientWidth);
      top = fit(top, view.clientHeight);
      stage.style.transform = "translate(" + left + "px," + top + "px) scale(" + scale + ")";
    };
    const enlarge = (factor, x = view.clientWidth / 2, y = view.clientHeight / 2) => {
      const next = Math.min(64, Math.max(1, scale * factor));
      left = x - (x - left) * next / scale;
      top = y - (y - top) * next / scale;
      scale = next;
      show();
    };
    view.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = view.getBoundingClientRect();
      enlarge(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    view.addEventListener("pointerdown", (event) => {
      from = [event.clientX - left, event.clientY - top];
      view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      if (!from) return;
      [left, top] = [event.clientX - from[0], event.clientY - from[1]];
      show();
    });
    view.addEventListener("pointerup", () => { from = null; });
    section.querySelector(".closer").addEventListener("click", () => enlarge(1.5));
    section.querySelector(".farther").addEventListener("click", () => enlarge(1 / 1.5));
    section.querySelector(".whole").addEventListener("click", () => enlarge(1 / scale));
    section.querySelector(".fade").addEventListener("input", (event) => {
      view.querySelector(".heat").style.opacity = event.target.value / 100;
    });
  });

  const drawn = document.getElementById("tones") ? drawAll().catch(fault) : Promise.resolve();
  drawn.then(() => { root.dataset.ready = "yes"; });
})();
