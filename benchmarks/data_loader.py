"""Throughput of the loader of training batches, relative to a torch DataLoader that reads one file per map.

Ours: `BatchLoader`, which copies the rows of a batch from the packed, memory-mapped maps and augments the batch at once. The
other one is what most training scripts do: a `Dataset` that reads `albedo.npy` and `normal.npy` of one session and augments
them, and torch's default collation; without worker processes, and with two. It applies the same transforms, by the same code,
to one session at a time. All are interleaved in one process with two threads, over the same batches; the files are in the page
cache.

    python benchmarks/data_loader.py
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

from common import Measurement, argument_parser, interleave, limit_threads, report
from training_loops import training_settings, with_steps

OURS, FILES, WORKERS = "ours", "one file a map", "one file a map, 2 workers"


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--people", type=int, default=24, help="built-in subjects, with 8 sessions each")
    parser.add_argument("--steps", type=int, default=4, help="batches of an epoch")
    parser.add_argument("--config", default="yale_fusion.yaml", help="recipe whose augmentation and batch size are used")
    options = parser.parse_args()
    limit_threads(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        images, epochs = make_epochs(options.config, options.people, options.steps)
        seconds = interleave(epochs, options.turns)
    rows = [[way, images / statistics.median(each), 1e3 * statistics.median(each) / images] for way, each in seconds.items()]
    numbers = {}
    for way, name in ((FILES, "over_files"), (WORKERS, "over_files_with_workers")):
        ratio = statistics.median(theirs / ours for theirs, ours in zip(seconds[way], seconds[OURS]))
        numbers[name] = Measurement(ratio, 20, "higher", f"images/s of ours over: {way}")
    report(numbers, rows, ["loader", "images/s", "ms per image"], options.json)


def make_epochs(recipe: str, people: int, steps: int) -> tuple[int, dict[str, Callable[[], None]]]:
    """Images of an epoch, and a function for each loader that loads all batches of an epoch."""
    from dataclasses import replace

    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from fr_ps.data.builtin import resolve_root
    from fr_ps.data.dataset import open_dataset
    from fr_ps.training.batch_loader import BatchLoader

    config = with_steps(training_settings(recipe), steps)
    config = replace(config, synthetic=replace(config.synthetic, people=people))
    dataset = open_dataset(resolve_root("synthetic", config.synthetic), config.data.modalities)
    rows = np.arange(len(dataset.labels))
    loader = BatchLoader(dataset, rows, config.batch, config.augment, 0, torch.device("cpu"))
    batches = loader.epoch_batches(0)
    files = SessionFiles(dataset, config.data.modalities, config.augment)

    def ours() -> None:
        for _ in loader.stream(batches, 0):
            pass

    def of_files(workers: int) -> Callable[[], None]:
        plain: DataLoader[Any] = DataLoader(
            files,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,  # type: ignore[arg-type]
        )

        def epoch() -> None:
            for _ in plain:
                pass

        return epoch

    return sum(map(len, batches)), {OURS: ours, FILES: of_files(0), WORKERS: of_files(2)}


class SessionFiles:
    """A torch Dataset: the augmented maps and the class of one session, read from its files."""

    def __init__(self, dataset: Any, modalities: list[str], augmentation: Any) -> None:
        import numpy as np

        self.keys, self.root = dataset.labels.row_keys(), dataset.root
        self.modalities, self.augmentation = modalities, augmentation
        _, self.classes = np.unique(dataset.labels.ids, return_inverse=True)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        import torch

        from fr_ps.data.augment import augment
        from fr_ps.data.layout import output_folder, read_map

        folder = output_folder(self.root, *self.keys[index])
        maps = {name: torch.from_numpy(read_map(folder / f"{name}.npy", name))[None] for name in self.modalities}
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, ())))
        moved = augment(maps, self.augmentation, generator)
        return {name: array[0] for name, array in moved.items()}, int(self.classes[index])


if __name__ == "__main__":
    main()
