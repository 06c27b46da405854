"""Finds the salts of inputs.py: for each case the first salt whose margins all exceed MARGIN, whose reply has no special token
before its end, and which ends the way the case asks for.

`search.py CHECKPOINT [CASE ..]` prints them. Run it after a change of the weights, of the cases or of the media.
"""
import argparse
import itertools

import inputs
from reference import MARGIN, Close, Reference


def good(ref, name, salt):
    """The margins of a salt that will do."""
    c = inputs.case(name, salt)
    end = "stop" if c["stops"] else "length"
    try:
        for speak in [None, c["speak"]] if c["speak"] else [None]:  # silent first: that is quicker
            facts, _, _, margins = ref.run(dict(c, speak=speak))
            text = facts["output_ids"][:-1] if c["stops"] else facts["output_ids"]
            if facts["finish"] != end or len(text) < 3 or max(text) >= ref.first_special or min(margins.values()) <= MARGIN:
                return None
    except Close:
        return None
    return margins if facts.get("talker_finish", end) == end else None


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("checkpoint")
    a.add_argument("cases", nargs="*")
    a = a.parse_args()
    ref = Reference(a.checkpoint)
    ref.taps.strict = True
    for name in a.cases or inputs.CASES:
        for salt in itertools.count():
            if margins := good(ref, name, salt):
                print(f'    "{name}": {salt},', {k: round(v, 5) for k, v in margins.items()}, flush=True)
                break


if __name__ == "__main__":
    main()
