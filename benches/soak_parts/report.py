"""Figures of a soak: a slope with its confidence interval, and a plot without a library."""

import math
import statistics

# Two-sided 95 % of Student's t, by degrees of freedom.
T95 = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10]
BLOCKS = 18
WIDTH, PANEL, GAP, LEFT, RIGHT, TOP = 960, 150, 46, 76, 20, 40
POINTS = 300


def blocks(points, count):
    """The means of equal spans of time, so that correlation within a span does not make the interval narrower."""
    first, last = points[0][0], points[-1][0]
    span = (last - first) / count or 1
    groups = [[] for _ in range(count)]
    for at, value in points:
        groups[min(int((at - first) / span), count - 1)].append((at, value))
    return [tuple(map(statistics.fmean, zip(*group))) for group in groups if group]


def slope(points, count=BLOCKS):
    """Least squares over block means: value per unit of time, and half the width of its 95 % interval."""
    means = blocks(points, count)
    if len(means) < 4:
        return None
    x, y = zip(*means)
    middle, level = statistics.fmean(x), statistics.fmean(y)
    spread = sum((one - middle) ** 2 for one in x)
    rise = sum((a - middle) * (b - level) for a, b in means) / spread
    rest = sum((b - level - rise * (a - middle)) ** 2 for a, b in means)
    freedom = len(means) - 2
    return rise, T95[min(freedom, len(T95)) - 1] * math.sqrt(rest / freedom / spread)


def ends(points):
    """The medians of the first and the last tenth."""
    tenth = max(len(points) // 10, 1)
    values = [value for _, value in points]
    return statistics.median(values[:tenth]), statistics.median(values[-tenth:])


def ticks(low, high, count):
    raw = (high - low) / count or 1
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(points, join):
    """Merges neighbouring points into at most POINTS, so that the file stays small."""
    size = math.ceil(len(points) / POINTS) or 1
    groups = (points[at : at + size] for at in range(0, len(points), size))
    return [(statistics.fmean(at for at, _ in group), join(value for _, value in group)) for group in groups]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:g}"


class Plot:
    """Panels on top of each other, with a common axis of minutes."""

    def __init__(self, title, minutes, marks):
        self.title, self.minutes, self.marks = title, max(minutes, 0.1), marks
        self.parts, self.panels = [], 0

    def x(self, minute):
        return LEFT + minute / self.minutes * (WIDTH - LEFT - RIGHT)

    def panel(self, title, lines, from_zero=True, logarithmic=False):
        """`lines`: name, colour, points of minute and value, how points are merged, whether it is dashed."""
        top = TOP + self.panels * (PANEL + GAP)
        self.panels += 1
        lines = [(name, colour, thinned(points, join), dashed) for name, colour, points, join, dashed in lines if points]
        values = [value for _, _, points, _ in lines for _, value in points]
        if not values:
            return
        low, high = min(values), max(values)
        if logarithmic:
            low, high = 10 ** math.floor(math.log10(max(low, 0.01))), 10 ** math.ceil(math.log10(max(high, 0.02)))
            marks = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
            scale = lambda value: math.log10(max(value, low) / low) / math.log10(high / low)
        else:
            low = 0 if from_zero else low - max((high - low) * 0.15, abs(high) * 0.02)
            high = high + (high - low) * 0.08 if high > low else low + 1
            marks = ticks(low, high, 4)
            scale = lambda value: (value - low) / (high - low)
        y = lambda value: top + PANEL * (1 - scale(value))
        put = self.parts.append
        put(f'<text x="{LEFT}" y="{top - 8}" class="t">{title}</text>')
        for mark in marks:
            put(f'<path d="M{LEFT} {y(mark):.1f}H{WIDTH - RIGHT}" class="g"/>')
            put(f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" class="e">{number(mark)}</text>')
        for minute in ticks(0, self.minutes, 12):
            put(f'<text x="{self.x(minute):.1f}" y="{top + PANEL + 15}" class="m">{number(minute)}</text>')
        for minute in self.marks:
            put(f'<path d="M{self.x(minute):.1f} {top + PANEL}v-5" class="r"/>')
        put(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" class="f"/>')
        right = WIDTH - RIGHT
        for name, colour, points, dashed in reversed(lines):
            path = " ".join(f"{self.x(at):.1f},{y(value):.1f}" for at, value in points)
            style = ' stroke-dasharray="6 4"' if dashed else ""
            put(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"{style}/>')
            put(f'<text x="{right}" y="{top - 8}" class="e" fill="{colour}">{name}</text>')
            right -= 7.2 * len(name) + 16

    def svg(self):
        height = TOP + self.panels * (PANEL + GAP) + 6
        style = (
            "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.e{text-anchor:end}.m{text-anchor:middle}"
            ".g{stroke:#ddd}.r{stroke:#888}.f{fill:none;stroke:#888}"
        )
        # The style sheet overrides attributes, so a legend's colour must be a style.
        parts = [part.replace(' class="e" fill="', ' class="e" style="fill:') for part in self.parts]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
            f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="{LEFT}" y="16">{self.title}</text>\n' + "\n".join(parts)
            + f'\n<text x="{WIDTH - RIGHT}" y="{height - 4}" class="e">minutes; small marks: a reload</text></svg>\n'
        )
