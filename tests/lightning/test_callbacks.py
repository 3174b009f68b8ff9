"""The callbacks in a plain Lightning training, as somebody with a LightningModule of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import detprune as dp
import lightning as L
from detprune_lightning import ConstrainedTraining, HardPruningCheck, MaskedRetraining


class Net(L.LightningModule):
    def __init__(self, optimizers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
        self.optimizer_count = optimizers
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        made = [
            torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)
            for _ in range(self.optimizer_count)
        ]
        return made if self.optimizer_count > 1 else made[0]


def loader(batches: int = 8) -> "DataLoader[Any]":
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8 * batches, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.arange(8 * batches) % 4), batch_size=8)


def trainer(tmp_path: Path, callbacks: list[L.Callback], **options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **{"max_epochs": 3, "enable_checkpointing": False, **options},
    )


BUDGET = dp.Budget(compression=5)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.parametrize("options", [{}, {"precision": "bf16-mixed"}, {"gradient_clip_val": 0.1}])
def test_training_under_lightning_equals_a_plain_loop(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    module = Net()
    training = ConstrainedTraining(
        dp.SLR(rho="auto"), budget=BUDGET, every=1, network=module.network
    )
    trainer(tmp_path, [training], **options).fit(module, loader())

    plain = Net().network
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, momentum=0.9)
    pruner = dp.Pruner(
        plain, optimizer, dp.SLR(rho="auto"), budget=BUDGET, steps_per_update=8, updates=3
    )
    for _ in range(3):
        for images, labels in loader():
            with torch.autocast("cpu", torch.bfloat16, enabled="precision" in options):
                loss = nn.functional.cross_entropy(plain(images), labels)
            loss.backward()
            if "gradient_clip_val" in options:
                nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            pruner.observe(loss)
        pruner.update()
    assert training.pruner.history == pruner.history
    for ours, theirs in zip(module.network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert pruner.history[-1].rho > pruner.history[0].rho > 0


def test_accumulation_updates_by_optimizer_steps_and_sees_whole_losses(tmp_path: Path) -> None:
    module = Net()
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET, every=0.5, network=module.network)
    trainer(tmp_path, [training], accumulate_grad_batches=2).fit(module, loader())
    history = training.pruner.history
    assert len(history) == 6
    losses = torch.tensor(module.losses).view(6, 4).mean(1).tolist()
    assert [entry.task_loss for entry in history] == pytest.approx(losses, rel=1e-5)


def test_check_stops_training_and_a_resumed_run_stays_stopped(tmp_path: Path) -> None:
    module, values = Net(), iter([0.1, 0.6, 0.9])
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET, every=1, network=module.network)
    seen: list[tuple[float, int]] = []
    checks: Any = {"stop_at": 0.5, "on_check": lambda value, epoch: seen.append((value, epoch))}
    check = HardPruningCheck(training, lambda network: next(values), **checks)
    fitted = trainer(tmp_path, [training, check], max_epochs=5)
    fitted.fit(module, loader())
    assert seen == [(0.1, 1), (0.6, 2)]
    assert fitted.current_epoch == 2
    fitted.save_checkpoint(tmp_path / "stopped.ckpt")

    module = Net()
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET, every=1, network=module.network)
    check = HardPruningCheck(training, lambda network: next(values), **checks)
    resumed = trainer(tmp_path, [training, check], max_epochs=5)
    resumed.fit(module, loader(), ckpt_path=str(tmp_path / "stopped.ckpt"), weights_only=True)
    assert resumed.global_step == fitted.global_step
    assert len(training.pruner.history) == 2


@pytest.mark.parametrize(
    "method",
    [
        dp.SLR(rho=0.1),
        dp.ADMM(rho=0.1),
        dp.SASADMM(inner_steps=3),
        dp.Magnitude(),
        dp.GradualMagnitude(ramp=0.0, every=3),
        dp.DPF(ramp=0.0, every=3),
    ],
)
def test_checkpoint_in_the_middle_resumes_to_the_same_bits(
    tmp_path: Path, method: dp.Method
) -> None:
    def fit(callbacks: list[L.Callback], module: Net, ckpt: str | None, epochs: int) -> L.Trainer:
        run = trainer(tmp_path, callbacks, max_epochs=epochs)
        run.fit(module, loader(), ckpt_path=ckpt, weights_only=True)
        return run

    def training(module: Net) -> ConstrainedTraining:
        return ConstrainedTraining(method, budget=BUDGET, every=1, network=module.network)

    whole, first, second = Net(), Net(), Net()
    straight = training(whole)
    fit([straight], whole, None, 4)
    fit([training(first)], first, None, 2).save_checkpoint(tmp_path / "half.ckpt")
    resumed = training(second)
    fit([resumed], second, str(tmp_path / "half.ckpt"), 4)
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.pruner.history == straight.pruner.history


def test_training_that_goes_on_without_the_pruners_state_is_refused(tmp_path: Path) -> None:
    dense = trainer(tmp_path, [], max_epochs=1)
    dense.fit(Net(), loader())
    dense.save_checkpoint(tmp_path / "dense.ckpt")
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET)
    fitting = trainer(tmp_path, [training])
    with pytest.raises(dp.InputError, match=r"goes on at step 8, but .*dense\.ckpt holds no state"):
        fitting.fit(Net(), loader(), ckpt_path=str(tmp_path / "dense.ckpt"), weights_only=True)


def test_masks_hold_in_retraining(tmp_path: Path) -> None:
    module = Net()
    training = ConstrainedTraining(dp.Magnitude(), budget=BUDGET, network=module.network)
    trainer(tmp_path, [training]).fit(module, loader())
    pruner = training.pruner
    with pytest.raises(dp.InputError, match=r"call pruner\.hard_prune"):
        MaskedRetraining(pruner)
    pruner.hard_prune()
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    weights = module.network[0].weight.detach().clone()
    trainer(tmp_path, [MaskedRetraining(pruner)]).fit(module, loader())
    assert not torch.equal(weights, module.network[0].weight)
    for name, parameter in module.network.named_parameters():
        if name in before:
            assert torch.equal(parameter != 0, before[name])


def test_more_than_one_optimizer_is_refused(tmp_path: Path) -> None:
    module = Net(optimizers=2)
    module.automatic_optimization = False
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET)
    with pytest.raises(dp.InputError, match="has 2 optimizers; pruning needs exactly one"):
        trainer(tmp_path, [training]).fit(module, loader())


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_end_with_the_fit_are_refused(tmp_path: Path, strategy: str) -> None:
    net = Net()
    pruner = dp.Pruner(net, None, dp.Magnitude(), budget=BUDGET)
    pruner.hard_prune()
    for callback in (ConstrainedTraining(dp.ADMM(), budget=BUDGET), MaskedRetraining(pruner)):
        within = trainer(tmp_path, [callback], strategy=strategy)
        with pytest.raises(dp.InputError, match=r"ddp_notebook.*; take ddp, or one device"):
            callback.on_fit_start(within, net)  # as in such a process


def test_unknown_length_is_refused(tmp_path: Path) -> None:
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET)
    with pytest.raises(dp.InputError, match="needs a known length"):
        trainer(tmp_path, [training], max_epochs=-1).fit(Net(), loader())
    with pytest.raises(dp.InputError, match="every is 0"):
        ConstrainedTraining(dp.ADMM(), every=0)


class Stream(IterableDataset[Any]):
    """Samples without a known number, as of WebDataset."""

    def __iter__(self) -> Any:
        return iter(loader().dataset)


def test_a_loader_without_length_needs_its_number_of_batches(tmp_path: Path) -> None:
    training = ConstrainedTraining(dp.GradualMagnitude(), budget=BUDGET)
    stream: DataLoader[Any] = DataLoader(Stream(), batch_size=8)
    with pytest.raises(
        dp.InputError, match=r"needs a known length.*IterableDataset.*limit_train_b"
    ):
        trainer(tmp_path, [training]).fit(Net(), stream)
    trainer(tmp_path, [training], limit_train_batches=8).fit(Net(), stream)
    assert training.pruner.history[-1].k == len(training.pruner.history) == 6
    training.hard_prune()
    assert training.pruner.summary().compression == pytest.approx(5, abs=0.1)


class Silent(Net):
    """Steps by itself, and tells Lightning no loss."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def test_a_method_that_compares_losses_says_that_training_step_returned_none(
    tmp_path: Path,
) -> None:
    module = Silent()
    training = ConstrainedTraining(dp.SLR(), budget=BUDGET, every=0.5, network=module.network)
    with pytest.raises(dp.InputError, match="training_step returned none in this one; return the"):
        trainer(tmp_path, [training]).fit(module, loader())


