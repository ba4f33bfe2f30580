"""The moving average of the weights that is validated, saved and tested instead of the weights of the last step."""

from fr_ps.models.network import FaceNetwork


class ModelEma:
    """An exponential moving average of a network's weights: after step t, average = d average + (1 - d) weights.

    d = min(decay, 1 - (1 + t)^(-2/3)), t from 0, so that what the first steps began with does not weigh on a short training.

    timm's ModelEmaV3 and not torch's AveragedModel: it averages the statistics of BN like the weights that they belong to,
    and copies integer buffers (BN's count of batches). torch's would truncate those at every step, or else take the last
    step's statistics for the averaged weights. And d is a function of the step, so that `network.state_dict()` is all of
    its state.

    Attributes:
        network: the averaged one, in evaluation mode; with a decay of 0 the trained one itself.
    """

    network: FaceNetwork

    def __init__(self, source: FaceNetwork, decay: float) -> None:
        self.source = source
        self.network = source
        self._ema = None
        if decay:
            from timm.utils import ModelEmaV3  # takes seconds

            self._ema = ModelEmaV3(source, decay=decay, use_warmup=True)
            self.network = self._ema.module

    def update(self, step: int) -> None:
        """Take in the weights after `step` of the optimizer, from 0."""
        if self._ema:
            self._ema.update(self.source, step=step + 1)  # timm counts from 1
