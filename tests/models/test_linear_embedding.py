"""The linear embedding against the same steps in float64 with SciPy, and its place in the network's embedding."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import augment
from fr_ps.models.layers import mirror_maps
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.registration import congeal, correction_shape, registration_features
from fr_ps.synthetic.scene import render_session
from tests.models.small import CLASSES, COUNT, make_maps, make_network

TWO = ("albedo", "normal")
THREE = ("albedo", "normal", "depth")


def fitted(modalities: tuple[str, ...] = TWO, registered: bool = False) -> LinearEmbedding:
    """With random means and projections."""
    embedding = LinearEmbedding(modalities, registered)
    generator = torch.Generator().manual_seed(0)
    embedding.means.copy_(0.1 * torch.randn(embedding.means.shape, generator=generator))
    embedding.projections.copy_(torch.randn(embedding.projections.shape, generator=generator))
    return embedding


def random_maps(side: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(side)
    albedo = 0.2 + torch.rand(3, 1, side, side, generator=generator)
    normals = functional.normalize(
        torch.randn(3, 3, side, side, generator=generator) + torch.tensor([0, 0, 3.0])[:, None, None], dim=1
    )
    return {"albedo": albedo, "normal": normals}


def half_faces(maps: Mapping[str, Tensor]) -> np.ndarray:
    """(B, 392) from 56 x 56 maps."""
    albedo, normals = (maps[modality].double().numpy() for modality in TWO)
    logs = np.log(albedo / albedo.mean(axis=(1, 2, 3), keepdims=True) + 0.1)
    logs -= np.median(logs, axis=(1, 2, 3), keepdims=True)
    logs = np.clip(logs / np.abs(logs).mean(axis=(1, 2, 3), keepdims=True), -4, 4)
    channels = np.concatenate([0.5 * logs, normals], axis=1)
    smooth = gaussian_filter(channels, sigma=(0, 0, 2, 2), mode="nearest", radius=(0, 0, 6, 6))
    pooled = smooth.reshape(*channels.shape[:2], 14, 4, 14, 4).mean(axis=(3, 5))
    mirrored = pooled[..., ::-1] * np.array([1, -1, 1, 1])[:, None, None]
    return ((pooled + mirrored) / 2)[..., :7].reshape(len(albedo), -1)


def test_the_embedding_is_the_projected_smooth_symmetric_face() -> None:
    embedding, maps = fitted(), random_maps(56)
    projected = (half_faces(maps) - embedding.means[0].double().numpy()) @ embedding.projections[0].double().numpy()
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding(maps).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("side", [32, 56, 112])
def test_a_face_and_its_mirror_image_have_the_same_embedding_at_every_size(side: int) -> None:
    embedding, maps = fitted(), random_maps(side)
    mirrored = {modality: mirror_maps(of_one, modality) for modality, of_one in maps.items()}
    torch.testing.assert_close(embedding(maps), embedding(mirrored), atol=1e-5, rtol=0)


def test_depth_counts_only_without_normals() -> None:
    assert LinearEmbedding(THREE).modalities == TWO
    assert LinearEmbedding(("albedo", "depth")).modalities == ("albedo", "depth")


def test_an_absent_map_counts_as_the_mean_map_whether_it_is_left_out_or_marked() -> None:
    embedding, maps = fitted(), random_maps(56)
    left_out = embedding({"normal": maps["normal"]})
    marked = embedding(maps, {"albedo": torch.zeros(3, dtype=torch.bool), "normal": torch.ones(3, dtype=torch.bool)})
    torch.testing.assert_close(left_out, marked)
    features = half_faces(maps) - embedding.means[0].double().numpy()
    features[:, : 14 * 7] = 0
    projected = features @ embedding.projections[0].double().numpy()
    np.testing.assert_allclose(left_out, projected / np.linalg.norm(projected, axis=1, keepdims=True), atol=2e-5)


def test_with_registration_a_moved_face_keeps_its_embedding(faces: dict[str, Tensor]) -> None:
    embedding = fitted(TWO, registered=True)
    embedding.set_registration(congeal(registration_features(faces)), torch.zeros(correction_shape(TWO)))
    moved = augment(
        faces, AugmentConfig(flip=0, crop=1, rotation=5, scale=0.1, shift=0.03, noise=0), torch.Generator().manual_seed(0)
    )
    first, second = (torch.stack(embedding.project(embedding.centred_features(maps))) for maps in (faces, moved))
    plain, registered = 1 - (first * second).sum(dim=2).mean(dim=1)
    assert registered < 0.25 * plain
    torch.testing.assert_close(embedding(faces), first[1])


@pytest.mark.parametrize(
    ("modalities", "compared", "cosines_at_9040fd5"),
    [
        (TWO, "normal", [0.6929, 0.8462, 0.7522, 0.6781]),
        (("normal",), "normal", [0.9679, 0.9697, 0.9794, 0.9744]),
        (("albedo",), "albedo", [0.1563, 0.6458, -0.0646, 0.0597]),
    ],
)
def test_a_model_of_before_keeps_its_registration(
    faces: dict[str, Tensor], modalities: tuple[str, ...], compared: str, cosines_at_9040fd5: list[float]
) -> None:
    """At commit 9040fd5 sessions were registered by their normals if they had any, with constants that were not stored."""
    maps = {name: faces[name] for name in modalities}
    old_state = fitted(modalities, registered=True).state_dict()
    del old_state["registration_constants"], old_state["registration_correction"]
    old_state["mean_face"] = registration_features(maps)[compared].mean(dim=0, keepdim=True)
    embedding = fitted(modalities, registered=True)
    embedding.load_state_dict(old_state)
    copied = fitted(modalities, registered=True)
    copied.load_state_dict(embedding.state_dict())
    for loaded in (embedding, copied):
        registered = loaded(maps).unflatten(1, (2, -1))[:, 1] * 2**0.5
        np.testing.assert_allclose((registered @ registered.T)[0, 1:5], cosines_at_9040fd5, atol=1e-3)
    newest = fitted(modalities, registered=True)
    embedding.load_state_dict(newest.state_dict())
    assert embedding.compared == newest.compared
    assert embedding.state_dict().keys() == newest.state_dict().keys()


def test_a_model_without_correction_joins_both_parts_and_keeps_doing_so(faces: dict[str, Tensor]) -> None:
    """As at commit 0436a32, also after it is stored again."""
    newer = fitted(TWO, registered=True)
    newer.set_registration(congeal(registration_features(faces)), torch.zeros(correction_shape(TWO)))
    old_state = newer.state_dict()
    del old_state["registration_correction"]
    expected = torch.cat(newer.project(newer.centred_features(faces)), dim=1) / 2**0.5
    for _ in range(2):
        embedding = fitted(TWO, registered=True)
        embedding.load_state_dict(old_state)
        torch.testing.assert_close(embedding(faces), expected)
        old_state = embedding.state_dict()
    assert newer(faces).shape[1] == expected.shape[1] / 2
    embedding.load_state_dict(newer.state_dict())
    assert torch.equal(embedding(faces), newer(faces))


def test_a_mean_face_of_another_shape_is_rejected() -> None:
    for face in (torch.zeros(5), torch.zeros(1, 2, 28, 28)):
        with pytest.raises(RuntimeError, match="mean_face"):
            fitted(registered=True).load_state_dict(fitted(registered=True).state_dict() | {"mean_face": face})
    state = fitted(registered=True).state_dict()
    del state["registration_constants"], state["registration_correction"]
    with pytest.raises(RuntimeError, match="registration_constants"):  # no model had both maps without constants
        fitted(registered=True).load_state_dict(state)


def test_a_session_with_one_of_the_maps_is_registered_by_it(faces: dict[str, Tensor]) -> None:
    embedding, albedo = fitted(TWO, registered=True), {"albedo": faces["albedo"]}
    correction = torch.randn(correction_shape(TWO), generator=torch.Generator().manual_seed(1))
    embedding.set_registration(congeal(registration_features(faces)), correction)
    (plain, registered), alone = embedding.features(albedo), fitted(("albedo",), registered=True)
    alone.set_registration({"albedo": embedding.mean_face[:, :1]}, torch.zeros(correction_shape(["albedo"])))
    assert list(registered) == ["albedo"]
    torch.testing.assert_close(registered["albedo"], alone.features(albedo)[1]["albedo"])
    assert not torch.allclose(registered["albedo"], plain["albedo"], atol=0.1)


@pytest.fixture(scope="module")
def faces() -> dict[str, Tensor]:
    scenes = [render_session(3, subject, 0, 112) for subject in range(8)]
    albedo = np.stack([scene.albedo[None] for scene in scenes]).astype(np.float32)
    normals = np.stack([scene.normal.transpose(2, 0, 1) for scene in scenes]).astype(np.float32)
    return {"albedo": torch.from_numpy(albedo), "normal": torch.from_numpy(normals)}


@pytest.mark.parametrize("flip_average", [False, True])
def test_the_cosine_of_two_sessions_is_the_weighted_mean_of_both_cosines(flip_average: bool) -> None:
    maps = make_maps(THREE)
    plain = make_network(THREE, "score", flip_average=flip_average).eval()
    joined = make_network(THREE, "score", flip_average=flip_average, linear_share=0.7).eval()
    joined.linear = fitted(THREE)
    joined.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        network, both = plain(maps).embedding.double(), joined(maps).embedding.double()
        linear = joined.linear(maps).double()
    expected = 0.3 * cosines(network) + 0.7 * cosines(linear)
    torch.testing.assert_close(cosines(both), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(both.norm(dim=1), network.norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("flip_average", [False, True])
def test_the_logits_are_the_weighted_mean_of_both_logarithmic_probabilities(flip_average: bool) -> None:
    maps = make_maps(TWO)
    plain = make_network(TWO, flip_average=flip_average).eval()
    joined = make_network(TWO, flip_average=flip_average, linear_share=0.5, attribute_share=0.7).eval()
    joined.linear = fitted()
    assert joined.linear_attributes is not None
    generator = torch.Generator().manual_seed(3)
    weights = {task: torch.randn(2 * 392 + 1, count, generator=generator) for task, count in CLASSES.items()}
    for task, of_task in weights.items():
        joined.linear_attributes.set_weights(task, of_task)
    joined.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        network, both = plain(maps).logits, joined(maps).logits
        plain_features = joined.linear.centred_features(maps)[0]
        unit = functional.normalize(plain_features @ joined.linear.projections[0], dim=1)
    for task, of_task in weights.items():
        linear = torch.cat([unit, plain_features, torch.ones(COUNT, 1)], dim=1) @ of_task
        expected = network[task].softmax(dim=1) ** 0.3 * linear.softmax(dim=1) ** 0.7
        torch.testing.assert_close(both[task].softmax(dim=1), expected / expected.sum(dim=1, keepdim=True), atol=1e-5, rtol=0)


def test_missing_maps_are_missing_in_both_parts() -> None:
    maps = make_maps(TWO)
    network = make_network(TWO, "score", linear_share=0.5, attribute_share=0.5).eval()
    network.linear = fitted()
    assert network.linear_attributes is not None
    network.linear_attributes.set_weights("gender", torch.randn(2 * 392 + 1, 2, generator=torch.Generator().manual_seed(3)))
    present = torch.tensor([[True, False]]).expand(COUNT, -1)
    with torch.no_grad():
        marked, left_out = network(maps, present), network({"albedo": maps["albedo"]})
    torch.testing.assert_close(marked.embedding, left_out.embedding)
    torch.testing.assert_close(marked.logits["gender"], left_out.logits["gender"])


def test_without_a_map_of_the_linear_part_a_session_has_the_outputs_of_the_network() -> None:
    """Depth alone, where the linear part reads normals."""
    plain = make_network(("normal", "depth"), "score").eval()
    joined = make_network(("normal", "depth"), "score", linear_share=0.85, attribute_share=0.85).eval()
    joined.linear = fitted(("normal", "depth"))
    joined.load_state_dict(plain.state_dict(), strict=False)
    assert joined.linear_attributes is not None
    joined.linear_attributes.set_weights("gender", torch.full((2 * 294 + 1, 2), 3.0) * torch.tensor([1.0, -1.0]))
    maps = make_maps(("normal", "depth"))
    with torch.no_grad():
        expected, depth = plain({"depth": maps["depth"]}), joined({"depth": maps["depth"]})
        marked = joined(maps, torch.tensor([[False, True]]).expand(COUNT, -1))
    for found in (depth, marked):
        torch.testing.assert_close(found.logits["gender"].softmax(dim=1), expected.logits["gender"].softmax(dim=1))
        torch.testing.assert_close(found.embedding.norm(dim=1), expected.embedding.norm(dim=1))


def test_an_attribute_without_a_fitted_classifier_has_the_probabilities_of_the_network() -> None:
    maps = make_maps(TWO)
    plain = make_network(TWO).eval()
    joined = make_network(TWO, linear_share=0.5, attribute_share=0.7).eval()
    joined.linear = fitted()
    joined.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        for task, logits in joined(maps).logits.items():
            torch.testing.assert_close(logits.softmax(dim=1), plain(maps).logits[task].softmax(dim=1))


def test_the_losses_see_the_trained_embedding_only() -> None:
    outputs = [make_network(TWO, linear_share=linear)(make_maps(TWO)).embedding for linear in (0.0, 0.7)]
    assert torch.equal(*outputs)


def cosines(embeddings: Tensor) -> Tensor:
    unit = functional.normalize(embeddings, dim=1)
    return unit @ unit.T
