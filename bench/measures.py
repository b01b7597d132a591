"""The measurements of bench/run: each takes running servers and gives back figures.

A server that fails loses its own results, and nobody else's: every measurement goes through
`attempt`, which says aloud what went wrong and puts a gap in its place. Whose process has ended, or
who fails again and again, is measured no further.
"""

import json
import statistics
import subprocess
import sys
import threading
import time

import matrix
from servers import Failed

# A probe of the fail-over waits so long for its write before it sends another one.
PROBE_SECONDS = 0.1
PROBES_PER_NODE = 2
FAILOVER_SECONDS = 30
# When the leader is killed in the run that shows latency over time, from its beginning.
KILL_AFTER_SECONDS = 4
# The run, its filling and its last replies never take longer than this beyond its time.
RUN_PATIENCE_SECONDS = 90
# So often a server may fail before it is measured no further.
FAILURES = 3


def attempt(server, what, measure):
    """What `measure` comes to, or nothing if the server fails, or has failed for good."""
    if server.is_given_up:
        return None
    try:
        server.check_alive()
        return measure()
    except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        why = "no end in time" if isinstance(error, subprocess.TimeoutExpired) else error
        server.failures.append(f"{what}: {why}")
        server.is_given_up = len(server.failures) >= FAILURES or not server.is_alive()
        print(f"FAILED {server.name}: {server.failures[-1]}", file=sys.stderr)
        return None


def say(text):
    print(text, file=sys.stderr, flush=True)


def bench(tools, server, words, seconds, endpoint=None, patience=RUN_PATIENCE_SECONDS):
    """One run of rkv-bench, through the server's leader unless another endpoint is named."""
    command = [f"{tools}/rkv-bench", "--json", "-q", "-s", str(seconds)] + server.words
    command += ["-c", endpoint or server.leader()] + words
    for name, default in (("--value-bytes", "64"), ("--warm-up", "1"), ("--keys", "100000")):
        if name not in words:
            command += [name, default]
    output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + patience)
    if not output.stdout:
        raise Failed(f"{' '.join(words)}: {output.stderr.strip()}")
    return json.loads(output.stdout)


def rows(tools, running, arguments):
    """Every row on every server in turn, several times; medians."""
    wanted = [(name, words) for name, words in matrix.ROWS if arguments.only in name]
    runs = {name: {server.name: [] for server in running} for name, _ in wanted}
    holds = {}
    for number in range(arguments.rounds):
        for name, words in wanted:
            for server in running:
                if server.name in matrix.LEFT_OUT.get(name, []):
                    continue
                result = attempt(server, name, lambda: row(tools, server, words, arguments, holds))
                if result is None:
                    continue
                runs[name][server.name].append(result)
                figures = f"{result['requests_per_second']:>9.0f}/s  p99 {result['latency_ms']['p99']:.3f} ms"
                say(f"{number + 1}/{arguments.rounds} {name:<36} {server.name:<34} {figures}")
    return {name: {server: medians(of) for server, of in by.items() if of} for name, by in runs.items()}


def row(tools, server, words, arguments, holds):
    """One run. Reads find what was written: keys are filled where the size of values changes."""
    size = words[words.index("--value-bytes") + 1] if "--value-bytes" in words else "64"
    fill = [] if holds.get(server.name) == size else ["--fill"]
    result = bench(tools, server, words + fill, arguments.seconds)
    holds[server.name] = size
    return result


def medians(results):
    """The median of each figure over the runs; errors are added up."""
    figures = {"per_second": statistics.median(one["requests_per_second"] for one in results)}
    for name in results[0]["latency_ms"]:
        figures[name] = statistics.median(one["latency_ms"][name] for one in results)
    figures["errors"] = sum(sum(one["errors"].values()) for one in results)
    figures["runs"] = len(results)
    return figures


def over_clients(tools, running, arguments):
    """SET at more and more clients: pairs of clients and commands a second."""
    by = {server.name: [] for server in running}
    for clients in matrix.CLIENTS:
        words = ["-w", "set", "--clients", str(clients)]
        for server in running:
            run = lambda: bench(tools, server, words, arguments.seconds)["requests_per_second"]
            rate = attempt(server, f"{clients} clients", run)
            if rate is not None:
                by[server.name].append([clients, rate])
    return {name: points for name, points in by.items() if points}


