#!/usr/bin/env python3
"""Checks the licence and the source of every package that Quarta's lock file names.

Reads `cargo metadata` and fails, naming each culprit, unless

- every package of the workspace is licensed MIT OR Apache-2.0;
- every dependency, on any platform and for tests too, can be used under licences of ALLOWED alone;
- every dependency comes from the crates.io registry, so that it is the unmodified, checksummed release.

MPL-2.0 is allowed because of that last point: it asks that changes to its own files are published, and there are
none; it does not reach the files of those who link to it.

Run without arguments from anywhere inside the workspace. `python3 -m doctest .ci/licences.py` tests the evaluation.
"""

import json
import re
import subprocess
import sys

OURS = "MIT OR Apache-2.0"
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"

ALLOWED = {
    "IJG",
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}

TOKEN = re.compile(r"\s*(\(|\)|/|[A-Za-z0-9.+:-]+)")


def tokens_of(expression):
    """Splits an SPDX expression; `/`, which old packages use, means OR.

    >>> tokens_of("(MIT OR Apache-2.0) AND Unicode-3.0")
    ['(', 'MIT', 'OR', 'Apache-2.0', ')', 'AND', 'Unicode-3.0']
    >>> tokens_of("MIT/Apache-2.0")
    ['MIT', 'OR', 'Apache-2.0']
    """
    tokens, at = [], 0
    expression = expression.strip()
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"unexpected {expression[at]!r}")
        tokens.append("OR" if match.group(1) == "/" else match.group(1))
        at = match.end()
    return tokens


def usable(expression, allowed=frozenset(ALLOWED)):
    """Says whether an SPDX expression can be satisfied by allowed licences alone. AND binds tighter than OR.

    >>> usable("MIT OR GPL-3.0-only"), usable("MIT AND GPL-3.0-only")
    (True, False)
    >>> usable("GPL-2.0-only OR MIT AND ISC"), usable("(GPL-2.0-only OR MIT) AND GPL-3.0-only")
    (True, False)
    >>> usable("Apache-2.0 WITH LLVM-exception"), usable("Apache-2.0 WITH Other-exception")
    (True, False)
    >>> usable("MIT/Apache-2.0"), usable("LGPL-2.1-or-later")
    (True, False)
    >>> usable("MIT OR")
    Traceback (most recent call last):
    ValueError: ends too early
    >>> usable("MIT ISC")
    Traceback (most recent call last):
    ValueError: unexpected 'ISC'
    """
    tokens = tokens_of(expression)

    def take():
        if not tokens:
            raise ValueError("ends too early")
        return tokens.pop(0)

    def atom():
        token = take()
        if token == "(":
            value = alternatives()
            if take() != ")":
                raise ValueError("unbalanced parentheses")
            return value
        if token in (")", "AND", "OR", "WITH"):
            raise ValueError(f"unexpected {token!r}")
        if tokens and tokens[0] == "WITH":
            take()
            token = f"{token} WITH {take()}"
        return token in allowed

    def conjunction():
        value = atom()
        while tokens and tokens[0] == "AND":
            take()
            # Both sides are parsed, whatever the first says.
            value = atom() and value
        return value

    def alternatives():
        value = conjunction()
        while tokens and tokens[0] == "OR":
            take()
            value = conjunction() or value
        return value

    value = alternatives()
    if tokens:
        raise ValueError(f"unexpected {tokens[0]!r}")
    return value


def complaints(metadata):
    """Yields a line for each package that breaks a rule.

    >>> ours = {"id": "a", "name": "a", "version": "1", "license": OURS, "source": None}
    >>> good = {"id": "b", "name": "b", "version": "1", "license": "ISC", "source": REGISTRY}
    >>> list(complaints({"workspace_members": ["a"], "packages": [ours, good]}))
    []
    >>> fork = dict(good, source="git+https://example.org/b")
    >>> viral = dict(good, license="GPL-3.0-only")
    >>> silent = dict(good, license=None)
    >>> odd = dict(good, license="MIT AND")
    >>> for line in complaints({"workspace_members": [], "packages": [fork, viral, silent, odd]}):
    ...     print(line)
    b 1: comes from git+https://example.org/b, not from the crates.io registry
    b 1: its licence, GPL-3.0-only, is not usable here
    b 1: names no licence
    b 1: its licence, MIT AND, is no SPDX expression: ends too early
    >>> list(complaints({"workspace_members": ["a"], "packages": [dict(ours, license="MIT")]}))
    ['a 1: is part of Quarta and must be licensed MIT OR Apache-2.0, not MIT']
    """
    members = set(metadata["workspace_members"])
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        if package["id"] in members:
            if licence != OURS:
                yield f"{name}: is part of Quarta and must be licensed {OURS}, not {licence}"
            continue
        if package["source"] != REGISTRY:
            source = package["source"] or "a local path"
            yield f"{name}: comes from {source}, not from the crates.io registry"
        if licence is None:
            yield f"{name}: names no licence"
            continue
        try:
            if not usable(licence):
                yield f"{name}: its licence, {licence}, is not usable here"
        except ValueError as error:
            yield f"{name}: its licence, {licence}, is no SPDX expression: {error}"


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    metadata = json.loads(output)
    found = list(complaints(metadata))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        return 1
    dependencies = len(metadata["packages"]) - len(metadata["workspace_members"])
    print(f"{dependencies} dependencies, all from crates.io under licences that go with {OURS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
