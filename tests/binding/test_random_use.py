"""Random sequences of what users do with a pruner: an error of detprune's own, or zeros that are held and counted."""

import copy
import random
from typing import Any

import pytest
import torch
from torch import nn

from core_models import HALF, METHOD_EXAMPLES, batches, small_net, train
from detprune import DetpruneError, Pruner

DATA = batches(3)
OPTIMIZERS = (
    lambda weights: torch.optim.SGD(weights, 0.05, momentum=0.9),
    lambda weights: torch.optim.SGD(weights, 0.05, weight_decay=0.1),
)


class Use:
    """A training with a pruner, and one method for each thing that a user may do next."""

    def __init__(self, name: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.model = small_net(seed=seed)
        self.optimizer: Any = OPTIMIZERS[seed % 2](self.model.parameters())
        options = {"steps_per_update": len(DATA), "updates": 8}
        self.pruner = Pruner(
            self.model, self.optimizer, METHOD_EXAMPLES[name], budget=HALF, **options
        )
        self.dense = copy.deepcopy(self.model.state_dict())
        self.saved: Any = None

    def train(self) -> None:
        train(self.model, self.optimizer, DATA)

    def update(self) -> None:
        self.pruner.update(task_loss=1.0)

    def hard_prune(self) -> None:
        self.pruner.hard_prune()

    def attach(self) -> None:
        self.optimizer = self.random.choice(OPTIMIZERS)(self.model.parameters())
        self.pruner.attach(self.optimizer)

    def train_by_another(self) -> None:
        train(self.model, self.random.choice(OPTIMIZERS)(self.model.parameters()), DATA)

    def copy(self) -> None:
        self.model, self.optimizer, self.pruner = copy.deepcopy(
            (self.model, self.optimizer, self.pruner)
        )

    def save(self) -> None:
        self.saved = copy.deepcopy((self.model.state_dict(), self.pruner.state_dict()))

    def load(self) -> None:
        if self.saved is not None:
            self.model.load_state_dict(self.saved[0])
            self.pruner.load_state_dict(copy.deepcopy(self.saved[1]))

    def load_dense(self) -> None:
        self.model.load_state_dict(self.dense)

    def assign(self) -> None:
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(state, assign=True)

    def replace_head(self) -> None:
        old = self.model[-1]
        assert isinstance(old, nn.Linear)
        self.model[-1] = nn.Linear(old.in_features, old.out_features, dtype=old.weight.dtype)

    def freeze(self) -> None:
        self.random.choice(list(self.model.parameters())).requires_grad_(False)

    def unfreeze(self) -> None:
        self.model.requires_grad_(True)

    def look(self) -> None:
        self.pruner.summary()
        self.pruner.hard_pruned_copy()


STEPS = [name for name in vars(Use) if not name.startswith("_")]
RARE = ("assign", "replace_head")  # after them most is refused
USUAL = ("train", "update", "train", "hard_prune", "hard_prune")


@pytest.mark.filterwarnings("ignore:.*losses were observed")
@pytest.mark.parametrize("seed", range(32))
@pytest.mark.parametrize("name", METHOD_EXAMPLES)
def test_whatever_is_done_zeros_are_held_or_their_loss_is_said(name: str, seed: int) -> None:
    use = Use(name, seed)
    choices = [*USUAL, *(step for step in STEPS if seed % 4 == 0 or step not in RARE)]
    for step in use.random.choices(choices, k=use.random.randrange(4, 13)):
        try:
            getattr(use, step)()
        except DetpruneError:
            continue
    try:
        summary = use.pruner.summary()
    except DetpruneError:
        return
    weights = dict(use.model.named_parameters())
    for layer in summary.layers:
        assert int(weights[layer.name].count_nonzero()) == layer.nonzero
    for weight, mask in (use.pruner.masks or {}).items():
        assert not weights[weight].detach()[~mask].any()
