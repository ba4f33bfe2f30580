"""Task weighting by the gradients at the last shared feature maps: the backbone follows a direction that suits every task."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fr_ps.distributed import from_main_process, sum_over_processes_
from fr_ps.losses.gradient_solvers import mgda_weights, projection_weights, upgrad_weights
from fr_ps.losses.weighting import NO_PENALTIES, Penalties, Weighting

WeightingMethod = Callable[[Tensor], Tensor]
"""The (tasks, tasks) Gramian of the gradients, float64, to (tasks,) weights."""


class GradientWeighting(Weighting):
    """A combination of the task gradients for the backbone; constant weights for all layers after it.

    Let g_i be the gradient of task i's weighted loss at the shared feature maps ("maps" below) of all modalities. A method
    computes w_i from the Gramian of the g_i. Let d = sum_i w_i g_i. `backward` of the total passes d plus the adversarial part
    (below) to the maps. The guarantees of the method hold if the maps move by a small step along -d; the backbone can only
    approximate that.

    Adversarial part: the gradient of the adversarial losses is projected onto the cone of all vectors v for which a step along -v
    raises no task loss. The projection is multiplied by min(1, |d| / |sum_i g_i|). Because of the projection, every task loss
    falls at least as much as in a step along -d alone. Without the factor the adversaries would dominate where d is short: MGDA's
    d can be far shorter than every gradient (0 for opposite ones), Aligned-MTL's as short as the smallest principal component.

    The gradients are in float32: if |d| is below about 1e-4 of the longest gradient, d is partly rounding noise.

    The layers after the maps (separation, heads, discriminators, classifier weights) get the gradient of the sum of the losses,
    each times its constant weight. With the method's weights instead, MGDA would hardly train the head with the longest gradient,
    and Aligned-MTL could train a head with a negative weight. The papers also leave task-specific parameters out.

    Not in the Gramian: tasks without a loss in the batch, tasks with gradient 0 (MGDA would return d = 0), and maps without
    gradient (frozen branches). If no map has a gradient, the total is the sum with the
    constant weights.

    Args:
        tasks: task to its constant weight.
        adversarial: adversarial task to its constant weight.
        method: Gramian to weights.
    """

    mean: Tensor
    steps: Tensor

    def __init__(self, tasks: Mapping[str, float], adversarial: Mapping[str, float], method: WeightingMethod) -> None:
        super().__init__()
        self.tasks, self.adversarial, self.method = dict(tasks), dict(adversarial), method
        self.register_buffer("mean", torch.ones(len(self.tasks)))  # (tasks,) mean of w over the steps of the epoch
        self.register_buffer("steps", torch.zeros(len(self.tasks)))  # (tasks,) number of these steps

    def weights(self) -> dict[str, Tensor]:
        """Task to the weight of its gradient at the shared feature maps.

        It is the mean over this epoch or, before the first step, over the previous one. The weight of a single step is noisy,
        because it depends on the batch.
        """
        constant = self.mean.new_tensor(list(self.tasks.values()))
        adversarial = {task: self.mean.new_tensor(weight) for task, weight in self.adversarial.items()}
        return dict(zip(self.tasks, constant * self.mean)) | adversarial

    def forward(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor], penalties: Penalties = NO_PENALTIES) -> Tensor:
        """As in `Weighting`."""
        constant = self.tasks | self.adversarial
        weighted = {task: constant[task] * loss for task, loss in losses.items()}
        total = torch.stack(list(weighted.values())).sum()
        maps = [shared_map for shared_map in shared if shared_map.requires_grad]
        if not maps:
            return total
        tasks = [task for task in self.tasks if task in losses]
        adversarial_losses = [weighted[task] for task in losses if self.adversarial.get(task, 0) > 0]
        # The loss behind each row of `gradients` below: those of the tasks, then the sum of the adversarial ones, if any.
        loss_of_row = [weighted[task] for task in tasks]
        if adversarial_losses:
            loss_of_row.append(torch.stack(adversarial_losses).sum())
        gradients = torch.stack([_gradient(loss, maps) for loss in loss_of_row])
        gramian = sum_over_processes_(_gramian(gradients))  # summed over the entries of all processes' maps
        # Computed by one process and copied to the others, since PCGrad draws random numbers.
        weights = from_main_process(lambda: self._task_weights(gramian[: len(tasks), : len(tasks)]))
        self._update_mean_weights(tasks, weights)
        coefficients = _add_adversarial(weights, gramian) if adversarial_losses else weights
        change = (coefficients - 1).to(gradients) @ gradients  # minus 1: the total already contains each gradient once
        for shared_map, part in zip(maps, change.split([shared_map.numel() for shared_map in maps])):
            term = (shared_map * part.view_as(shared_map)).sum()
            total = total + (term - term.detach())  # its value is 0, its gradient at the map is `part`
        return total

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Begin a new mean: the weights of the next step replace the old one."""
        self.steps.zero_()

    def _task_weights(self, gramian: Tensor) -> Tensor:
        squares = gramian.diagonal()
        weights = torch.ones_like(squares)
        nonzero = squares > 0
        # If the Gramian is not finite, neither is the gradient of the total, and the trainer skips the step.
        if nonzero.any() and torch.isfinite(gramian).all():
            # No method depends on the common scale of the gradients, but the solvers' tolerances do.
            weights[nonzero] = self.method(gramian[nonzero][:, nonzero] / squares[nonzero].mean())
        return weights

    @torch.no_grad()
    def _update_mean_weights(self, tasks: Sequence[str], weights: Tensor) -> None:
        updated = [index for index, task in enumerate(self.tasks) if task in tasks]
        self.steps[updated] += 1
        self.mean[updated] += (weights.to(self.mean) - self.mean[updated]) / self.steps[updated]


