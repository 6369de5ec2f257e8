(() => {
  "use strict";
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("figures").textContent);
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("mode");
  const holders = [...document.querySelectorAll("[data-figure]")];
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  // Figures are drawn in light colours; the dark ones are found by exact look-up.
  const recoloured = (value, colours) => {
    if (typeof value === "string") return Object.hasOwn(colours, value) ? colours[value] : value;
    if (Array.isArray(value)) return value.map((item) => recoloured(item, colours));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, recoloured(item, colours)]));
    }
    return value;
  };

  const draw = (holder, dark, size) => {
    const colours = dark ? data.dark : {};
    const figure = recoloured(data.figures[holder.dataset.figure], colours);
    const layout = { ...figure.layout, template: recoloured(data.template, colours), ...size };
    if (size.width && layout.height < 300) layout.height = 200;
    Plotly.react(holder, figure.data, layout, config);
    holder.dataset.drawn = "";
  };
  const drawAll = (dark, size) => holders.forEach((holder) => draw(holder, dark, size));
  const redraw = () => holders.forEach((holder) => "drawn" in holder.dataset && draw(holder, isDark(), {}));

  // One after another from the top, so that the page answers while the rest is drawn.
  const drawFrom = (index) => {
    if (index === holders.length) return;
    if (!("drawn" in holders[index].dataset)) draw(holders[index], isDark(), {});
    setTimeout(() => drawFrom(index + 1), 0);
  };
  drawFrom(0);

  const label = () => {
    button.textContent = isDark() ? "Light mode" : "Dark mode";
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    redraw();
  });
  system.addEventListener("change", () => {
    label();
    redraw();
  });
  label();

  // Paper is light and two charts wide, whatever the window is.
  window.addEventListener("beforeprint", () => {
    drawAll(false, { width: 330, autosize: false });
    document.querySelectorAll("details").forEach((item) => {
      if (!item.open) {
        item.open = true;
        item.dataset.opened = "";
      }
    });
  });
  window.addEventListener("afterprint", () => {
    document.querySelectorAll("details[data-opened]").forEach((item) => {
      item.open = false;
      delete item.dataset.opened;
    });
    holders.forEach((holder) => {
      Plotly.purge(holder);
      draw(holder, isDark(), {});
    });
  });

  const filter = document.getElementById("filter");
  if (filter) {
    const groups = [...document.querySelectorAll("#forecast-table tbody")];
    const status = document.getElementById("filter-status");
    filter.closest("p").hidden = false;
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      let shown = 0;
      for (const group of groups) {
        group.hidden = !group.querySelector("th span").textContent.toLowerCase().includes(wanted);
        shown += !group.hidden;
      }
      status.textContent = wanted ? `${shown} of ${groups.length} symbols` : "";
    });
  }
})();
