"""The servers that bench/run measures: how each is started, asked who leads, and stopped."""

import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

START_SECONDS = 20
# As many keys as a server may have to load before it answers again.
LOAD_SECONDS = 120
STOP_SECONDS = 30


def free_ports(count):
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask(endpoint, *words, timeout=2):
    """One command, its reply as text; nothing where it is not answered."""
    host, port = endpoint.rsplit(":", 1)
    encoded = b"*%d\r\n" % len(words)
    for word in words:
        encoded += b"$%d\r\n%s\r\n" % (len(word), word.encode())
    try:
        with socket.create_connection((host, int(port)), timeout=timeout) as connection:
            connection.sendall(encoded)
            reply = connection.recv(1 << 16)
            if reply.startswith(b"$"):
                length, _, rest = reply[1:].partition(b"\r\n")
                while len(rest) < int(length):
                    more = connection.recv(1 << 16)
                    if not more:
                        return None
                    rest += more
                return rest[: int(length)].decode()
            return reply.decode().strip()
    except (OSError, ValueError):
        return None


def post(endpoint, path, body, timeout=2):
    """One question to etcd's JSON gateway, and its answer; nothing where it is not answered."""
    host, port = endpoint.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        return json.loads(text) if response.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Failed(Exception):
    """A server does not do what it should: its own results are lost, and nobody else's."""


def wait_for(what, condition, seconds=START_SECONDS, pause=0.05):
    end = time.time() + seconds
    while time.time() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise Failed(f"not within {seconds} s: {what}")


class Server:
    """What is measured: one process, or several that lead in turn."""

    name = ""
    # What rkv-bench is told beside the row.
    words = []
    can_lose_its_leader = False
    keeps_nothing = False

    @staticmethod
    def missing(tools):
        """Why it can't be run here, or nothing."""

    def __init__(self, tools, folder):
        self.tools = tools
        self.folder = folder
        self.commands = []
        self.processes = []
        self.endpoints = []
        self.failures = []
        self.is_given_up = False

    def start(self):
        """From nothing to serving."""
        self.prepare()
        for number in range(len(self.commands)):
            self.spawn(number)
        self.found()

    def prepare(self):
        """Its endpoints, files and commands, one for each process."""

    def found(self):
        """What makes of its running processes a server."""

    def spawn(self, number):
        log = open(self.folder / f"process{number}.log", "ab")
        process = subprocess.Popen(self.commands[number], stdout=log, stderr=log, cwd=self.folder)
        self.processes[number:] = [process] + self.processes[number + 1 :]

    def end(self, number, how=signal.SIGKILL):
        self.processes[number].send_signal(how)
        self.processes[number].wait()

    def stop(self):
        for number, process in enumerate(self.processes):
            if process.poll() is None:
                self.end(number)
            process.wait()

    def restart(self):
        """Ends all processes cleanly, and starts them again; does not wait until they serve."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(STOP_SECONDS)
        for number in range(len(self.commands)):
            self.spawn(number)

    def is_alive(self):
        return all(process.poll() is None for process in self.processes)

    def check_alive(self):
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                raise Failed(f"process {number + 1} ended with {process.returncode}")

    def leader(self):
        return self.endpoints[0]

    def write(self, endpoint, timeout):
        """Whether a write through this node was acknowledged."""
        return ask(endpoint, "SET", "bench:probe", "1", timeout=timeout) == "+OK"

    def read(self, endpoint, key):
        """What a key holds, read as every client would; nothing where it isn't answered."""
        value = ask(endpoint, "GET", key)
        return value if value and value[:1] not in "-$" else None

    def resident_mib(self):
        """Memory of the process that has most."""
        sizes = []
        for process in self.processes:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            sizes += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]
        return max(sizes)


class Cluster(Server):
    """Three processes, one of which leads."""

    can_lose_its_leader = True

    def leads(self, endpoint):
        """Whether this node leads now."""
        return "raft_role:leader" in (ask(endpoint, "INFO", "raft") or "")

    def position(self):
        """Which one leads, as soon as one does."""
        leaders = lambda: [one for one in enumerate(self.endpoints) if self.leads(one[1])]
        return wait_for(f"a leader of {self.name}", leaders, LOAD_SECONDS)[0][0]

    def leader(self):
        return self.endpoints[self.position()]

    def survivor(self):
        return self.endpoints[(self.position() + 1) % 3]

    def wait_until_whole(self):
        """Until a write through any node is acknowledged."""
        for endpoint in self.endpoints:
            wait_for(f"{endpoint} writes", lambda: self.write(endpoint, 2), LOAD_SECONDS)