def gradient_method(name: str, cagrad_c: float) -> WeightingMethod:
    """The weighting method `name`.

    If the gradients are equally long and orthogonal, each weight is 1 (CAGrad: 1 + c), so that the settings
    of the learning rate and of the adversaries need no change. In other cases the sum of the weights depends on the method.

    For two tasks or more the method finds a vector d. For a small step along -d, to first order,

    - upgrad (Quinton, Rey, arXiv:2406.16232): no loss rises; d is the sum of the projections of the gradients onto
      the cone of such directions.
    - mgda (Désidéri 2012; Sener, Koltun, NeurIPS 2018): every loss falls, by at least |d|^2 / tasks. d is the number of
      gradients times the shortest vector in their convex hull. That vector is no longer than the shortest gradient.
    - pcgrad (Yu et al., NeurIPS 2020): with two tasks no loss rises; with more, a loss can rise. Each gradient is projected
      to remove its conflicts with the others, in an order drawn from torch's global generator.
    - cagrad (Liu et al., NeurIPS 2021): the sum of the losses falls; within a ball of radius `cagrad_c` |g| around the gradient g
      of the sum, d maximises the decrease of the worst task, which may still rise.
    - aligned_mtl (Senushkin et al., CVPR 2023): the sum falls. The gradients are made orthogonal and all of one length,
      that of the shortest of their principal components. With two tasks no loss rises if the gradients are equally long or less
      than 135 degrees apart. A weight can be below 0.

    UPGrad and MGDA are solved exactly (`fr_ps.losses.gradient_solvers`): with torchjd's iterative solvers a loss can rise where
    long gradients conflict. CAGrad is solved to within 1 % of its optimum; PCGrad and Aligned-MTL are in closed form.

    Args:
        name: of the method.
        cagrad_c: c of CAGrad.
    """
    # Imported here: with its solvers it takes up to a second, which other weightings need not spend.
    from torchjd import aggregation

    methods: dict[str, Callable[[], WeightingMethod]] = {
        "upgrad": lambda: upgrad_weights,
        "pcgrad": aggregation.PCGradWeighting,
        "cagrad": lambda: _scale_to_sum(aggregation.CAGradWeighting(cagrad_c, norm_eps=1e-8)),
        "mgda": lambda: _scale_to_sum(mgda_weights),
        "aligned_mtl": lambda: _scale_to_sum(aggregation.AlignedMTLWeighting()),
    }
    return methods[name]()


def _scale_to_sum(method: WeightingMethod) -> WeightingMethod:
    """`method` for the sum of the losses instead of their mean."""
    return lambda gramian: len(gramian) * method(gramian)


def _add_adversarial(weights: Tensor, gramian: Tensor) -> Tensor:
    """(tasks + 1,) coefficients of the gradients (the tasks', then the adversaries'), from the (tasks,) weights.

    `gramian` is (tasks + 1, tasks + 1), with the gradient of the adversaries last. The adversarial gradient a is projected onto
    the vectors v for which a step along -v raises no task loss. The projection is a + sum_j y_j g_j, with y from
    `projection_weights`; it is multiplied by `_length_ratio`.
    """
    added, nonzero = torch.zeros_like(weights), gramian.diagonal() > 0
    nonzero_tasks, nonzero_adversary = nonzero[:-1], nonzero[-1]
    if nonzero_adversary and nonzero_tasks.any() and torch.isfinite(gramian).all():
        added[nonzero_tasks] = projection_weights(gramian[nonzero][:, nonzero])
    scale = _length_ratio(weights, gramian[:-1, :-1])
    return torch.cat([weights + scale * added, weights.new_tensor([scale])])


def _length_ratio(weights: Tensor, gramian: Tensor) -> float:
    """Length of the gradients' combination by `weights` divided by that of their plain sum, at most 1; 1 if both are 0."""
    combined, plain = weights @ gramian @ weights, gramian.sum()
    return 1.0 if combined >= plain * (1 - 1e-9) else (combined.clamp_min(0) / plain).sqrt().item()


def _gradient(loss: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """(values of all `maps`,) gradient of `loss`, in float32 or better."""
    found = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True, materialize_grads=True)
    flat = torch.cat([gradient.flatten() for gradient in found])
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _gramian(gradients: Tensor) -> Tensor:
    """(tasks, tasks) products of the (tasks, values) gradients, in float64 and on the CPU, where the methods run."""
    exact = (gradients.cpu() if gradients.device.type == "mps" else gradients).double()  # mps has no float64
    return (exact @ exact.T).cpu()
