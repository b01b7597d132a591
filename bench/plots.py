"""Plots of bench/run's results, drawn as SVG with nothing but text."""

import math

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 400, 70, 40, 20, 90
COLOURS = ["#0b6e4f", "#c1292e", "#235789", "#8a8d91", "#f1a208"]


def write_all(result, out):
    """throughput.svg, latency.svg and kill.svg, each where there is something to draw."""
    series = result["clients"]
    if series:
        text = lines(series, "SET: thousands a second against clients", "clients", 1e-3)
        (out / "throughput.svg").write_text(text)
    row = result["rows"].get("SET, 256 clients") or next(iter(result["rows"].values()), None)
    if row:
        names = ["p50", "p90", "p99", "p99.9", "p99.99"]
        series = {
            server: [[position, figures[name]] for position, name in enumerate(names, 1)]
            for server, figures in row.items()
        }
        title = "SET, 256 clients: latency in milliseconds by percentile"
        (out / "latency.svg").write_text(lines(series, title, "", 1, names, log=True))
    if result["kill"]:
        series = {
            server: [[(one["second"] + 1) * kill["interval_ms"] / 1000, one["max_ms"]] for one in kill["intervals"]]
            for server, kill in result["kill"].items()
        }
        title = "The longest write of each tenth of a second, in milliseconds; the leader is killed after four"
        (out / "kill.svg").write_text(lines(series, title, "seconds", 1, log=True, even=False))


def lines(series, title, x_name, scale, x_labels=None, log=False, even=True):
    """One polyline a server. The points' places are at even distances, or where their numbers say."""
    points = [(x, y * scale) for of in series.values() for x, y in of if y > 0]
    xs = sorted({x for x, _ in points})
    top = max(y for _, y in points)
    bottom = min(y for _, y in points) if log else 0

    def across(x):
        share = xs.index(x) / max(1, len(xs) - 1) if even else x / xs[-1]
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(y):
        if log:
            low, high = math.floor(math.log10(bottom)), math.ceil(math.log10(top))
            share = (math.log10(y) - low) / max(1, high - low)
        else:
            share = y / top
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{title}</text>',
    ]
    for mark in marks(bottom, top, log):
        y = up(mark)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for number, x in enumerate(xs):
        if not even and x != int(x):
            continue
        label = x_labels[number] if x_labels else f"{x:g}"
        out.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>')
    out.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - BOTTOM + 36}" text-anchor="middle">{x_name}</text>')
    for number, (server, of) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y * scale):.1f}" for x, y in of if y > 0)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x = LEFT + (number % 2) * 320
        y = HEIGHT - 32 + (number // 2) * 18
        out.append(f'<rect x="{x}" y="{y - 9}" width="14" height="4" fill="{colour}"/>')
        out.append(f'<text x="{x + 20}" y="{y}">{server}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def marks(bottom, top, log):
    """Where the vertical axis is labelled."""
    if log:
        low, high = math.floor(math.log10(bottom)), math.ceil(math.log10(top))
        return [10.0**power for power in range(low, high + 1)]
    step = 10 ** math.floor(math.log10(top))
    step = step if top / step >= 3 else step / 4
    return [step * number for number in range(int(top / step) + 1)]