@pytest.mark.parametrize("owner", ["module", "data"])
def test_statistics_are_those_of_batches_as_the_network_gets_them(
    tmp_path: Path, owner: str
) -> None:
    def normalised(_: Any, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0] - 127) / 64, batch[1]

    class Data(L.LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(pixels, torch.zeros(64, dtype=torch.long)), 16)

    class Module(Net):
        pass

    pixels = torch.randint(0, 256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 1.0
    kind: Any = Module if owner == "module" else Data
    kind.on_after_batch_transfer = normalised
    module = Module()
    module.network.insert(1, nn.BatchNorm2d(8))
    training = ConstrainedTraining(dp.Magnitude(), budget=BUDGET, network=module.network)
    data: Any = Data() if owner == "data" else Data().train_dataloader()
    trainer(tmp_path, [training]).fit(module, data)
    training.hard_prune()
    with torch.no_grad():
        expected = module.network[0]((pixels - 127) / 64).mean((0, 2, 3))  # type: ignore[operator]
    torch.testing.assert_close(module.network[1].running_mean, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("other", ["label", "depth"])
def test_statistics_are_those_of_the_images_of_a_mapping(tmp_path: Path, other: str) -> None:
    class Module(Net):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.network(batch["image"]).square().mean()  # type: ignore[no-any-return]

    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first = torch.arange(64) if other == "label" else images * 5 + 3  # fits the network too
    data = [{other: value, "image": image} for value, image in zip(first, images, strict=True)]
    module = Module()
    module.network.insert(1, nn.BatchNorm2d(8))
    training = ConstrainedTraining(dp.Magnitude(), budget=BUDGET, network=module.network)
    trainer(tmp_path, [training]).fit(module, DataLoader(data, batch_size=16))  # type: ignore[arg-type]
    training.hard_prune()
    with torch.no_grad():
        expected = module.network[0](images).mean((0, 2, 3))  # type: ignore[operator]
    torch.testing.assert_close(module.network[1].running_mean, expected, rtol=1e-3, atol=1e-4)


def test_statistics_are_those_of_all_views_of_an_image(tmp_path: Path) -> None:
    class Module(Net):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            (first, second), _ = batch
            return (self.network(first) - self.network(second)).square().mean()  # type: ignore[no-any-return]

    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    views = (images, images * 5 + 3)
    data = [((a, b), label) for label, (a, b) in enumerate(zip(*views, strict=True))]
    module = Module()
    module.network.insert(1, nn.BatchNorm2d(8))
    training = ConstrainedTraining(dp.Magnitude(), budget=BUDGET, network=module.network)
    trainer(tmp_path, [training]).fit(module, DataLoader(data, batch_size=16))  # type: ignore[arg-type]
    training.hard_prune()
    with torch.no_grad():
        expected = module.network[0](torch.cat(views)).mean((0, 2, 3))  # type: ignore[operator]
    torch.testing.assert_close(module.network[1].running_mean, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "wide"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)]
)
def test_statistics_in_the_precision_of_the_network(
    tmp_path: Path, precision: Any, wide: torch.dtype
) -> None:
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 3
    data = [(image, index % 4) for index, image in enumerate(images)]
    module = Net()
    module.network.insert(1, nn.BatchNorm2d(8))
    training = ConstrainedTraining(dp.Magnitude(), budget=BUDGET, network=module.network)
    fitted = trainer(tmp_path, [training], precision=precision)
    fitted.fit(module, DataLoader(data, batch_size=16))  # type: ignore[arg-type]
    training.hard_prune()
    with torch.no_grad():
        expected = module.network[0](images.to(wide)).mean((0, 2, 3))  # type: ignore[operator]
    torch.testing.assert_close(module.network[1].running_mean, expected, rtol=2e-2, atol=1e-2)


