#!/usr/bin/env python3
"""Checks the dependencies that a user of the crate gets: python3 .ci/dependencies.py

Covers normal and build dependencies on every platform, without dev-dependencies:
  - each licence is in the list of `.deny.toml`;
  - each package comes from crates.io;
  - OpenSSL is only a dependency with the feature `josekit`;
  - no package needs a newer Rust than Cargo.toml states: `rust-version`, or 1.94 with `sqlite` and `postgres`.

cargo-deny checks licences and sources more thoroughly; the workflow runs it. This script needs no installation."""

import json
import re
import subprocess
import sys
import tomllib

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
SQL_RUST = "1.94"
OPENSSL = {"native-tls", "openssl", "openssl-sys"}


def metadata(*features):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", *features]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def dependencies(data):
    """Returns the packages that the crate needs at run time or to build."""
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    root = data["resolve"]["root"]
    found, todo = set(), [root]
    while todo:
        for edge in nodes[todo.pop()]["deps"]:
            kinds = {kind["kind"] for kind in edge["dep_kinds"]}
            if kinds - {"dev"} and edge["pkg"] not in found:
                found.add(edge["pkg"])
                todo.append(edge["pkg"])
    return packages[root], [packages[id] for id in found if id != root]


def permits(expression, allowed):
    """Returns whether an SPDX expression can be satisfied with the allowed licences."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    tokens.reverse()

    def either():
        result = both()
        while tokens and tokens[-1] == "OR":
            tokens.pop()
            right = both()
            result = result or right
        return result

    def both():
        result = one()
        while tokens and tokens[-1] == "AND":
            tokens.pop()
            right = one()
            result = result and right
        return result

    def one():
        token = tokens.pop()
        if token == "(":
            result = either()
            tokens.pop()
            return result
        if tokens and tokens[-1] == "WITH":
            tokens.pop()
            token = f"{token} WITH {tokens.pop()}"
        return token in allowed

    return either()


def version(text):
    return tuple(int(part) for part in text.split(".")[:2])


def main():
    with open(".deny.toml", "rb") as file:
        allowed = set(tomllib.load(file)["licenses"]["allow"])
    faults = []
    crate, packages = dependencies(metadata("--all-features"))
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not permits(package["license"] or "none", allowed):
            faults.append(f"{name}: licence {package['license']} is not in .deny.toml")
        if package["source"] != CRATES_IO:
            faults.append(f"{name}: comes from {package['source'] or 'a path'}")

    without_openssl = [name for name in crate["features"] if name != "josekit"]
    for package in dependencies(metadata("--no-default-features", "--features", ",".join(without_openssl)))[1]:
        if package["name"] in OPENSSL:
            faults.append(f"{package['name']} {package['version']}: only the feature `josekit` may link OpenSSL")

    without_sql = [name for name in crate["features"] if name not in ("sqlite", "postgres")]
    _, plain = dependencies(metadata("--no-default-features", "--features", ",".join(without_sql)))
    for minimum, group in ((crate["rust_version"], plain), (SQL_RUST, packages)):
        for package in group:
            needed = package["rust_version"]
            if needed and version(needed) > version(minimum):
                faults.append(f"{package['name']} {package['version']}: needs Rust {needed}, above the minimum {minimum}")

    print("\n".join(sorted(set(faults))) or f"{len(packages)} dependencies pass")
    return bool(faults)


sys.exit(main())