def kill_under_load(tools, server):
    """Writes at a steady rate through a survivor, while the leader is killed."""
    survivor = server.survivor()
    words = ["--rate", "1000", "--clients", "16", "--interval-ms", "100"]
    command = [f"{tools}/rkv-bench", "--json", "-q", "-s", "8", "--warm-up", "1", "-c", survivor]
    process = subprocess.Popen(command + words + server.words, stdout=subprocess.PIPE, text=True)
    time.sleep(KILL_AFTER_SECONDS + 1)
    victim = server.position()
    server.end(victim)
    result = json.loads(process.communicate(timeout=RUN_PATIENCE_SECONDS)[0])
    server.spawn(victim)
    server.wait_until_whole()
    errors = sum(result["errors"].values())
    say(f"kill -9 under load: {server.name}, longest write {result['latency_ms']['max']:.0f} ms, {errors} errors")
    return {
        "intervals": result["per_second"],
        "interval_ms": 100,
        "errors": errors,
        "longest_ms": result["latency_ms"]["max"],
    }


def failover(server, kills):
    """From `kill -9` of the leader to the first acknowledgement of a write sent after it."""
    waits = []
    for _ in range(kills):
        victim = server.position()
        survivors = [one for number, one in enumerate(server.endpoints) if number != victim]
        waits.append(next_write_ms(server, survivors, lambda: server.end(victim)))
        server.spawn(victim)
        server.wait_until_whole()
        time.sleep(1)
    say(f"kill -9 to the next write: {server.name}, {', '.join(f'{wait:.1f}' for wait in waits)} ms")
    return {"median_ms": statistics.median(waits), "longest_ms": max(waits), "kills": kills}


def next_write_ms(server, survivors, kill):
    """Several writes are under way at each survivor all the time, each on a connection of its own:
    one that was lost with the leader holds up none that could be acknowledged."""
    acknowledged, is_over = [], threading.Event()
    killed = [float("inf")]

    def probe(endpoint):
        while not is_over.is_set():
            sent = time.monotonic()
            if server.write(endpoint, PROBE_SECONDS) and sent >= killed[0]:
                acknowledged.append(time.monotonic())
                is_over.set()
            # A refusal comes at once: asking again without a pause would only cost time.
            is_over.wait(0.001)

    probes = [threading.Thread(target=probe, args=(one,)) for one in survivors * PROBES_PER_NODE]
    for thread in probes:
        thread.start()
    time.sleep(0.2)
    killed[0] = time.monotonic()
    kill()
    is_over.wait(FAILOVER_SECONDS)
    is_over.set()
    for thread in probes:
        thread.join()
    if not acknowledged:
        raise Failed(f"no write is acknowledged {FAILOVER_SECONDS} s after the leader's death")
    return 1000 * (min(acknowledged) - killed[0])


def loaded(tools, server, keys):
    """Memory with so many keys of 100 bytes, and the time from a start to an answer with them."""
    words = ["-w", "get", "--clients", "1", "--fill", "--keys", str(keys), "--value-bytes", "100"]
    bench(tools, server, words, 1, patience=600)
    # What was put off to a quiet moment, a snapshot or a rewritten log, is to be over.
    time.sleep(3)
    figures = {"keys": keys, "mib": server.resident_mib()}
    if not server.keeps_nothing:
        figures["seconds"] = restart(server, keys)
    seconds = f", restart {figures['seconds']:.2f} s" if "seconds" in figures else ""
    say(f"{keys} keys of 100 bytes: {server.name}, {figures['mib']:.0f} MiB{seconds}")
    return figures


def restart(server, keys):
    """All processes end cleanly and start again; until a read through each one is answered."""
    last = f"bench:{keys - 1:012}"
    server.restart()
    began = time.monotonic()
    waiting = list(server.endpoints)
    while waiting:
        if time.monotonic() - began > 120:
            raise Failed("no read is answered two minutes after a restart")
        waiting = [endpoint for endpoint in waiting if len(server.read(endpoint, last) or "") != 100]
        time.sleep(0.005)
    return time.monotonic() - began