def test_statistics_are_estimated_anew_in_checks_and_after_hard_pruning(tmp_path: Path) -> None:
    def fit(images: int) -> tuple[list[torch.Tensor], nn.Module]:
        module, means = Net(), []
        module.network.insert(1, nn.BatchNorm2d(8))
        training = ConstrainedTraining(
            dp.Magnitude(), budget=BUDGET, network=module.network, batch_norm_images=images
        )

        def measure(network: nn.Module) -> float:
            means.append(network[1].running_mean.clone())  # type: ignore[index]
            return 0.0

        fitted = trainer(tmp_path, [training, HardPruningCheck(training, measure)])
        fitted.fit(module, loader())
        training.hard_prune()
        return [*means, module.network[1].running_mean.clone()], module.network  # type: ignore[union-attr, operator]

    stale, first = fit(0)
    fresh, second = fit(256)
    assert all(not torch.equal(a, b) for a, b in zip(stale, fresh, strict=True))
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)  # neither weights nor random states moved
    images = torch.cat([batch[0] for batch in loader()])
    with torch.no_grad():
        expected = second[0](images).mean((0, 2, 3))  # type: ignore[index]
    torch.testing.assert_close(fresh[-1], expected)


def test_batch_norm_of_several_loaders_is_told_with_a_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dictionary of loaders, as for labelled and unlabelled images; Lightning combines their batches."""

    class Both(Net):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch["labelled"], batch_idx)

    module = Both()
    module.network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), *module.network[1:])
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET, network=module.network)
    loaders = {"labelled": loader(), "unlabelled": loader()}
    trainer(tmp_path, [training]).fit(module, loaders)
    assert "the training data are a dict" in caplog.text
    assert "run some batches of images through the network in training mode" in caplog.text
    training.hard_prune()
    held = module.network[1].running_mean.clone()  # type: ignore[union-attr, operator]
    module.network.train()(next(iter(loader()))[0])  # the way out
    assert not torch.equal(held, module.network[1].running_mean)  # type: ignore[arg-type]


def test_a_ramp_without_a_sparsity_that_grows_is_refused_at_once() -> None:
    with pytest.raises(dp.InputError, match="lets the sparsity grow"):
        ConstrainedTraining(dp.SLR(ramp=0.5), dp.NM(2, 4))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ConstrainedTraining(dp.SLR), r"method is the class SLR; make one"),  # type: ignore[arg-type]
        (lambda: ConstrainedTraining(dp.SLR(), "filter"), "sparsity_set is 'filter', a str"),  # type: ignore[arg-type]
        (lambda: ConstrainedTraining(dp.SLR(), budget=0.5), r"budget is 0\.5, a float"),  # type: ignore[arg-type]
        (lambda: ConstrainedTraining(dp.SLR(), every="1"), "every is '1'"),  # type: ignore[arg-type]
        (lambda: ConstrainedTraining(dp.SLR(), batch_norm_images=2.5), "batch_norm_images is 2.5"),  # type: ignore[arg-type]
        (lambda: MaskedRetraining(nn.Linear(2, 2)), r"pruner is Linear\(.*, a Linear; write"),  # type: ignore[arg-type]
        (lambda: HardPruningCheck(dp.SLR(), lambda _: 0.0), r"training is SLR\("),  # type: ignore[arg-type]
    ],
)
def test_arguments_of_another_type(make: Any, text: str) -> None:
    with pytest.raises(dp.InputError, match=text):
        make()
