"""The servers that bench/run measures: how each is started, asked who leads, and stopped."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

START_SECONDS = 20


def free_ports(count):
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def ask(endpoint, *words):
    """One command, its reply as text; nothing where it is not answered."""
    host, port = endpoint.rsplit(":", 1)
    encoded = b"*%d\r\n" % len(words)
    for word in words:
        encoded += b"$%d\r\n%s\r\n" % (len(word), word.encode())
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
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


def wait_for(what, condition):
    end = time.time() + START_SECONDS
    while time.time() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise SystemExit(f"not within {START_SECONDS} s: {what}")


class Server:
    """What is measured: one process, or several that lead in turn."""

    name = ""
    can_lose_its_leader = False

    @staticmethod
    def missing(tools):
        """Why it can't be run here, or nothing."""

    def __init__(self, tools, folder):
        self.tools = tools
        self.folder = folder
        self.processes = []
        self.endpoints = []

    def spawn(self, name, command):
        log = open(self.folder / f"{name}.log", "wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder))

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def leader(self):
        return self.endpoints[0]


class Cluster(Server):
    """Three processes, one of which leads."""

    can_lose_its_leader = True

    def leads(self, endpoint):
        """Whether this node leads now."""
        return "raft_role:leader" in (ask(endpoint, "INFO", "raft") or "")

    def position(self):
        """Which one leads, as soon as one does."""
        leaders = lambda: [one for one in enumerate(self.endpoints) if self.leads(one[1])]
        return wait_for(f"a leader of {self.name}", leaders)[0][0]

    def leader(self):
        return self.endpoints[self.position()]

    def survivor(self):
        return self.endpoints[(self.position() + 1) % 3]

    def kill_leader(self):
        self.processes[self.position()].send_signal(signal.SIGKILL)


class Raftkv(Cluster):
    name = "raftkv, 3 nodes"

    @staticmethod
    def missing(tools):
        wanted = [name for name in ("raftkvd", "rkv-bench") if not pathlib.Path(tools, name).exists()]
        return f"no {' and no '.join(wanted)} in {tools}" if wanted else None

    def start(self):
        ports = free_ports(6)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports[:3]]
        text = '[cluster]\nname = "bench"\n'
        for number in range(3):
            text += f'\n[[cluster.node]]\nid = {number + 1}\npeer = "127.0.0.1:{ports[3 + number]}"\n'
            text += f'client = "{self.endpoints[number]}"\n'
        (self.folder / "node.toml").write_text(text)
        for number in range(1, 4):
            command = [f"{self.tools}/raftkvd", "-c", "node.toml", "--id", str(number)]
            self.spawn(f"node{number}", command + ["--data-dir", f"data{number}"])
        self.position()

    def leads(self, endpoint):
        return super().leads(endpoint) and ask(endpoint, "RAFT", "HEALTH") == "+OK"


class Redis(Server):
    """One process: no consensus, no second copy."""

    options = []

    @staticmethod
    def missing(tools):
        return None if shutil.which("redis-server") else "no redis-server (Debian: redis-server)"

    def start(self):
        port = free_ports(1)[0]
        self.endpoints = [f"127.0.0.1:{port}"]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        self.spawn("redis", command + ["--dir", str(self.folder)] + self.options)
        wait_for(f"{self.name} answers", lambda: ask(self.endpoints[0], "PING") == "+PONG")


class RedisSynced(Redis):
    name = "Redis, 1 node, appendfsync always"
    options = ["--appendonly", "yes", "--appendfsync", "always"]


class RedisUnsynced(Redis):
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

    def start(self):
        ports = free_ports(3)
        self.endpoints = [f"127.0.0.1:{port}" for port in ports]
        for number, port in enumerate(ports):
            folder = self.folder / f"data{number}"
            folder.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            command += ["--dir", str(folder), "--loadmodule", os.environ["RAFTKV_REDISRAFT"]]
            command += ["--raft.log-fsync", "yes", "--raft.follower-proxy", "yes"]
            self.spawn(f"node{number}", command + ["--raft.addr", self.endpoints[number]])
        for endpoint in self.endpoints:
            wait_for(f"{endpoint} answers", lambda: ask(endpoint, "PING"))
        ask(self.endpoints[0], "RAFT.CLUSTER", "INIT")
        for endpoint in self.endpoints[1:]:
            ask(endpoint, "RAFT.CLUSTER", "JOIN", self.endpoints[0])
        self.position()


ALL = [Raftkv, RedisRaft, RedisSynced, RedisUnsynced]
