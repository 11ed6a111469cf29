"""What a page in a browser looks like, as JavaScript for `page.evaluate(CUT, selector)`.

CUT lists what does not fit its box or the window, CONTRAST is the least contrast of texts (WCAG's ratio).
"""

CUT = """boxes => [...document.querySelectorAll(boxes)].filter(node => {
  const box = node.getBoundingClientRect(), style = getComputedStyle(node);
  if (!box.width || node.closest('svg') && node.tagName != 'svg') return false;
  const inside = node.scrollWidth <= node.clientWidth + 1 && node.scrollHeight <= node.clientHeight + 1;
  return box.left < 0 || box.right > innerWidth || (style.display != 'inline' && !inside && node.clientWidth);
}).map(node => node.tagName + ' ' + node.id + ' ' + node.textContent.slice(0, 60))"""
CONTRAST = """texts => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = node => {
    const colour = getComputedStyle(node).backgroundColor, alpha = channels(colour)[3] ?? 1;
    return alpha > 0 ? colour : node.parentElement ? behind(node.parentElement) : 'rgb(255, 255, 255)';
  };
  return [...document.querySelectorAll(texts)].filter(node => node.checkVisibility())
    .map(node => {
      const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }).reduce((least, node) => Math.min(least, node));
}"""
