"""Throughput of the loader of training batches, relative to a torch DataLoader that reads one file per map.

Ours: `BatchLoader`, which copies the rows of a batch from the packed, memory-mapped maps and augments the batch at once. The
other one is what most training scripts do: a `Dataset` that reads `albedo.npy` and `normal.npy` of one session and augments
them with torchvision, and torch's default collation; without worker processes, and with two. "Resampling alone" is what no
loader can avoid: one bilinear resampling of the maps of a batch that is in memory. All are interleaved in one process with two
threads, over the same batches; the files are in the page cache.

    python benchmarks/data_loader.py
"""

import math
import os
import random
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

from common import Measurement, argument_parser, interleave, limit_threads, report
from training_loops import training_settings, with_steps

OURS, FILES, WORKERS = "ours", "one file a map", "one file a map, 2 workers"
RESAMPLING = "resampling alone"


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

    from fr_ps.data.augment import draw_augmentation
    from fr_ps.data.builtin import resolve_root
    from fr_ps.data.dataset import open_dataset
    from fr_ps.training.batch_loader import BatchLoader

    config = with_steps(training_settings(recipe), steps)
    config = replace(config, synthetic=replace(config.synthetic, people=people))
    dataset = open_dataset(resolve_root("synthetic", config.synthetic), config.data.modalities)
    rows = np.arange(len(dataset.labels))
    loader = BatchLoader(dataset, rows, config.batch, config.augment, 0, torch.device("cpu"))
    batches = loader.epoch_indices(0)
    files = SessionFiles(dataset, config.data.modalities, config.augment)
    in_memory = loader.map_source.read(batches[0])
    first = next(iter(in_memory.values()))
    grid = draw_augmentation(len(first), 1, config.augment, torch.Generator().manual_seed(0)).similarity.grid(first)

    def ours() -> None:
        for _ in loader.stream(batches, 0):
            pass

    def resampling() -> None:
        for _ in batches:
            for maps in in_memory.values():
                torch.nn.functional.grid_sample(maps, grid, padding_mode="border", align_corners=False)

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

    return sum(map(len, batches)), {OURS: ours, FILES: of_files(0), WORKERS: of_files(2), RESAMPLING: resampling}


class SessionFiles:
    """A torch Dataset: the augmented maps and the class of one session, read from its files.

    The transforms of `fr_ps.data.augment`, as one writes them for one sample with torchvision. They draw other random numbers,
    and what comes from outside of the picture is 0, as torchvision cannot repeat the border.
    """

    def __init__(self, dataset: Any, modalities: list[str], augmentation: Any) -> None:
        import numpy as np

        self.keys, self.root = dataset.labels.row_keys(), dataset.root
        self.modalities, self.augmentation = modalities, augmentation
        _, self.classes = np.unique(dataset.labels.ids, return_inverse=True)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
        import numpy as np
        import torch

        from fr_ps.data.layout import output_folder

        folder = output_folder(self.root, *self.keys[index])
        maps = {
            name: torch.from_numpy(np.atleast_3d(np.load(folder / f"{name}.npy"))).permute(2, 0, 1) for name in self.modalities
        }
        maps = self.add_noise(self.move(maps))
        if random.random() < self.augmentation.erase:
            maps = self.erase(maps)
        return maps, int(self.classes[index])

    def move(self, maps: dict[str, Any]) -> dict[str, Any]:
        """Flip, crop, rotate, scale and shift all maps of a session in the same way; normals turn with the picture."""
        import torch
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import affine, horizontal_flip

        limits, length = self.augmentation, next(iter(maps.values())).shape[-1]
        flip, angle = random.random() < limits.flip, random.uniform(-limits.rotation, limits.rotation)
        side = random.uniform(limits.crop, 1)
        largest_shift = length * (limits.shift + (1 - side) / 2)
        shift = [random.uniform(-largest_shift, largest_shift) for _ in range(2)]
        scale = (1 + limits.scale) ** random.uniform(-1, 1) / side
        moved = {}
        for name, array in maps.items():
            array = horizontal_flip(array) if flip else array
            array = affine(array, -angle, shift, scale, [0.0], InterpolationMode.BILINEAR)
            if name == "normal":
                x, y, z = array
                x = -x if flip else x
                cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                array = torch.nn.functional.normalize(torch.stack([cos * x - sin * y, sin * x + cos * y, z]), dim=0)
            elif name == "depth":
                array = array * scale
                array = array - array.mean()
            moved[name] = array
        return moved

    def add_noise(self, maps: dict[str, Any]) -> dict[str, Any]:
        """Add Gaussian noise to a rectangle of all maps."""
        import torch

        top, left, height, width = random_rectangle(next(iter(maps.values())).shape[-1], (0.1, 0.25), 2.0)
        for name, array in maps.items():
            strength = random.uniform(0, self.augmentation.noise) * array.square().mean().sqrt()
            patch = array[:, top : top + height, left : left + width]
            patch += strength * torch.randn_like(patch)
            if name == "normal":
                patch.copy_(torch.nn.functional.normalize(patch, dim=0))
            elif name == "albedo":
                patch.clamp_(min=0)
        return maps

    def erase(self, maps: dict[str, Any]) -> dict[str, Any]:
        """Erase a rectangle of all maps."""
        import torch
        from torchvision.transforms.v2.functional import erase

        rectangle = random_rectangle(next(iter(maps.values())).shape[-1], (0.02, 0.33), 3.0)
        values = {
            "albedo": maps["albedo"].mean() if "albedo" in maps else None,
            "normal": torch.tensor([0.0, 0.0, 1.0])[:, None, None],
        }
        values["depth"] = torch.zeros(())
        return {name: erase(array, *rectangle, values[name]) for name, array in maps.items()}


def random_rectangle(length: int, areas: tuple[float, float], max_aspect: float) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a random rectangle in a square of `length` pixels."""
    area, aspect = random.uniform(*areas), max_aspect ** random.uniform(-1, 1)
    height, width = (min(length, round(length * math.sqrt(share))) for share in (area * aspect, area / aspect))
    return random.randint(0, length - height), random.randint(0, length - width), height, width


if __name__ == "__main__":
    main()
