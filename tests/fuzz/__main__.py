"""``python -m tests.fuzz``: reads damaged files by every reader and tells what came out that should not have.

``--inputs`` a reader, ``--jobs`` processes, ``--only`` readers, ``--seed`` one of their files. One input again:
``python -m tests.fuzz --only audio --seed good.wav --number 17 [--keep FOLDER]``.
"""

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "src"), str(TESTS)]


def main() -> int:
    """Returns 1 where something was found."""
    from fuzz.campaign import bundles_of, run_jobs
    from fuzz.child import Reading, changed
    from metatransformer.modalities import modality_names

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="a reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=modality_names(), default=[])
    parser.add_argument("--seed", nargs="*", default=[])
    parser.add_argument("--number", type=int, help="reads this one input")
    parser.add_argument("--keep", type=Path, help="with --number: a folder for its files")
    parser.add_argument("--out", type=Path, help="a file for findings, one line of JSON each")
    options = parser.parse_args()
    readers = options.only or modality_names()
    if options.number is not None:
        reader, seed, number = readers[0], options.seed[0], options.number
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for name, data in changed(reader, seed, number).items():
                (options.keep / name).write_bytes(data)
            main_file = Reading(reader, seed).seed.main
            print(Reading(reader, seed).read(options.keep / main_file), "samples")
            return 0
        bundles = [[(reader, seed, number, number + 1)]]
    else:
        bundles = bundles_of(readers, inputs=options.inputs, first=options.first, names=options.seed)
    outcomes = run_jobs(bundles, jobs=options.jobs, out=options.out)
    for reader, outcome in outcomes.items():
        print(f"{reader}: {outcome}")
        for found in outcome.findings[:50]:
            again = f"--only {reader} --seed {found['seed']} --number {found['number']}"
            print(f"  {found['kind']}: {again}  {found['detail']}")
    return bool(any(outcome.findings for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
