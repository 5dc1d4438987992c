// What a reader sees of the notebook that is open in JupyterLab; run by tests/lab.py.
const page = window.jupyterapp.shell.currentWidget.node;
const areas = [...page.querySelectorAll('.jp-OutputArea-output')];
const all = selector => areas.flatMap(area => [...area.querySelectorAll(selector)]);

const channels = colour => colour.match(/[\d.]+/g).map(Number);
function background(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
}
// Contrast of WCAG 2.1 (relative luminance of sRGB).
function luminance(colour) {
  const [r, g, b] = colour.slice(0, 3).map(
    c => c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(element) {
  const pair = [channels(getComputedStyle(element).color), background(element)].map(luminance);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}
function corner(image) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, 1, 1).data];
}

const figures = all('img');
const words = all('td, th, caption, pre, .jp-RenderedMarkdown p');
const wide = areas.filter(area => area.scrollWidth > area.clientWidth + 1);
const edge = page.getBoundingClientRect().right;
return {
  figures: figures.length,
  unloaded: figures.filter(image => !image.complete || image.naturalWidth === 0).length,
  corners: figures.map(corner),
  tables: all('table').filter(table => table.rows.length > 1).length,
  cut: [...wide, ...figures.filter(image => image.getBoundingClientRect().right > edge)]
    .map(element => element.textContent.slice(0, 80) || element.tagName),
  faint: words.filter(element => element.textContent.trim() && contrast(element) < 4.5)
    .map(element => element.textContent.slice(0, 80)),
  bars: all('.progress-bar, progress').map(bar => bar.style.width || bar.value),
  text: areas.map(area => area.innerText).join('\n'),
};
