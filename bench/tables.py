"""bench/run's results as Markdown: what each server did, and ours against what is aimed at."""

import matrix


def markdown(result):
    out = [
        f"Measured on {result['date']}, {result['machine']}; everything on that one machine, over the",
        f"loopback, data on one disk. `{result['command']}`: medians of {result['rounds']} runs of",
        f"{result['seconds']} s in turn, 64-byte values unless said, 100,000 keys, through the leader.",
        "Thousands of commands a second, and p50/p99 in milliseconds.",
        "",
    ]
    out += throughput(result)
    out += [""] + apart(result)
    out += ["", "Ours against each peer, and what is aimed at:", ""] + targets(result)
    for name, failures in result["failed"].items():
        out += [line for why in failures for line in ("", f"FAILED: {name}: {why}")]
    for name, why in result["skipped"].items():
        out += ["", f"SKIPPED: {name}: {why}"]
    return "\n".join(out) + "\n"


def throughput(result):
    names = result["servers"]
    head = ["work"] + [word for name in names for word in (name, "p50/p99")]
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, by in result["rows"].items():
        cells = [row] + [cell for name in names for cell in two_cells(by.get(name))]
        out.append("| " + " | ".join(cells) + " |")
    return out


def two_cells(figures):
    if figures is None:
        return "-", "-"
    errors = f" ({figures['errors']} errors)" if figures["errors"] else ""
    return f"{figures['per_second'] / 1000:.1f}{errors}", f"{figures['p50']:.2f}/{figures['p99']:.2f}"


def apart(result):
    """What is measured apart from the rows."""
    names = result["servers"]
    keys = next((f"{one['keys']:,}" for one in result["loaded"].values()), "")
    lines = [
        (f"resident MiB with {keys} keys of 100 bytes, of the largest process", "loaded", "mib", "{:.0f}"),
        ("restart with them: seconds until a read through each node is answered", "loaded", "seconds", "{:.2f}"),
        ("`kill -9` of the leader to the next write, ms", "failover", "median_ms", "{:.1f}"),
        ("longest write when the leader is killed under 1,000 a second, ms", "kill", "longest_ms", "{:.0f}"),
        ("errors that these writes met", "kill", "errors", "{}"),
    ]
    out = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for what, kind, figure, form in lines:
        values = [result[kind].get(name, {}).get(figure) for name in names]
        cells = ["-" if value is None else form.format(value) for value in values]
        if any(value is not None for value in values):
            out.append(f"| {what} | " + " | ".join(cells) + " |")
    return out


def targets(result):
    ours = result["servers"][0]
    peers = [matrix.ETCD, matrix.REDISRAFT, matrix.REDIS, matrix.PLAIN]
    peers = [peer for peer in peers if peer in result["servers"]]
    out = ["| work | figure | " + " | ".join(f"against {peer}" for peer in peers) + " |"]
    out.append("|---" * (len(peers) + 2) + "|")
    for row, figure, aims in matrix.TARGETS:
        mine = figure_of(result, row, figure, ours)
        cells = []
        for peer in peers:
            theirs = figure_of(result, row, figure, peer)
            if peer not in aims:
                cells.append("")
            elif mine is None or not theirs:
                cells.append(f"not measured (aim: {aim(figure, aims[peer])})")
            else:
                cells.append(verdict(figure, mine / theirs, aims[peer]))
        if any(cells):
            out.append(f"| {row} | {matrix.FIGURES[figure]} | " + " | ".join(cells) + " |")
    return out


def figure_of(result, row, figure, server):
    if row in ("memory", "restart"):
        return result["loaded"].get(server, {}).get(figure)
    if row == "failover":
        return result["failover"].get(server, {}).get(figure)
    return result["rows"].get(row, {}).get(server, {}).get(figure)


def aim(figure, target):
    return f"{'at least' if figure == 'per_second' else 'at most'} {target:g}"


def verdict(figure, ratio, target):
    is_met = ratio >= target if figure == "per_second" else ratio <= target
    return f"{'**' if is_met else ''}{ratio:.2g}{'**' if is_met else ''} (aim: {aim(figure, target)})"
