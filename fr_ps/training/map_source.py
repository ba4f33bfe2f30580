"""Where a training reads its maps from: the device, if they fit there, else the memory-mapped store."""

import numpy as np
import torch
from torch import Tensor

from fr_ps.data.augment import MapBatch
from fr_ps.data.store import MapStore
from fr_ps.device import to_device
from fr_ps.progress import progress

_SHARE_OF_FREE_MEMORY = 0.5
"""Largest share of the free memory of a GPU that the maps take. The rest is for weights, activations and gradients."""
_COPIED_ROWS = 1024


class DeviceMaps:
    """All maps of the training part in the memory of the device.

    Args:
        store: the maps of the data set.
        rows: (n,) the sessions of the training part, as indices for `MapStore.read`.
        device: where the maps are copied to.
    """

    prefetch = False

    def __init__(self, store: MapStore, rows: np.ndarray, device: torch.device) -> None:
        self.device = device
        self.maps = {modality: torch.empty((len(rows), *maps.shape[1:]), device=device) for modality, maps in store.maps.items()}
        with progress(f"maps to {device}", len(rows), "sessions") as advance:
            for start in range(0, len(rows), _COPIED_ROWS):
                chunk = rows[start : start + _COPIED_ROWS]
                for modality, maps in store.read(chunk).items():
                    self.maps[modality][start : start + len(chunk)] = torch.from_numpy(maps)
                advance(len(chunk))

    def read(self, indices: np.ndarray) -> MapBatch:
        """The maps of (B,) indices into the training part: modality to (B, C, H, W) on the device."""
        chosen = to_device(torch.from_numpy(indices), self.device)
        return {modality: maps.index_select(0, chosen) for modality, maps in self.maps.items()}


class StoreMaps:
    """The maps of the training part, read from the store for each batch.

    Args:
        store: the maps of the data set.
        rows: (n,) the sessions of the training part, as indices for `MapStore.read`.
        device: where the maps of a batch are copied to.
    """

    def __init__(self, store: MapStore, rows: np.ndarray, device: torch.device) -> None:
        self.store, self.rows, self.device = store, rows, device

    @property
    def prefetch(self) -> bool:
        """Whether the loader reads the next batch in a thread, while the device computes."""
        return self.device.type != "cpu"

    def read(self, indices: np.ndarray) -> MapBatch:
        """The maps of (B,) indices into the training part: modality to (B, C, H, W) on the device."""
        maps = self.store.read(self.rows[indices])
        return {modality: self._to_device(torch.from_numpy(array)) for modality, array in maps.items()}

    def _to_device(self, maps: Tensor) -> Tensor:
        if self.device.type == "cuda":  # a large copy from memory that is not pinned is synchronous
            maps = maps.pin_memory()
        return to_device(maps, self.device)


MapSource = DeviceMaps | StoreMaps


def open_map_source(store: MapStore, rows: np.ndarray, device: torch.device) -> MapSource:
    """The maps of the training `rows`: on a GPU if they take at most half of its free memory, else in the store."""
    size = sum(len(rows) * maps[0].nbytes for maps in store.maps.values())
    source = DeviceMaps if size <= _SHARE_OF_FREE_MEMORY * _free_memory(device) else StoreMaps
    return source(store, rows, device)


def _free_memory(device: torch.device) -> int:
    """Bytes of free memory of a GPU; 0 for the CPU, where a copy of the memory-mapped store would gain nothing."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0
