"""Lane networks as inference runs them: without the auxiliary branch, which only training uses."""

from detprune.run.measuring import Deployed, deployed
from detprune_lanes.network.model import STRIDE, LaneNetwork


@deployed.register
def as_deployed(network: LaneNetwork) -> Deployed:
    """A copy without auxiliary branch, for images of the network's size."""
    plain = network.without_aux()
    return Deployed(plain, plain, stride=STRIDE, size=network.size)
