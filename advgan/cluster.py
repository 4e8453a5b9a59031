"""The processes that train together, as ``TF_CONFIG`` names them; each has the same command."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from contextlib import suppress
from typing import Any, NamedTuple

from advgan.errors import AdvGANError, ConfigurationError

VARIABLE = "TF_CONFIG"
LOOK_EVERY = 0.2
"""Seconds."""
JOIN_VARIABLE = "ADVGAN_SECONDS_TO_JOIN"
"""How long a process waits for the others, by default 300 s."""
EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


class Cluster(NamedTuple):
    """More than one process."""

    jobs: dict[str, list[str]]
    """The addresses of each of TensorFlow's jobs, ``chief`` before ``worker``."""
    own: int
    """The number of this process, counted over all jobs from 0."""

    @property
    def addresses(self) -> list[str]:
        """Of all; the first process writes all files."""
        return [address for job in self.jobs.values() for address in job]


def this_cluster() -> Cluster | None:
    """What ``TF_CONFIG`` says; None where it is not set, or names one process.

    Raises:
        ConfigurationError: it cannot be understood.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        content = json.loads(text)
        given = {job: list(addresses) for job, addresses in content["cluster"].items()}
        kind, index = content["task"]["type"], content["task"]["index"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(VARIABLE, text, f"should be JSON such as {EXAMPLE}") from None
    jobs = {job: listed for job in ("chief", "worker") if (listed := given.pop(job, []))}
    if given:
        raise ConfigurationError(VARIABLE, text, f"names the job {next(iter(given))!r} (allowed: chief, worker)")
    if len(jobs.get("chief", [])) > 1:
        raise ConfigurationError(VARIABLE, text, "names more than one chief")
    tasks = [(job, number) for job, listed in jobs.items() for number in range(len(listed))]
    if (kind, index) not in tasks:
        problem = f"its task {kind} {index!r} is not in its cluster (the index is a number from 0)"
        raise ConfigurationError(VARIABLE, text, problem)
    found = Cluster(jobs, tasks.index((kind, index)))
    for address in found.addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535 or not _is_host(host):
            problem = f"the address {address!r} should be a host and a port, such as host0:2222"
            raise ConfigurationError(VARIABLE, text, problem)
        if found.addresses.count(address) > 1:
            raise ConfigurationError(VARIABLE, text, f"names the address {address} twice")
    return found if len(tasks) > 1 else None


def _is_host(name: str) -> bool:
    try:
        name.encode("idna")
    except UnicodeError:  # a part of it is empty, or too long
        return False
    return True


def work_alone() -> None:
    """Forget of other processes: the command is not for several."""
    os.environ.pop(VARIABLE, None)


def seconds_to_join() -> int:
    """How long to wait for the other processes.

    Raises:
        ConfigurationError: the variable is no number of seconds.
    """
    text = os.environ.get(JOIN_VARIABLE, "300")
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise ConfigurationError(JOIN_VARIABLE, text, "should be a number of seconds (allowed: 1 to 86400)")
    return int(text)


def meet(cluster: Cluster, seconds: float, fact: str) -> None:
    """Wait until each process has heard of every other, on the ports that TensorFlow will use.

    Args:
        cluster: as this process knows it.
        seconds: to wait.
        fact: what has to be the same for all besides, in words.

    Raises:
        AdvGANError: one did not come, is of another cluster or has another fact, or this one's port is taken.
    """
    own, addresses = cluster.own, [address.rpartition(":") for address in cluster.addresses]
    others, came, reached = set(range(len(addresses))) - {own}, set[int](), set[int]()
    deadline = time.monotonic() + seconds
    known = [hashlib.sha256(str(cluster.addresses).encode()).hexdigest()[:16], fact]
    greeting = json.dumps(["advgan", own, *known]).encode() + b"\n"
    try:
        server = socket.create_server(("", int(addresses[own][2])))
    except OSError as error:
        raise AdvGANError(f"{cluster.addresses[own]} cannot be used ({error.strerror}); choose another port") from None
    unlike: dict[int, str] = {}
    with server:
        server.settimeout(LOOK_EVERY)
        while came != others or reached != others:
            if known_here := reached & unlike.keys():  # which it learns too
                raise AdvGANError(unlike[min(known_here)])
            if time.monotonic() > deadline:
                late = min(others - (came & reached))
                raise AdvGANError(f"worker {late} ({cluster.addresses[late]}) did not join within {seconds:.0f} s")
            for number in others - reached:
                host, _, port = addresses[number]
                with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 1) as connection:
                    connection.sendall(greeting)
                    reached.add(number)
            if (greeted := _greeting(server)) is not None and greeted[0] in others:
                number, *facts = greeted
                if facts != known:
                    what = (
                        "names other machines in TF_CONFIG" if facts[0] != known[0] else f"has {facts[1]}, not {fact}"
                    )
                    unlike[number] = f"worker {number} {what}; start all with the same"
                else:
                    came.add(number)


def _greeting(server: socket.socket) -> list[Any] | None:
    """What another process sends, if one does."""
    with suppress(OSError, ValueError):
        connection, _ = server.accept()
        with connection, connection.makefile(errors="replace") as lines:
            connection.settimeout(1)
            content = json.loads(lines.readline(1000))
            if isinstance(content, list) and len(content) == 4 and content[0] == "advgan":
                return content[1:]
    return None


def is_first() -> bool:
    """Whether this process writes the files and the results; true where it is alone."""
    cluster = this_cluster()
    return cluster is None or cluster.own == 0


def speaker() -> str:
    """Which process writes a line, as its beginning: ``worker 1: ``; empty where there is one."""
    try:
        cluster = this_cluster()
    except ConfigurationError:  # said elsewhere
        return ""
    return "" if cluster is None else f"worker {cluster.own}: "
