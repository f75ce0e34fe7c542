#!/usr/bin/env python3
"""Prints the queries of Grafana dashboards as a Prometheus rule file, so that `promtool check rules` can parse them.

usage: queries.py DASHBOARD.json... > rules.yml
"""

import json
import sys


def queries(value):
    """Yields every query, with Grafana's own variables replaced by durations.

    >>> list(queries({"panels": [{"targets": [{"expr": "rate(a_total[$__rate_interval])"}]}]}))
    ['rate(a_total[1m])']
    """
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"].replace("$__rate_interval", "1m").replace("$__range", "1h")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from queries(item)


def main(paths):
    rules = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            rules += [{"record": f"query_{i}", "expr": q} for i, q in enumerate(queries(json.load(file)))]
    # JSON is YAML too.
    json.dump({"groups": [{"name": "queries", "rules": rules}]}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
