"""Which crates are linked into a program, with what Cargo knows of each.

Features are those of the images' one build of all three packages, which `cargo tree` resolves in the same way.
"""

import json
import re
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["tidings-operator", "tidings-pod", "tidings-cli"]


def said(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def host():
    return re.search(r"(?m)^host: (.*)$", said("rustc", "-vV"))[1]


def tree(triple):
    """Which crate stands on which, (name, version) each, and which of them are procedural macros."""
    named = [word for package in PACKAGES for word in ("-p", package)]
    lines = said("cargo", "tree", "--locked", "-e", "normal", "--target", triple, "--prefix", "depth", *named)
    edges, macros, way = defaultdict(set), set(), []
    for line in filter(None, lines.splitlines()):
        depth, name, version, kind = re.match(r"(\d+)(\S+) v(\S+)(?: \(proc-macro\))?(.*)", line).groups()
        crate = (name, version)
        if "(proc-macro)" in line:
            macros.add(crate)
        del way[int(depth):]
        if way:
            edges[way[-1]].add(crate)
        way.append(crate)
        edges[crate]
    return edges, macros


def reached(edges, start, never=frozenset()):
    found, todo = set(), [start]
    while todo:
        crate = todo.pop()
        if crate not in found and crate not in never:
            found.add(crate)
            todo += edges[crate]
    return found


def metadata():
    packages = json.loads(said("cargo", "metadata", "--locked", "--format-version", "1"))["packages"]
    return {(package["name"], package["version"]): package for package in packages}


def checksums():
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(one["name"], one["version"]): one["checksum"] for one in locked if "checksum" in one}
