"""Baselines of each modality, whose test maps are read once.

- `pixels_albedo`, ...: the map itself, flattened.
- `normals_10x10`: normals averaged to 10 x 10 pixels, the resolution that Hansen found best for recognition by normals ("3D
  face recognition using photometric stereo", PhD thesis, University of the West of England, 2012).
- `eigenfaces_albedo`, ...: the whitened principal components of the map (Turk and Pentland, "Eigenfaces for recognition",
  Journal of Cognitive Neuroscience 1991; whitened for the cosine as by Yambor, Draper and Beveridge, "Analyzing PCA-based face
  recognition algorithms: eigenvector selection and distance measures", 2002).
- `wccn_albedo`, ..., and `wccn_albedo_normal` of all modalities concatenated: see `fr_ps.evaluation.baselines.wccn`.
"""

import numpy as np
import torch
from torch.nn import functional

from fr_ps.evaluation.baselines.map_reader import BaselineMaps, ToVectors, flatten, pixels_of
from fr_ps.evaluation.baselines.projections import fit_components
from fr_ps.evaluation.baselines.training_rows import count_maps
from fr_ps.evaluation.baselines.wccn import fit_scores, normalise, wccn_name

MAX_PIXELS = 2**27
"""Largest size of `pixels` over all test sessions, half a gigabyte; larger ones are omitted."""


def single_modality_baselines(maps: BaselineMaps) -> dict[str, np.ndarray | str]:
    """Name of each baseline to its (n, D) embeddings of the n test maps, or to the reason why it is omitted."""
    found: dict[str, np.ndarray | str] = {}
    tested_scores: dict[str, np.ndarray] = {}
    fitted_scores: dict[str, np.ndarray] = {}
    for modality in maps.modalities:
        one = maps.with_modalities([modality])
        functions, omitted = _pixels_and_eigenfaces(one, modality)
        components: dict[str, ToVectors] = {}
        if not one.no_wccn:
            components, scores = fit_scores(one)
            fitted_scores |= scores
        vectors = one.test_vectors(functions | components)
        tested_scores |= {name: vectors.pop(name) for name in components}
        found |= vectors
        found |= omitted
    groups = [[modality] for modality in maps.modalities]
    if len(groups) > 1:
        groups.append(maps.modalities)
    for group in groups:
        found[wccn_name(*group)] = maps.no_wccn or normalise(
            [tested_scores[modality] for modality in group], [fitted_scores[modality] for modality in group], maps.repeated_ids
        )
    return found


def normals_10x10(maps: np.ndarray) -> np.ndarray:
    """(n, 300) from (n, 3, H, W) normals: averaged to 10 x 10 pixels and renormalised to unit length."""
    return flatten(functional.normalize(functional.adaptive_avg_pool2d(torch.from_numpy(maps), 10), dim=1).numpy())


def _pixels_and_eigenfaces(maps: BaselineMaps, modality: str) -> tuple[dict[str, ToVectors], dict[str, str]]:
    """Functions from the maps of one modality to their embeddings, and reasons of omitted ones, by the name of the baseline."""
    functions: dict[str, ToVectors] = {}
    omitted: dict[str, str] = {}
    tested = count_maps(maps.test_maps)
    pixels, eigenfaces = f"pixels_{modality}", f"eigenfaces_{modality}"
    if tested * maps.test.store.maps[modality][0].size <= MAX_PIXELS:
        functions[pixels] = pixels_of(modality)
    else:
        omitted[pixels] = f"{tested} maps have more than {MAX_PIXELS} values"
    if modality == "normal":
        functions["normals_10x10"] = lambda maps: normals_10x10(maps["normal"])
    if maps.no_components:
        omitted[eigenfaces] = maps.no_components
    else:
        originals = [(maps.rows, None)]
        functions |= fit_components(maps.train, {eigenfaces: pixels_of(modality)}, originals, whiten=True, seed=maps.seed)
    return functions, omitted
