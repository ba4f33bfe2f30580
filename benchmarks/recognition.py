"""Recognition of unseen subjects: experiments and baselines, cross-validated over the subjects of a prepared data set.

Each seed deals the subjects into folds. For each fold, every experiment trains on the other subjects (all of its epochs, without
validation subjects), the linear baselines are fitted on them too, and dlib's network is applied if it is installed. The sessions
of the fold are compared as they are, and under several draws of the random similarity of `fr-ps evaluate --jitter`; the pairs of
all folds and seeds are pooled. Attributes are compared with a linear probe on the pixels of albedo and normals, fitted on the
same subjects. With --score-norm, each experiment has a further row, whose scores are normalised by those with the training
sessions of the fold (score_norm.py). Brackets are 95 % bootstrap intervals over subjects; differences are paired.

A finished fold stays in --out and is not computed again; an interrupted training resumes. A fold is identified by its settings
and its data, but not by the code: after a change of the code, use a new --out. results.md and results.json are written there too.

    python benchmarks/recognition.py --data data/yale_b --config experiments/yale_fusion.yaml
    python benchmarks/recognition.py --data data/yale_b --config yale.yaml --config "yale.yaml augment.erase=0" --seeds 1
    python benchmarks/recognition.py --data data/yale_b_relight --tested relit=0 --config experiments/yale_fusion.yaml
    python benchmarks/recognition.py --data data/yale_b --untrained session=q7 --config experiments/yale_fusion.yaml
"""

import argparse
from pathlib import Path

from common import limit_threads


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument(
        "--config", action="append", default=[], help='experiment, or "FILE key=value key=value"; may be given several times'
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of all experiments")
    parser.add_argument("--out", type=Path, default=Path("recognition"), help="folder for finished folds and results")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="each deals the folds and starts the trainings anew")
    parser.add_argument("--jitter-draws", type=int, default=20, help="random similarities of each session")
    parser.add_argument(
        "--tested", default="", metavar="COLUMN=VALUE", help="compare only sessions with this value in labels.csv; train on all"
    )
    parser.add_argument(
        "--untrained", default="", metavar="COLUMN=VALUE", help="train on no sessions with this value in labels.csv; compare all"
    )
    parser.add_argument(
        "--score-norm", action="store_true", help="add a row of each experiment with S-norm, the training sessions as cohort"
    )
    parser.add_argument("--no-baselines", action="store_true", help="neither linear baselines nor dlib")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch and BLAS")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    limit_threads(options.threads)
    from recognition_folds import CrossValidation
    from recognition_report import Results

    from fr_ps.errors import InputError

    try:
        results = Results(
            CrossValidation(
                options.data,
                options.out,
                options.folds,
                options.seeds,
                options.jitter_draws,
                options.threads,
                print,
                options.tested,
                options.score_norm,
                options.untrained,
            ),
            options.config,
            options.set,
            with_baselines=not options.no_baselines,
        )
    except InputError as error:
        raise SystemExit(str(error)) from None
    print("\n" + results.write(options.out))


if __name__ == "__main__":
    main()
