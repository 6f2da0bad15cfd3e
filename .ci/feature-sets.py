#!/usr/bin/env python3
"""Prints sets of features for the lints, one per line: python3 .ci/feature-sets.py

The first sets are no feature and each feature alone. Together with the others, which mix the features, there is for
any two features a set with both, with only the first, with only the second, and with neither, unless one enables the
other. The workflow lints each pair alone, which takes longer."""

import itertools
import random
import tomllib

LEFT_OUT = {"default"}


def enabled_by(features, names):
    """Returns the features that these features enable, with themselves."""
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name in features and name not in found:
            found.add(name)
            todo.extend(features[name])
    return frozenset(found)


def cases(names, chosen):
    """Returns the case of each pair of features that a set covers."""
    return {(a, b, a in chosen, b in chosen) for a, b in itertools.combinations(names, 2)}


def mixed_sets(features, names, alone):
    choice = random.Random(1)  # the same sets in each run
    candidates = {enabled_by(features, [name for name in names if choice.random() < 0.5]) for _ in range(2000)}
    candidates = {chosen: cases(names, chosen) for chosen in sorted(candidates, key=sorted)}
    covered = (cases(names, enabled_by(features, chosen)) for chosen in alone)
    missing = set().union(*candidates.values()).difference(*covered)
    while missing:
        best = max(candidates, key=lambda chosen: len(candidates[chosen] & missing))
        missing -= candidates[best]
        yield best


with open("Cargo.toml", "rb") as file:
    features = tomllib.load(file)["features"]
names = sorted(set(features) - LEFT_OUT)
alone = [()] + [(name,) for name in names]
for chosen in itertools.chain(alone, mixed_sets(features, names, alone)):
    print(",".join(sorted(chosen)))
