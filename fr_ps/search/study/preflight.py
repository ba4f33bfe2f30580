"""What is looked at before the first trial: the data that all share, and whether the objectives can be told on them."""

import numpy as np

from fr_ps.config.search import COSTS
from fr_ps.data.labels import ATTRIBUTES, MISSING
from fr_ps.data.splits import make_split
from fr_ps.errors import InputError
from fr_ps.evaluation.pairwise.roc import LOW_SUPPORT_REASON
from fr_ps.models.inference import Predictions, validation_metrics
from fr_ps.search.spec import StudySpec
from fr_ps.training.train import open_training_data


def check_data(spec: StudySpec) -> str:
    """Pack the data of the base, which the trials share, and see that its validation part tells the objectives.

    Returns their digest.

    Raises:
        InputError: the data or the split cannot be used, nobody is validated on, or an objective is undefined there or rests
            on too few errors.
    """
    config = spec.base
    dataset = open_training_data(config, lambda _line: None)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    if not len(split.val):
        raise InputError("data.val_people is 0: nobody is validated on, and so no trial is better than another; expected a share")
    labels = dataset.labels.subset(split.val)
    # Which metrics there are, and of which something is defined, depends on the labels alone: anybody's answers tell it.
    rng = np.random.default_rng(0)
    chances: dict[str, np.ndarray] = {
        task: rng.dirichlet(np.ones(len(labels.classes[task])), len(labels)).astype(np.float32) for task in ATTRIBUTES
    }
    anybody = Predictions(rng.normal(size=(len(labels), 8)).astype(np.float32), chances)
    codes = dataset.labels.codes[split.train]
    trained = [task for column, task in zip(codes.T, ATTRIBUTES) if len(np.unique(column[column != MISSING])) > 1]
    metrics = validation_metrics(anybody, labels, trained).with_prefix("val")
    for objective in spec.objectives:
        if objective in COSTS:
            continue
        if objective not in metrics.values:
            raise InputError(f"objectives: {objective!r} is no metric here; expected some of {', '.join(sorted(metrics.values))}")
        reason = metrics.reasons.get(objective, "")
        if metrics.values[objective] is None or reason.startswith(LOW_SUPPORT_REASON):
            raise InputError(
                f"objectives: {objective} decides nothing on the validation part ({reason}); expected another metric"
            )
    return dataset.store.digest