class Raftkv(Cluster):
    name = "raftkv, 3 nodes"

    @staticmethod
    def missing(tools):
        wanted = [name for name in ("raftkvd", "rkv-bench") if not pathlib.Path(tools, name).exists()]
        return f"no {' and no '.join(wanted)} in {tools}" if wanted else None

    def prepare(self):
        ports = free_ports(6)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:3]]
        text = '[cluster]\nname = "bench"\n'
        for number in range(3):
            text += f'\n[[cluster.node]]\nid = {number + 1}\npeer = "127.0.0.1:{ports[3 + number]}"\n'
            text += f'client = "{self.endpoints[number]}"\n'
        (self.folder / "node.toml").write_text(text)
        for number in range(1, 4):
            command = [f"{self.tools}/raftkvd", "-c", "node.toml", "--id", str(number)]
            self.commands.append(command + ["--data-dir", f"data{number}"])

    def found(self):
        self.wait_until_whole()

    def leads(self, endpoint):
        return super().leads(endpoint) and ask(endpoint, "RAFT", "HEALTH") == "+OK"


class Redis(Server):
    """One process: no consensus, no second copy."""

    options = []

    @staticmethod
    def missing(tools):
        return None if shutil.which("redis-server") else "no redis-server (Debian: redis-server)"

    def prepare(self):
        port = free_ports(1)[0]
        self.endpoints = [f"127.0.0.1:{port}"]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        self.commands = [command + ["--dir", str(self.folder)] + self.options]

    def found(self):
        wait_for(f"{self.name} answers", lambda: ask(self.endpoints[0], "PING") == "+PONG")


class RedisSynced(Redis):
    name = "Redis, 1 node, appendfsync always"
    options = ["--appendonly", "yes", "--appendfsync", "always"]


class RedisUnsynced(Redis):
    keeps_nothing = True
    name = "Redis, 1 node, keeps nothing"
    options = ["--appendonly", "no"]


class RedisRaft(Cluster):
    name = "RedisRaft, 3 nodes, log fsync"

    @staticmethod
    def missing(tools):
        module = os.environ.get("RAFTKV_REDISRAFT", "")
        if not module:
            return "RAFTKV_REDISRAFT does not name its redisraft.so"
        if not pathlib.Path(module).exists():
            return f"RAFTKV_REDISRAFT: no file {module}"
        return Redis.missing(tools)

    def prepare(self):
        ports = free_ports(3)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports]
        for number, port in enumerate(ports):
            folder = self.folder / f"data{number}"
            folder.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            command += ["--dir", str(folder), "--loadmodule", os.environ["RAFTKV_REDISRAFT"]]
            command += ["--raft.log-fsync", "yes", "--raft.follower-proxy", "yes"]
            self.commands.append(command + ["--raft.addr", self.endpoints[number]])

    def found(self):
        for endpoint in self.endpoints:
            wait_for(f"{endpoint} answers", lambda: ask(endpoint, "PING"))
        ask(self.endpoints[0], "RAFT.CLUSTER", "INIT")
        for endpoint in self.endpoints[1:]:
            ask(endpoint, "RAFT.CLUSTER", "JOIN", self.endpoints[0])
        whole = lambda: "raft_num_voting_nodes:3" in (ask(self.leader(), "INFO", "raft") or "")
        wait_for("three voters", whole)
        self.wait_until_whole()


class Etcd(Cluster):
    """etcd with its defaults, by its own protocol."""

    name = "etcd, 3 nodes"
    words = ["--etcd"]

    @staticmethod
    def missing(tools):
        if shutil.which("etcd") is None:
            return "no etcd (Debian: etcd-server)"
        told = subprocess.run([f"{tools}/rkv-bench", "--help"], capture_output=True, text=True).stdout
        if "--etcd" not in told:
            return f"{tools}/rkv-bench was built without it (cargo build --release --features etcd; needs protoc)"
        return None

    def prepare(self):
        ports = free_ports(6)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:3]]
        peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        everyone = ",".join(f"n{number}={peer}" for number, peer in enumerate(peers))
        for number in range(3):
            client = f"http://{self.endpoints[number]}"
            command = ["etcd", "--name", f"n{number}", "--data-dir", f"data{number}"]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number]]
            command += ["--initial-cluster", everyone, "--logger", "zap", "--log-level", "error"]
            self.commands.append(command)

    def found(self):
        self.wait_until_whole()

    def leads(self, endpoint):
        status = post(endpoint, "/v3/maintenance/status", {})
        return status is not None and status.get("leader", "0") == status["header"]["member_id"]

    def write(self, endpoint, timeout):
        words = {name: base64.b64encode(text).decode() for name, text in (("key", b"bench:probe"), ("value", b"1"))}
        return post(endpoint, "/v3/kv/put", words, timeout) is not None

    def read(self, endpoint, key):
        found = post(endpoint, "/v3/kv/range", {"key": base64.b64encode(key.encode()).decode()})
        values = [one.get("value", "") for one in (found or {}).get("kvs", [])]
        return base64.b64decode(values[0]).decode() if values else None


ALL = [Raftkv, Etcd, RedisRaft, RedisSynced, RedisUnsynced]
